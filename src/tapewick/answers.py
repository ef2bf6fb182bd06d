"""Answers to requests that carried an idempotency key, kept so that a repeated request gets the same one.

They are a convenience to the sender, never the truth: without them a repeated trade is found on the tape and called
a duplicate. Of the embedded store they lie in a file of the data folder, where gateways share a store in a table of
it (``stores``).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from tapewick.errors import Conflict, StoreError, Unprocessable

__all__ = ["AnswerFile", "Answers", "Sheltered", "under_way", "unlike"]

log = structlog.get_logger()
T = TypeVar("T")

NAME = "ingest.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    owner TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, at INTEGER NOT NULL, answer BLOB,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_at ON answers (at);
"""
SWEEP = 3600  # seconds between two removals of what is too old
RETRY_AFTER = 1


class Answers(Protocol):
    """The answers of one store. Each ``begin`` that returns None is followed by one of the three that end its turn."""

    async def begin(self, owner: str, key: str, digest: bytes, now: float) -> bytes | None:
        """What was answered to this request before; None for one whose turn it is now.

        ``digest``: of the request's body; ``now``: seconds since 1970. Raises ``Unprocessable`` where the same key
        came with another body, ``Conflict`` while the same request is under way elsewhere, ``StoreError``.
        """
        ...

    async def end(self, owner: str, key: str, answer: bytes) -> None:
        """Keep the answer."""
        ...

    async def release(self, owner: str, key: str) -> None:
        """There is no answer yet: the same request may come again."""
        ...

    async def forget(self, owner: str, key: str) -> None:
        """Let the key be used for another request: this one was wrong."""
        ...

    async def close(self) -> None: ...


def unlike() -> Unprocessable:
    """For a key that came with another body."""
    return Unprocessable(
        "this idempotency key came with another body before: use a new key for a new request", field="idempotency-key"
    )


def under_way() -> Conflict:
    """For a request that is worked on."""
    return Conflict(
        "a request with this idempotency key is under way: send it again to get its answer",
        retry_after=RETRY_AFTER,
        field="idempotency-key",
    )


class AnswerFile:
    """``Answers`` of one data folder, for ``keep`` seconds; one process at a time uses it."""

    def __init__(self, folder: str | Path, keep: float) -> None:
        self._path, self._keep, self._swept = Path(folder) / NAME, keep, 0.0
        self._connection: sqlite3.Connection | None = None
        self._disk = ThreadPoolExecutor(1, "answers")
        self._turns: set[tuple[str, str]] = set()

    async def begin(self, owner: str, key: str, digest: bytes, now: float) -> bytes | None:
        busy = (owner, key) in self._turns
        self._turns.add((owner, key))
        try:
            known = await self._do(lambda: self._begin(owner, key, digest, now))
        except BaseException:
            if not busy:
                self._turns.discard((owner, key))
            raise
        if known is None and busy:
            raise under_way()
        if not busy and known is not None:
            self._turns.discard((owner, key))
        return known

    async def end(self, owner: str, key: str, answer: bytes) -> None:
        await self._finish("UPDATE answers SET answer = ? WHERE owner = ? AND key = ?", (answer, owner, key))

    async def release(self, owner: str, key: str) -> None:
        self._turns.discard((owner, key))

    async def forget(self, owner: str, key: str) -> None:
        await self._finish("DELETE FROM answers WHERE owner = ? AND key = ?", (owner, key))

    async def _finish(self, sql: str, values: tuple[object, ...]) -> None:
        try:
            await self._do(lambda: self._open().execute(sql, values))
        finally:
            self._turns.discard((str(values[-2]), str(values[-1])))

    async def close(self) -> None:
        await self._do(self._close)
        self._disk.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _begin(self, owner: str, key: str, digest: bytes, now: float) -> bytes | None:
        connection = self._open()
        if now - self._swept > SWEEP:
            connection.execute("DELETE FROM answers WHERE at <= ?", (int(now - self._keep),))
            self._swept = now
        row = connection.execute(
            "SELECT digest, answer FROM answers WHERE owner = ? AND key = ? AND at > ?",
            (owner, key, int(now - self._keep)),
        ).fetchone()
        if row is None:
            values = (owner, key, digest, int(now))
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, NULL)", values)
            return None
        if row[0] != digest:
            raise unlike()
        answer: bytes | None = row[1]
        return answer

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # losing the last ones is no loss of trades
            connection.executescript(SCHEMA)
            self._connection = connection
        return self._connection

    async def _do(self, job: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, job)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the answers in {self._path} cannot be kept: {error}") from error


class Sheltered:
    """The answers of a shared store, and while that is away those of a ``shelter`` of one's own.

    A request repeated after the outage is worked on again: its trades are duplicates then.
    """

    def __init__(self, shared: Answers, shelter: Answers) -> None:
        self._shared, self._shelter = shared, shelter
        self._turns: dict[tuple[str, str], Answers] = {}

    async def begin(self, owner: str, key: str, digest: bytes, now: float) -> bytes | None:
        used = self._shared
        try:
            known = await used.begin(owner, key, digest, now)
        except StoreError as error:
            log.warning("answers are kept by this process alone for now", cause=str(error))
            used = self._shelter
            known = await used.begin(owner, key, digest, now)
        if known is None:
            self._turns[owner, key] = used
        return known

    async def end(self, owner: str, key: str, answer: bytes) -> None:
        try:
            await self._turns.pop((owner, key), self._shared).end(owner, key, answer)
        except StoreError as error:  # the trades are safe, and that is what the sender is told
            log.warning("an answer is not kept; its request repeated is worked on again", cause=str(error))

    async def release(self, owner: str, key: str) -> None:
        try:
            await self._turns.pop((owner, key), self._shared).release(owner, key)
        except StoreError as error:
            log.warning("the turn of a request ends by itself", cause=str(error))

    async def forget(self, owner: str, key: str) -> None:
        try:
            await self._turns.pop((owner, key), self._shared).forget(owner, key)
        except StoreError as error:
            log.warning("the key of a wrong request stays in use", cause=str(error))

    async def close(self) -> None:
        await self._shared.close()
        await self._shelter.close()
