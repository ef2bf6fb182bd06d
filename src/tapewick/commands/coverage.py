"""``coverage``: print which trade ids a tape holds without a hole, and its gaps."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tapewick.commands.options import Parser, settings_of
from tapewick.commands.output import coloured, paint, plural, write
from tapewick.commands.reading import as_json, opened, reading

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick coverage binance:BTCUSDT --data ./d",
    "tapewick coverage binance:BTCUSDT --data ./d --json",
    "tapewick coverage sim:BTCUSDT --url http://127.0.0.1:8080",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="INSTRUMENT", help="venue:symbol, for example binance:BTCUSDT")
    reading(parser, limited=False)


def run(args: argparse.Namespace) -> int:
    """Print the ledger: one JSON object, or a summary on a terminal."""
    from tapewick.commands.running import run as run_until_signal

    settings = settings_of(args)

    async def work() -> int:
        import msgspec

        async with opened(args, settings) as reader:
            ledger = await reader.coverage(args.instrument)
        write(msgspec.json.encode(ledger) + b"\n" if as_json(args) else _summary(ledger, args.color).encode())
        return 0

    return run_until_signal(work())


def _summary(ledger: dict[str, Any], color: str) -> str:
    on = coloured(color, sys.stdout)
    proof = {True: paint("complete", "green", on), False: paint("has holes", "red", on), None: "cannot be proven"}
    lines = [f"{ledger['instrument']}  {plural(ledger['trades'], 'trade')}  {proof[ledger.get('complete')]}"]
    lines += [f"  ids {first}..{last}" for first, last in ledger["ranges"]]
    lines += [
        f"  gap between {gap['left_id']} and {gap['right_id']} ({gap['state']}, {gap['reason']})"
        for gap in ledger["gaps"]
    ]
    return "\n".join(lines) + "\n"
