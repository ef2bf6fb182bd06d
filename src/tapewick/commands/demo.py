"""``demo``: the four roles in one process, on a simulated venue over real sockets."""

from __future__ import annotations

import argparse

from tapewick.commands.options import Parser, flag, setting, settings_of
from tapewick.commands.serve import listening, start

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick demo                       # page on port 8080, opened in your browser",
    "tapewick demo --port 0 --no-open    # any free port; the first line of output names it",
    "tapewick demo --seed 7 --rate 200 --data ./busy   # another market, busier, in a folder of its own",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    flag(parser, "--no-open", "do not open the page in a browser")
    setting(parser, "sim.seed", "--seed")
    setting(parser, "sim.rate", "--rate")
    setting(parser, "sim.symbols", "--symbols")
    listening(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the simulated venue until a signal; the exit code is 130 or 143 then."""
    return start(settings_of(args), demo=True, sources=(), browse=not args.no_open)
