"""Whether the server that answers reads does so, and how far it is behind the one that is written."""

from __future__ import annotations

import asyncio
from math import nan
from typing import TYPE_CHECKING

from tapewick import metrics
from tapewick.errors import StoreError
from tapewick.stores._postgres_pool import Database

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["lag", "watched"]

EVERY = 5.0  # seconds between two looks
AGAIN = 1.0  # the same while the server does not answer
PATIENCE = 5.0  # seconds an answer may take
# $1: how far the primary has written, NULL where nobody could ask it. Then only a replica that still receives, and has
# applied all it received, counts as up to date: one that was cut off has applied everything too.
_BEHIND = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN 0
    WHEN $1::TEXT IS NOT NULL AND pg_last_wal_replay_lsn() >= $1::TEXT::pg_lsn THEN 0
    WHEN $1::TEXT IS NULL AND pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()
        AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN 0
    ELSE greatest(0, extract(epoch FROM clock_timestamp()
        - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())))
END::FLOAT8
"""


async def lag(database: Database) -> float:
    """Seconds by which reads lag behind commits; 0 where reads go to the primary. Raises ``StoreError``."""

    async def written(connection: Connection) -> str | None:
        query = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn()::TEXT END"
        found: str | None = await connection.fetchval(query)
        return found

    async def behind(connection: Connection) -> float:
        return float(await connection.fetchval(_BEHIND, reached))

    reached = None
    if not database.wanted.read_dsn:
        return 0.0
    if not database.read_only:
        try:
            reached = await database.read(written, primary=True)
        except StoreError:
            reached = None  # the primary is away: what the replica knows must do
    return await database.read(behind)


async def watched(database: Database) -> None:
    """Keep the metric and the database's ``trouble`` up to date until cancelled; no number while it is in trouble."""
    while True:
        behind = nan
        try:
            async with asyncio.timeout(PATIENCE):
                await database.read(_alive)
                behind = await lag(database)
        except TimeoutError:
            database.trouble = f"PostgreSQL has not answered for {PATIENCE:g} s: see that it runs and is not overloaded"
        except StoreError as error:
            database.trouble = str(error)
        else:
            database.trouble = None
        if database.wanted.read_dsn:
            metrics.replica_lag.set(behind)
        await asyncio.sleep(EVERY if database.trouble is None else AGAIN)


async def _alive(connection: Connection) -> None:
    await connection.execute("SELECT 1")
