"""``trades``: print the trades on an instrument's tape."""

from __future__ import annotations

import argparse

from tapewick.commands.options import Parser, count, option, settings_of
from tapewick.commands.reading import opened, print_rows, reading

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick trades binance:BTCUSDT --data ./d --limit 20",
    "tapewick trades binance:BTCUSDT --data ./d --since 19000 --json   # what came after seq 19000",
    "tapewick trades binance:BTCUSDT --data ./d --limit 0 --json       # the whole tape",
)
COLUMNS = ("seq", "trade_id", "ts_event", "price", "size", "side")


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="INSTRUMENT", help="venue:symbol, for example binance:BTCUSDT")
    option(parser, "--since", "trades after this seq of the current epoch", type=count, metavar="SEQ")
    reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print the trades, ascending by seq: the first after ``--since``, else the newest."""
    from tapewick.commands.running import run as run_until_signal

    settings = settings_of(args)

    async def work() -> int:
        async with opened(args, settings) as reader:
            await print_rows(reader.trades(args.instrument, since=args.since, limit=args.limit), COLUMNS, args)
        return 0

    return run_until_signal(work())
