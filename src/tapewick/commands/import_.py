"""``import``: a venue's own files into the store; trades onto the tape, bars beside it.

Files of a declared format, or the venue's public archives (``archiving.py``).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tapewick.commands.archiving import date
from tapewick.commands.feeding import feed, files_of, storing
from tapewick.commands.options import Parser, flag, option, setting, settings_of, timeframe
from tapewick.commands.output import note, plural, write
from tapewick.errors import ConfigError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapewick.model import I64
    from tapewick.timeframe import Timeframe

__all__ = ["EXAMPLES", "import_bars", "options", "run"]

EXAMPLES = (
    "tapewick import --archive BTCUSDT --from 2024-08-01 --to 2024-08-09 --data ./d      # the venue's daily trades",
    "tapewick import --instrument binance:BTCUSDT BTCUSDT-trades-2024-08-09.zip --data ./d",
    "tapewick import --format binance-klines --tf 15m --instrument binance:BTCUSDT bars.jsonl.gz --data ./d",
)
DIGITS = 8  # the venue prints its bars with eight
KINDS = ("trades", "aggTrades", "klines")
FORMATS = ("kraken-trades", "binance-trades-csv", "binance-aggtrades-json", "binance-klines")


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="archives by path or URL, or files of one --format")
    option(parser, "--format", "of other files: " + ", ".join(FORMATS), choices=FORMATS, metavar="FORMAT")
    option(parser, "--instrument", "whose they are, as venue:symbol", metavar="ID")
    option(parser, "--tf", "timeframe of the bars", metavar="TF")
    option(parser, "--archive", "fetch the venue's archives of this symbol instead", metavar="SYMBOL")
    option(parser, "--kind", "what they hold", default="trades", choices=KINDS, metavar="trades|aggTrades|klines")
    option(parser, "--from", "first day, or month", type=date, metavar="DATE")
    option(parser, "--to", "last day, or month", shown_default="--from", type=date, metavar="DATE")
    setting(parser, "binance.archive_url", "--base", metavar="URL")
    flag(parser, "--force", "import archives again that were imported before")
    flag(parser, "--check", "import nothing: tell which imported archives were published anew since")
    storing(parser)


def run(args: argparse.Namespace) -> int:
    """Import the files. Raises ``ConfigError`` for a missing flag, ``SourceError`` or ``BadPayload`` for a bad file."""
    archives = args.files and args.format is None and all(name.endswith(".zip") for name in args.files)
    if args.archive is not None or archives:
        if args.archive is not None and (args.files or args.format):
            raise ConfigError("--archive fetches its files itself: name files or --archive, not both")
        from tapewick.commands import archiving

        return archiving.run(settings_of(args), args)
    if not args.files:
        raise ConfigError("nothing to import: name files, or a symbol with --archive; see tapewick import -h")
    for name in ("format", "instrument"):
        if getattr(args, name) is None:
            raise ConfigError(f"import needs --{name}; see tapewick import -h")
    if ":" not in args.instrument:
        raise ConfigError(f"--instrument {args.instrument!r} names no venue: write it as venue:symbol")
    if (args.tf is None) == (args.format == "binance-klines"):
        raise ConfigError("--tf goes with --format binance-klines, and only with it: name the timeframe of the bars")
    settings = settings_of(args)
    files = files_of(args)
    if args.format == "binance-klines":
        return _bars(settings, files, args)
    from tapewick.sources.trade_files import TradeFileSource

    return feed(settings, TradeFileSource(files, format=args.format, instrument=args.instrument), args)


def _bars(settings: Settings, files: list[Path], args: argparse.Namespace) -> int:
    """Import bars of one timeframe, and every coarser one they roll up to."""
    from tapewick.commands.running import run as run_until_signal

    tf = timeframe(args.tf)
    started = time.monotonic()

    async def work() -> int:
        bars, rolled = await import_bars(settings, files, tf, args.instrument)
        seconds = time.monotonic() - started
        if args.json:
            write(json.dumps({"bars": bars, "rolled_up": rolled, "seconds": round(seconds, 3)}).encode() + b"\n")
        else:
            rate = bars / seconds
            note(f"{plural(bars, 'bar')} of {tf.name}, {rolled:,} coarser ones, in {seconds:.1f} s ({rate:,.0f}/s)")
        return 0

    return run_until_signal(work())


async def import_bars(
    settings: Settings,
    files: list[Path],
    tf: Timeframe,
    id: str,
    *,
    check: Callable[[Path, I64], None] = lambda path, times: None,
) -> tuple[int, int]:
    """How many bars were read, and how many coarser ones made; ``check`` may refuse a file for its open times."""
    import numpy as np

    from tapewick import registry
    from tapewick.engine.candles import roll_up_tree
    from tapewick.errors import BadPayload
    from tapewick.model import Instrument
    from tapewick.sources.kline_files import read_klines

    venue, _, symbol = id.partition(":")
    async with registry.store(settings) as store:
        own = await store.put_instrument(Instrument(id=id, venue=venue, symbol=symbol))
        try:
            rows = read_klines(files, tf, price_scale=own.price_scale, size_scale=own.size_scale, check=check)
        except BadPayload:
            if own.price_scale >= DIGITS and own.size_scale >= DIGITS:
                raise
            own = await store.rescale(id, max(own.price_scale, DIGITS), max(own.size_scale, DIGITS))
            rows = read_klines(files, tf, price_scale=own.price_scale, size_scale=own.size_scale, check=check)
        coarser = roll_up_tree(rows, tf)
        await store.put_imported(id, np.concatenate((rows, coarser)))
    return len(rows), len(coarser)
