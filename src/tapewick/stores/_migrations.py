"""Numbered SQL files and what to run of them: the schema's version, shared by every SQL store.

``migrations/<dialect>/0001_tape.up.sql`` and ``….down.sql`` are one migration. The table
``schema_migrations`` records each applied one with a checksum of its ``up`` file, so a file that
was edited after it ran is found before anything is changed. Nothing here talks to a
database: a store runs the steps, each in one transaction.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from tapewick.errors import StoreError

__all__ = ["LEDGER", "Migration", "Step", "load", "plan"]

LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TIMESTAMP DEFAULT now()
)
"""
_FILE = re.compile(r"(\d{4})_(\w+)\.(up|down)\.sql")


class Migration(NamedTuple):
    """One numbered change of the schema and how to undo it."""

    number: int
    name: str
    up: str
    down: str

    @property
    def checksum(self) -> str:
        """Of the ``up`` text, whatever line endings a checkout gave it."""
        return hashlib.sha256(self.up.replace("\r\n", "\n").encode()).hexdigest()[:32]


class Step(NamedTuple):
    """SQL to run in one transaction; it keeps ``schema_migrations`` up to date itself."""

    label: str
    sql: str


def load(dialect: str, folder: Traversable | None = None) -> list[Migration]:
    """The migrations of a dialect, ascending. Raises ``StoreError`` if a number or half is missing."""
    found: dict[int, dict[str, str]] = {}
    for file in (folder or files("tapewick.stores") / "migrations" / dialect).iterdir():
        if (match := _FILE.fullmatch(file.name)) is not None:
            found.setdefault(int(match[1]), {"name": match[2]})[match[3]] = file.read_text("utf-8")
    if sorted(found) != list(range(1, len(found) + 1)) or any(len(parts) != 3 for parts in found.values()):
        raise StoreError(f"the {dialect} migrations are incomplete: reinstall tapewick")
    return [Migration(number, p["name"], p["up"], p["down"]) for number, p in sorted(found.items())]


def plan(migrations: list[Migration], applied: Mapping[int, str], target: int | None = None) -> list[Step]:
    """Steps from ``applied`` (number → checksum) to version ``target``, default the newest.

    Raises ``StoreError`` when an applied migration is unknown or differs from its file.
    """
    known = {m.number: m for m in migrations}
    target = len(migrations) if target is None else target
    if not 0 <= target <= len(migrations):
        raise StoreError(f"there is no schema version {target}: the newest is {len(migrations)}")
    for number, checksum in applied.items():
        if number not in known:
            raise StoreError(f"the store has schema version {number}, this tapewick knows {len(known)}: upgrade it")
        if checksum != known[number].checksum:
            raise StoreError(f"migration {number:04}_{known[number].name} was edited after it ran: restore its file")
    ups = [m for m in migrations if m.number not in applied and m.number <= target]
    downs = [known[number] for number in sorted(applied, reverse=True) if number > target]
    return [_down(m) for m in downs] + [_up(m) for m in ups]


def _up(m: Migration) -> Step:
    # The name and the checksum come from file names and a digest: word characters only.
    record = f"INSERT INTO schema_migrations (number, name, checksum) VALUES ({m.number}, '{m.name}', '{m.checksum}')"
    return Step(f"up {m.number:04}_{m.name}", f"{m.up}\n;{record}")


def _down(m: Migration) -> Step:
    return Step(f"down {m.number:04}_{m.name}", f"{m.down}\n;DELETE FROM schema_migrations WHERE number = {m.number}")
