"""The commands: one module each, with ``EXAMPLES``, ``options(parser)`` and ``run(args) -> exit code``.

Modules import standard library and settings only at their top; what a command needs to
work is imported when it runs, so help stays instant.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapewick.commands.options import Parser

__all__ = ["COMMANDS", "module_of", "parser_of"]

COMMANDS = {
    "serve": "collect from the live venue, keep the tape, serve page and API",
    "demo": "the same on a simulated venue; needs no network",
    "run": "run one role as a process of its own: collect, engine, gateway, scan",
    "record": "write a venue's raw frames to files that replay reads",
    "replay": "put recorded captures on the tape",
    "import": "put a venue's trade or candle files into the store",
    "candles": "print candles",
    "trades": "print trades of the tape",
    "book": "print a server's order book, and follow it",
    "export": "write trades or candles to a JSON Lines, CSV, Arrow or Parquet file",
    "coverage": "print which trade ids the tape holds, and its gaps",
    "repair": "fetch what tapes lack from their venue, also what was given up",
    "backfill": "fetch a tape's past from its venue, back to a given time",
    "verify": "compare candles with the venue's own, field by field",
    "tail": "print a server's newest trades or candles, and follow them",
    "doctor": "check versions, engine, data folder, disk, clock and port",
    "migrate": "show or change the store's schema version",
    "feed": "send invented trades to a server's ingest, and check that what it acknowledged is there",
    "keys": "make, list and end API keys",
    "config": "show or check the settings and where each comes from",
    "completion": "print completion for bash, zsh or fish",
}
"""Every command and what it does, in the order help lists them."""


def module_of(name: str) -> ModuleType:
    """The module of the command ``name``."""
    return import_module(f"tapewick.commands.{'import_' if name == 'import' else name}")


def parser_of(name: str) -> Parser:
    """The argument parser of the command ``name``."""
    from tapewick.commands.options import Parser, common

    module, doc = module_of(name), COMMANDS[name]
    parser = Parser(f"tapewick {name}", doc[0].upper() + doc[1:] + ".", module.EXAMPLES)
    module.options(parser)
    common(parser)
    return parser
