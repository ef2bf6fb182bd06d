"""``import``: a venue's own files into the store; trades onto the tape, bars beside it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tapewick.commands.feeding import feed, files_of, storing
from tapewick.commands.options import Parser, option, settings_of, timeframe
from tapewick.commands.output import note, plural, write
from tapewick.config import Settings
from tapewick.errors import ConfigError

if TYPE_CHECKING:
    from tapewick.timeframe import Timeframe

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick import --format binance-trades-csv --instrument binance:TRXUSDT trades.csv.gz --data ./d",
    "tapewick import --format kraken-trades --instrument kraken:XBTUSDT trades.json.gz --data ./d",
    "tapewick import --format binance-klines --tf 15m --instrument binance:BTCUSDT bars.jsonl.gz --data ./d",
)
DIGITS = 8  # the venue prints its bars with eight
FORMATS = ("kraken-trades", "binance-trades-csv", "binance-aggtrades-json", "binance-klines")


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of one format; .gz and .zst as they are")
    option(parser, "--format", "what the files hold: " + ", ".join(FORMATS), choices=FORMATS, metavar="FORMAT")
    option(parser, "--instrument", "whose they are, as venue:symbol", metavar="ID")
    option(parser, "--tf", "timeframe of the bars (binance-klines)", metavar="TF")
    storing(parser)


def run(args: argparse.Namespace) -> int:
    """Import the files. Raises ``ConfigError`` for a missing flag, ``SourceError`` or ``BadPayload`` for a bad file."""
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
        bars, rolled = await _import_bars(settings, files, tf, args.instrument)
        seconds = time.monotonic() - started
        if args.json:
            write(json.dumps({"bars": bars, "rolled_up": rolled, "seconds": round(seconds, 3)}).encode() + b"\n")
        else:
            rate = bars / seconds
            note(f"{plural(bars, 'bar')} of {tf.name}, {rolled:,} coarser ones, in {seconds:.1f} s ({rate:,.0f}/s)")
        return 0

    return run_until_signal(work())


async def _import_bars(settings: Settings, files: list[Path], tf: Timeframe, id: str) -> tuple[int, int]:
    """How many bars were read, and how many coarser ones made."""
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
            rows = read_klines(files, tf, price_scale=own.price_scale, size_scale=own.size_scale)
        except BadPayload:
            if own.price_scale >= DIGITS and own.size_scale >= DIGITS:
                raise
            own = await store.rescale(id, max(own.price_scale, DIGITS), max(own.size_scale, DIGITS))
            rows = read_klines(files, tf, price_scale=own.price_scale, size_scale=own.size_scale)
        coarser = roll_up_tree(rows, tf)
        await store.put_imported(id, np.concatenate((rows, coarser)))
    return len(rows), len(coarser)
