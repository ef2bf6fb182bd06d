"""Who holds which name, and what is watched at run time.

One process owns the file, so its leases are kept in memory and end with it; what is watched is stored.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import duckdb

from tapewick.model import Lease

__all__ = ["LeaseTable", "watch", "watched"]


class LeaseTable:
    """The leases of one process, by a clock that never jumps."""

    def __init__(self) -> None:
        self._leases: dict[str, tuple[str, float]] = {}

    def lease(self, holder: str, take: Collection[str], ttl: float) -> dict[str, Lease]:
        """Renew what ``holder`` holds, take what is free of ``take``; every lease that holds now."""
        now = time.monotonic()
        standing = {name: one for name, one in self._leases.items() if one[1] > now}
        mine = {name for name, (who, _) in standing.items() if who == holder} | (set(take) - standing.keys())
        self._leases = standing | dict.fromkeys(mine, (holder, now + ttl))
        return {name: Lease(who, end - now) for name, (who, end) in sorted(self._leases.items())}

    def holds(self, name: str, holder: str) -> bool:
        """Whether ``holder`` holds ``name`` now; any thread may ask."""
        who, end = self._leases.get(name, ("", 0.0))
        return who == holder and end > time.monotonic()

    def release(self, holder: str, names: Collection[str]) -> None:
        """Let go of those of ``names`` that ``holder`` holds."""
        for name in names:
            if name in self._leases and self._leases[name][0] == holder:
                del self._leases[name]


def watched(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """What somebody asked for at run time, the first first."""
    return [
        row[0] for row in connection.execute("SELECT instrument FROM watches ORDER BY since, instrument").fetchall()
    ]


def watch(connection: duckdb.DuckDBPyConnection, instrument: str, wanted: bool) -> None:
    """Add or remove one."""
    if wanted:
        connection.execute("INSERT INTO watches (instrument) VALUES (?) ON CONFLICT DO NOTHING", [instrument])
    else:
        connection.execute("DELETE FROM watches WHERE instrument = ?", [instrument])
