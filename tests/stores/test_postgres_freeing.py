"""An engine that stands still in the middle of a commit does not keep its tapes from who takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tapewick.errors import StoreError
from tapewick.stores import _postgres_pool
from tapewick.stores.postgres import PostgresStore
from tests.contract.tapes import fresh
from tests.parts.postgres import PostgresServer

HOLD = "SELECT FROM tape_head ORDER BY number FOR UPDATE"


async def silent(begun: asyncio.Event) -> AsyncIterator[bytes]:
    """Rows of a COPY that never come."""
    begun.set()
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize("where", ["between two statements", "in a copy"])
async def test_who_claims_ends_the_transaction_of_who_stands_still(
    postgres: PostgresServer, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server would end it by itself after a while, though not in a copy: here not for as long as anybody waits.
    monkeypatch.setitem(_postgres_pool.SESSION, "idle_in_transaction_session_timeout", "600s")
    dsn = postgres.database()
    async with PostgresStore(dsn) as paused, PostgresStore(dsn) as heir:
        [state, _] = await fresh(paused, "AAA", "BBB")
        begun = asyncio.Event()

        async def stand_still(connection: Any) -> None:
            await connection.execute(HOLD)
            if where == "in a copy":
                await connection.copy_to_table("gaps", source=silent(begun), format="text")
            begun.set()
            await asyncio.Event().wait()

        standing = asyncio.create_task(paused._database.write(stand_still))
        await asyncio.wait_for(begun.wait(), 60)
        claimed = await asyncio.wait_for(heir.claim(["sim:AAA", "sim:BBB"]), 120)
        assert claimed[0].owner == state.owner + 1
        standing.cancel()
        with pytest.raises((StoreError, asyncio.CancelledError)):
            await standing


async def test_who_works_is_waited_for(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    async with PostgresStore(dsn) as busy, PostgresStore(dsn) as heir:
        await fresh(busy, "AAA")
        held = asyncio.Event()

        async def work(connection: Any) -> None:
            await connection.execute(HOLD)
            held.set()
            for _ in range(6):
                await connection.execute("SELECT pg_sleep(0.5)")

        working = asyncio.create_task(busy._database.write(work))
        await held.wait()
        await heir.claim(["sim:AAA"])
        assert working.done() and working.exception() is None
