"""Who holds which name, and what is watched at run time: a transaction each.

Takers come one after the other, by a lock on the whole table, and time is the server's. A transaction whose
process stands still is ended after seconds, long before its leases run out: it holds up nobody.

A server's clock may be set back, or a standby be promoted whose clock is behind. Whoever asks next then has every lease
end after its own time from that moment on: a dead holder's name is free that soon, and a living one, who counts from
before it asked and by another clock, has stopped before.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tapewick.model import Lease

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["lease", "release", "watch", "watched"]

# A lease that a crash of the server forgets ends early, no worse than one that ran out: no disk is waited for.
_ALONE = """
SET LOCAL synchronous_commit = off;
SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '2s';
LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE;
UPDATE leases SET expires_at = clock_timestamp() + lasts * '1 second'::INTERVAL
WHERE expires_at > clock_timestamp() + lasts * '1 second'::INTERVAL
"""
_TAKE = """
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
gone AS (
    DELETE FROM leases USING clock WHERE expires_at <= now AND name <> ALL($2::TEXT[])
),
renewed AS (
    UPDATE leases SET expires_at = now + $3::FLOAT8 * '1 second'::INTERVAL, lasts = $3::FLOAT8 FROM clock
    WHERE holder = $1::TEXT AND expires_at > now AND name <> ALL($2::TEXT[])
    RETURNING name, holder, expires_at
),
taken AS (
    INSERT INTO leases (name, holder, expires_at, lasts)
    SELECT DISTINCT n, $1::TEXT, now + $3::FLOAT8 * '1 second'::INTERVAL, $3::FLOAT8
    FROM unnest($2::TEXT[]) AS wanted(n), clock
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, expires_at = excluded.expires_at, lasts = excluded.lasts
    WHERE leases.holder = excluded.holder OR leases.expires_at <= (SELECT now FROM clock)
    RETURNING name, holder, expires_at
)
SELECT name, holder, extract(epoch FROM expires_at - now)::FLOAT8 AS remaining FROM clock, (
    SELECT * FROM renewed UNION ALL SELECT * FROM taken
    UNION ALL SELECT name, holder, expires_at FROM leases, clock WHERE holder <> $1::TEXT AND expires_at > now
) AS standing ORDER BY name
"""


async def lease(connection: Connection, holder: str, take: Collection[str], ttl: float) -> dict[str, Lease]:
    """Renew what ``holder`` holds, take what is free of ``take``; every lease that holds now."""
    await connection.execute(_ALONE)
    rows = await connection.fetch(_TAKE, holder, list(take), ttl)
    return {row["name"]: Lease(row["holder"], row["remaining"]) for row in rows}


async def release(connection: Connection, holder: str, names: Collection[str]) -> None:
    """Let go of those of ``names`` that ``holder`` holds."""
    await connection.execute(_ALONE)
    await connection.execute("DELETE FROM leases WHERE holder = $1 AND name = ANY($2::TEXT[])", holder, list(names))


async def watched(connection: Connection) -> list[str]:
    """What somebody asked for at run time, the first first."""
    return [row["instrument"] for row in await connection.fetch("SELECT * FROM watches ORDER BY since, instrument")]


async def watch(connection: Connection, instrument: str, wanted: bool) -> None:
    """Add or remove one."""
    if wanted:
        await connection.execute("INSERT INTO watches (instrument) VALUES ($1) ON CONFLICT DO NOTHING", instrument)
    else:
        await connection.execute("DELETE FROM watches WHERE instrument = $1", instrument)
