"""API keys in the table ``api_keys``: made or revoked on one host, they count on every gateway within seconds.

A gateway asks for all keys each second and decides on what it was told last: a check of a token never waits. While
the database is away, the keys known last go on counting, so that what clients send can be kept for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Collection
from typing import TYPE_CHECKING

import structlog

from tapewick.clock import Clock, RealClock
from tapewick.errors import ConfigError, StoreError
from tapewick.keys import PREFIX, Grant, Key, digest_of, made
from tapewick.stores._postgres_pool import Database, Wanted

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["REFRESH", "KeyTable"]

log = structlog.get_logger()

REFRESH = 1.0
"""Seconds after which a running gateway asks for the keys again."""
COLUMNS = ", ".join(Key._fields)


class KeyTable:
    """The keys of the database ``dsn`` names, ``tapewick.keys.Keys``; ``create``, ``revoke`` and ``keys`` for people.

    Raises ``StoreError`` while the database does not answer.
    """

    def __init__(self, dsn: str, *, clock: Clock | None = None, refresh: float = REFRESH) -> None:
        self._database = Database(Wanted(dsn, pool_min=1, pool_max=1), read_only=False)
        self._clock, self._refresh = clock or RealClock(), refresh
        self._known: dict[str, Key] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys, and keep them fresh from now on."""
        await self._database.open()
        try:
            await self.keys()
        except BaseException:
            await self._database.close()
            raise
        self._task = asyncio.create_task(self._follow(), name="keys")

    async def stop(self) -> None:
        """Let go of the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._database.close()

    async def _follow(self) -> None:
        told = False
        while True:
            await asyncio.sleep(self._refresh)
            try:
                await self.keys()
            except StoreError as error:
                if not told:
                    log.warning("the keys cannot be read; those known last go on counting", cause=str(error))
                told = True
            else:
                told = False

    @property
    def now(self) -> int:
        """Seconds since 1970."""
        return self._clock.now() // 10**9

    def grant(self, token: str) -> Grant | None:
        """What the bearer of ``token`` may do now; None for a stranger, an expired or a revoked key."""
        key = self._known.get(token[:PREFIX])
        if key is None or not hmac.compare_digest(digest_of(token), key.digest) or not key.usable(self.now):
            return None
        return key.grant

    async def keys(self) -> tuple[Key, ...]:
        """All keys, revoked and expired ones included, oldest first."""

        async def job(connection: Connection) -> tuple[Key, ...]:
            rows = await connection.fetch(f"SELECT {COLUMNS} FROM api_keys ORDER BY created, id")
            return tuple(Key(**{**row, "scopes": tuple(row["scopes"])}) for row in rows)

        found = await self._database.read(job)
        self._known = {key.id: key for key in found}
        return found

    async def create(
        self,
        scopes: Collection[str],
        *,
        instruments: str = "*",
        days: float = 0,
        note: str = "",
        source: str | None = None,
    ) -> tuple[Key, str]:
        """A new key, and the secret text to give to its bearer: it can never be shown again. Options and errors as of
        ``tapewick.keys.made``."""
        key, token = made(scopes, self.now, instruments=instruments, days=days, note=note, source=source)
        values = [list(value) if isinstance(value, tuple) else value for value in key]

        async def job(connection: Connection) -> None:
            places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
            await connection.execute(f"INSERT INTO api_keys ({COLUMNS}) VALUES ({places})", *values)

        await self._database.write(job)
        self._known[key.id] = key
        return key, token

    async def revoke(self, id: str) -> Key:
        """End a key now; the one it was. Raises ``ConfigError`` when there is none called ``id``."""

        async def job(connection: Connection) -> Key | None:
            row = await connection.fetchrow(
                "UPDATE api_keys SET revoked = CASE revoked WHEN 0 THEN $2 ELSE revoked END WHERE id = $1 "
                f"RETURNING {COLUMNS}",
                id, self.now,
            )  # fmt: skip
            return None if row is None else Key(**{**row, "scopes": tuple(row["scopes"])})

        key = await self._database.write(job)
        if key is None:
            raise ConfigError(f"no key {id[:40]!r} in the database: tapewick keys list shows them")
        self._known[id] = key
        return key
