"""Rows that a process which stands still keeps locked: whoever has the right to them ends its transaction.

A paused engine may hold heads in the middle of a commit, and a COPY whose client says nothing lasts for good. The one
who takes over has waited for the lease to run out: what the other began there would be refused anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from tapewick.errors import StoreError
from tapewick.stores._postgres_pool import Database

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["freeing"]

log = structlog.get_logger()

PATIENCE = 1.0  # seconds to wait for rows before looking who has them
# Only a session that waits for its own process, and has for as long: whoever works is waited for.
_END = """
SELECT pid, pg_terminate_backend(pid) AS ended FROM pg_stat_activity
WHERE pid = ANY(pg_blocking_pids($1)) AND wait_event = 'ClientRead'
AND greatest(state_change, query_start) < clock_timestamp() - $2::FLOAT8 * '1 second'::INTERVAL
"""


async def _end(connection: Connection, waiting: int) -> list[int]:
    """End the sessions that ``waiting`` waits for and that stand still; their process ids on the server."""
    return [row["pid"] for row in await connection.fetch(_END, waiting, PATIENCE) if row["ended"]]


@asynccontextmanager
async def freeing(database: Database, waiting: Callable[[], int]) -> AsyncIterator[None]:
    """Inside, whoever stands still and keeps what the server process ``waiting()`` (0: none yet) waits for is ended."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(PATIENCE)
            if pid := waiting():
                with suppress(StoreError):  # who waits is told
                    if ended := await database.write(partial(_end, waiting=pid)):
                        log.warning("ended transactions of a process that stands still", sessions=ended)

    watching = asyncio.create_task(watch(), name="freeing rows")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})
