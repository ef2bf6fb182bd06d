"""Rows for the reading commands, from a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self

from tapewick.client import Client, Page
from tapewick.commands.options import Access
from tapewick.commands.reading import Chunk

__all__ = ["ServerReader", "connected"]

TIMEOUT = 30.0  # seconds: a file of a large tape begins late


def connected(url: str, access: Access) -> Client:
    """A client of the server at ``url``. Raises ``ConfigError`` for a malformed address, token or CA file."""
    return Client(url, token=access.token, tls=access.tls, timeout=TIMEOUT)


class ServerReader:
    """``reading.Reader`` over REST."""

    def __init__(self, url: str, access: Access) -> None:
        self._client = connected(url, access)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.__aexit__(*exc)

    async def candles(
        self, instrument: str, tf: str, *, start: int | None, end: int | None, limit: int
    ) -> AsyncIterator[Chunk]:
        async for page in self._client.candle_pages(instrument, tf, start=start, end=end, limit=limit):
            yield _chunk(page)

    async def trades(self, instrument: str, *, since: int | None, limit: int) -> AsyncIterator[Chunk]:
        async for page in self._client.trade_pages(instrument, since=since, limit=limit):
            yield _chunk(page)

    async def coverage(self, instrument: str) -> dict[str, Any]:
        return await self._client.coverage(instrument)

    async def instruments(self) -> list[str]:
        return [one.id for one in await self._client.instruments()]


def _chunk(page: Page) -> Chunk:
    return b"".join(bytes(row) + b"\n" for row in page.rows), page.position
