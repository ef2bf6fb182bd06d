"""``feed``: send invented trades to a server's ingest at a rate, and prove that what it acknowledged is there once."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tapewick.commands.options import Parser, access, count, flag, option, server
from tapewick.commands.output import Progress, plural, write
from tapewick.commands.variables import typed
from tapewick.errors import ConfigError

__all__ = ["EXAMPLES", "options", "run", "token"]

EXAMPLES = (
    "tapewick feed --token KEY                                # 10,000 trades of hook:FEED, 1,000 a second",
    "tapewick feed --token KEY --rate 20000 --batch 1000 --count 1000000",
    "tapewick feed --token KEY --verify --json                # and read back that each acknowledged one is there once",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    server(parser, default="http://127.0.0.1:8080")
    option(parser, "--key", "another name of --token: a key with the scope ingest (and read, to verify)", metavar="KEY")
    option(parser, "--instrument", "what to feed; its ids are contiguous", default="hook:FEED", metavar="ID")
    option(parser, "--rate", "trades per second", default="1000", type=count, metavar="N")
    option(parser, "--batch", "trades per request", default="500", type=count, metavar="N")
    option(parser, "--count", "trades in all", default="10000", type=count, metavar="N")
    option(parser, "--seed", "the same seed gives the same prices and sizes", default="1", type=count, metavar="N")
    option(parser, "--patience", "seconds to go on trying without any answer", default="60", type=count, metavar="S")
    flag(parser, "--verify", "read the tape back and count each acknowledged trade")
    flag(parser, "--json", "print the outcome as one JSON object")
    flag(parser, "--no-progress", "no progress on stderr")


def run(args: argparse.Namespace) -> int:
    """Feed, and print what was acknowledged; exit 4 where an acknowledged trade is missing or there twice.

    Raises ``SourceError`` (exit 3) when the server does not answer or refuses.
    """
    from tapewick.commands.running import run as run_until_signal

    if not token(args):
        raise ConfigError("feeding needs a key: --token KEY or TAPEWICK_TOKEN; tapewick keys create makes one")
    if not args.rate or not args.batch:
        raise ConfigError("--rate and --batch must be at least 1")
    return run_until_signal(_work(args))


def token(args: argparse.Namespace) -> str:
    """What the flags and variables of either name give, what is typed first, then ``--token``; empty without any."""
    if typed(args, "key") and not typed(args, "token"):
        return str(args.key)
    return access(args).token or args.key or ""


async def _work(args: argparse.Namespace) -> int:
    from tapewick.commands.feeder import Feeder

    progress = Progress("trade", shown=not args.no_progress)
    tls = access(args).tls
    feeder = Feeder(args.url, token(args), args.instrument, tls=tls, seed=args.seed, patience=args.patience)
    try:
        await feeder.send(args.count, rate=args.rate, size=args.batch, progress=progress)
    finally:
        progress.close()
    told: dict[str, Any] = feeder.outcome()
    if args.verify:
        told |= await feeder.verify()
    if args.json:
        write(json.dumps(told).encode() + b"\n")
    else:
        said = (f"{name.replace('_', ' ')} {value:,}" for name, value in told.items() if name != "instrument")
        write(
            f"{plural(told['acknowledged'], 'trade')} of {args.instrument} acknowledged; {', '.join(said)}\n".encode()
        )
    return 4 if told.get("missing") or told.get("doubled") or told["rejected"] else 0
