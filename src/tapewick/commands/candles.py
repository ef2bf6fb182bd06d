"""``candles``: print an instrument's candles."""

from __future__ import annotations

import argparse

from tapewick.commands.options import Parser, moment, option, settings_of, timeframe
from tapewick.commands.reading import opened, print_rows, reading

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick candles binance:BTCUSDT 1h --data ./d                       # the newest 500",
    "tapewick candles binance:BTCUSDT 1m --start 2024-08-09 --limit 0 --json",
    "tapewick candles sim:BTCUSDT 1m --url http://127.0.0.1:8080          # from a running server",
)
COLUMNS = ("open_time", "open", "high", "low", "close", "volume", "trades", "state", "complete")


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="INSTRUMENT", help="venue:symbol, for example binance:BTCUSDT")
    parser.add_argument("tf", metavar="TF", help="timeframe, for example 1m 15m 1h 1d 1M")
    option(parser, "--start", "first open time, ms since 1970 or ISO 8601", type=moment, metavar="MS|ISO")
    option(parser, "--end", "open times before this", type=moment, metavar="MS|ISO")
    reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print the candles, ascending: the first from ``--start`` on, else the newest."""
    from tapewick.commands.running import run as run_until_signal

    settings, tf = settings_of(args), timeframe(args.tf).name

    async def work() -> int:
        async with opened(args, settings) as reader:
            rows = reader.candles(args.instrument, tf, start=args.start, end=args.end, limit=args.limit)
            await print_rows(rows, COLUMNS, args)
        return 0

    return run_until_signal(work())
