"""``migrate``: the version of the store's schema."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tapewick.commands.options import Parser, count, flag, option, setting, settings_of
from tapewick.commands.output import note, write
from tapewick.errors import ConfigError, SchemaOlder, StoreError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from tapewick.stores._migrations import Migration

__all__ = ["EXAMPLES", "options", "run"]

_DROPPED = re.compile(r"\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?([\w.]+(?:\s*,\s*[\w.]+)*)", re.IGNORECASE)
_DERIVED = {"scale_factors"}  # filled by the migration that makes it

EXAMPLES = (
    "tapewick migrate status --data ./d       # the folder's version and the newest one",
    "tapewick migrate up --data ./d           # to the newest; serving does this by itself",
    "tapewick migrate down --to 2 --data ./d  # back; says what that would drop, and wants --yes for it",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("action", choices=("up", "down", "status"), metavar="up|down|status", help="what to do")
    option(parser, "--to", "version to go back to (down)", type=count, metavar="N")
    setting(parser, "data.dir", "--data")
    flag(parser, "--yes", "drop the data that going down drops")
    flag(parser, "--json", "print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print or change the version. Raises ``ConfigError`` without ``--to`` or without ``--yes`` for a loss,
    ``StoreError`` for an unusable store."""
    settings = settings_of(args)
    folder, embedded = Path(settings.data.dir), settings.store.kind == "duckdb"
    if embedded and not folder.is_dir():
        raise StoreError(f"there is no data folder {folder}: name it with --data")
    if args.action == "down" and args.to is None:
        raise ConfigError("migrate down drops data of the versions it undoes: say how far with --to N")
    from tapewick.stores._migrations import load

    known = load(settings.store.kind)
    if args.action == "status":
        return _status(settings, len(known), args.json)
    if args.action == "down" and not args.yes:
        _refuse_loss(settings, known, args.to)
    done = _migrated(settings, args.to if args.action == "down" else None)
    if args.json:
        write(json.dumps({"action": args.action, "done": done}).encode() + b"\n")
    else:
        write(("".join(f"{step}\n" for step in done) or "nothing to do\n").encode())
    return 0


def _refuse_loss(settings: Settings, known: Sequence[Migration], target: int) -> None:
    """Raise ``ConfigError`` where undoing what is newer than ``target`` drops tables, naming them."""
    lists = [names for step in known if step.number > target for names in _DROPPED.findall(step.down)]
    lost = sorted({name.strip() for names in lists for name in names.split(",")} - _DERIVED)
    if lost:
        place = f" of {settings.data.dir}" if settings.store.kind == "duckdb" else ""
        raise ConfigError(
            f"migrate down --to {target} drops {', '.join(lost)}{place} with all that is in them, and "
            "nothing brings it back: keep a copy, then add --yes"
        )


def _migrated(settings: Settings, target: int | None) -> list[str]:
    if settings.store.kind == "duckdb":
        from tapewick.stores.duckdb import migrate

        return migrate(Path(settings.data.dir), target)
    from tapewick.commands.running import run as run_until_signal
    from tapewick.stores import postgres

    done: list[str] = []

    async def work() -> int:
        own = settings.store
        done.extend(await postgres.migrate(own.migrate_dsn or own.dsn, target))
        if target is None:
            for line in await postgres.lacking(own.migrate_dsn or own.dsn, writer=own.dsn, reader=own.read_dsn):
                note(line)
        return 0

    run_until_signal(work())
    return done


def _status(settings: Settings, newest: int, as_json: bool) -> int:
    from tapewick import registry
    from tapewick.commands.running import run as run_until_signal

    version = newest

    async def work() -> int:
        nonlocal version
        try:
            async with registry.store(settings, read_only=True):
                return 0
        except SchemaOlder as older:
            version = older.version
        return 0

    run_until_signal(work())
    current = version == newest
    if as_json:
        write(json.dumps({"version": version, "newest": newest, "current": current}).encode() + b"\n")
    elif current:
        write(f"at version {version}, the newest\n".encode())
    else:
        write(f"at version {version}; the newest is {newest}\n".encode())
    return 0
