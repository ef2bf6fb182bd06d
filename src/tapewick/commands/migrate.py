"""``migrate``: the version of the store's schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tapewick.commands.options import Parser, count, flag, option, setting, settings_of
from tapewick.commands.output import write
from tapewick.config import Settings
from tapewick.errors import ConfigError, StoreError

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick migrate status --data ./d       the folder's version and the newest one",
    "tapewick migrate up --data ./d           to the newest; serving does this by itself",
    "tapewick migrate down --to 0 --data ./d  back, which drops what newer versions added",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("action", choices=("up", "down", "status"), metavar="up|down|status", help="what to do")
    option(parser, "--to", "version to go back to (down)", type=count, metavar="N")
    setting(parser, "data.dir", "--data")
    flag(parser, "--json", "print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print or change the version. Raises ``ConfigError`` without ``--to``, ``StoreError`` for an unusable folder."""
    settings = settings_of(args)
    folder = Path(settings.data.dir)
    if not folder.is_dir():
        raise StoreError(f"there is no data folder {folder}: name it with --data")
    if args.action == "down" and args.to is None:
        raise ConfigError("migrate down drops data of the versions it undoes: say how far with --to N")
    from tapewick.stores._migrations import load

    newest = len(load("duckdb"))
    if args.action == "status":
        return _status(settings, newest, args.json)
    from tapewick.stores.duckdb import migrate

    done = migrate(folder, args.to if args.action == "down" else None)
    if args.json:
        write(json.dumps({"action": args.action, "done": done}).encode() + b"\n")
    else:
        write(("".join(f"{step}\n" for step in done) or "nothing to do\n").encode())
    return 0


def _status(settings: Settings, newest: int, as_json: bool) -> int:
    from tapewick import registry
    from tapewick.commands.running import run as run_until_signal

    current = True

    async def work() -> int:
        nonlocal current
        try:
            async with registry.store(settings, read_only=True):
                return 0
        except StoreError as error:
            if "older" not in str(error):
                raise
            current = False
        return 0

    run_until_signal(work())
    if as_json:
        write(json.dumps({"newest": newest, "current": current}).encode() + b"\n")
    else:
        write(f"{'at' if current else 'older than'} version {newest}, the newest\n".encode())
    return 0
