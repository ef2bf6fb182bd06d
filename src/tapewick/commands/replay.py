"""``replay``: recorded captures onto the tape."""

from __future__ import annotations

import argparse

from tapewick.commands.feeding import feed, files_of, storing
from tapewick.commands.options import Parser, option, settings_of

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick replay spot_btcusdt.gz --data ./d                 # as fast as it goes",
    "tapewick replay capture.gz --speed 1 --data ./d            # at the pace it was recorded",
    "tapewick replay drec/sim-spot_*.zst --data ./d             # what `demo --record ./drec` recorded",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="capture files; .gz and .zst are opened as they are")
    option(
        parser,
        "--venue",
        "market the captures are of",
        choices=("binance", "binance-usdm", "binance-coinm", "sim"),
        metavar="binance|binance-usdm|binance-coinm|sim",
        shown_default="from the files",
    )
    option(parser, "--speed", "multiple of real time", default="max", type=speed, metavar="1|N|max")
    storing(parser)


def speed(text: str) -> float | None:
    """A positive multiple of real time; None for ``max``."""
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is neither max nor a positive number")
    return value


def run(args: argparse.Namespace) -> int:
    """Replay the files in event-time order. Raises ``SourceError`` for a file that cannot be read."""
    settings = settings_of(args)
    files = files_of(args)
    from tapewick.sources.replay import ReplaySource

    return feed(settings, ReplaySource(files, venue=args.venue, speed=args.speed), args)
