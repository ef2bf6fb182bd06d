"""Answers to requests with an idempotency key in the table ``ingest_keys``: the same from every gateway.

Whose turn a request is has a bound by the server's clock, so that one whose gateway was killed can be taken up; a turn
that ends later than one that begins now was given before that clock was set back, and counts as over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from tapewick.answers import under_way, unlike
from tapewick.errors import StoreError
from tapewick.stores._postgres_pool import Database, Job, Wanted

if TYPE_CHECKING:
    from asyncpg import Connection, Record

__all__ = ["TURN", "AnswerTable"]

T = TypeVar("T")

TURN = 10.0
"""Seconds after which a request that got no answer may be worked on by another gateway: less than a gateway waits for
another's answer, so that who repeats a request after a crash gets one. What is worked on twice is stored once."""
PATIENCE = 5.0  # seconds a question may take
SWEEP = 3600  # seconds between two removals of what is too old
_BEGIN = """
INSERT INTO ingest_keys AS known (owner, key, digest, at, answer, turn, until)
VALUES ($1, $2, $3, $4, NULL, $5, clock_timestamp() + make_interval(secs => $6))
ON CONFLICT (owner, key) DO UPDATE SET
    digest = excluded.digest, answer = NULL, turn = excluded.turn, until = excluded.until,
    at = CASE WHEN known.at <= $7 THEN excluded.at ELSE known.at END
WHERE known.at <= $7
   OR (known.answer IS NULL AND known.digest = excluded.digest
       AND (known.until <= clock_timestamp() OR known.until > excluded.until))
RETURNING TRUE
"""
_MINE = "WHERE owner = $1 AND key = $2 AND turn = $3"


class AnswerTable:
    """``tapewick.answers.Answers`` of the database ``dsn`` names, kept for ``keep`` seconds."""

    def __init__(self, dsn: str, keep: float, *, turn: float = TURN) -> None:
        self._database = Database(Wanted(dsn, pool_min=0, pool_max=4), read_only=False)
        self._keep, self._turn, self._swept = keep, turn, 0.0
        self._opened = False
        self._opening = asyncio.Lock()
        self._turns: dict[tuple[str, str], str] = {}

    async def begin(self, owner: str, key: str, digest: bytes, now: float) -> bytes | None:
        turn, old = secrets.token_hex(8), int(now - self._keep)

        async def job(connection: Connection) -> Record | None:
            if now - self._swept > SWEEP:
                await connection.execute("DELETE FROM ingest_keys WHERE at <= $1", old)
            if await connection.fetchval(_BEGIN, owner, key, digest, int(now), turn, self._turn, old):
                return None
            ask = "SELECT digest, answer FROM ingest_keys WHERE owner = $1 AND key = $2"
            found = await connection.fetchrow(ask, owner, key)
            if found is None:  # it was forgotten between the two statements
                raise under_way()
            return found

        row = await self._within(self._write(job))
        self._swept = max(now, self._swept) if now - self._swept > SWEEP else self._swept
        if row is None:
            self._turns[owner, key] = turn
            return None
        if row["digest"] != digest:
            raise unlike()
        if row["answer"] is None:
            raise under_way()
        return bytes(row["answer"])

    async def end(self, owner: str, key: str, answer: bytes) -> None:
        await self._finish(f"UPDATE ingest_keys SET answer = $4 {_MINE}", owner, key, answer)

    async def release(self, owner: str, key: str) -> None:
        await self._finish(f"UPDATE ingest_keys SET until = '-infinity' {_MINE}", owner, key)

    async def forget(self, owner: str, key: str) -> None:
        await self._finish(f"DELETE FROM ingest_keys {_MINE}", owner, key)

    async def _finish(self, sql: str, owner: str, key: str, *more: object) -> None:
        turn = self._turns.pop((owner, key), "")

        async def job(connection: Connection) -> None:
            await connection.execute(sql, owner, key, turn, *more)

        await self._within(self._write(job))

    async def close(self) -> None:
        """Let go of the connections."""
        if self._opened:
            await self._database.close()

    async def _write(self, job: Job[T]) -> T:
        async with self._opening:
            if not self._opened:
                await self._database.open()
                self._opened = True
        return await self._database.write(job)

    async def _within(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                return await work
        except TimeoutError:
            raise StoreError(f"PostgreSQL does not answer within {PATIENCE:g} s: see that it runs") from None
