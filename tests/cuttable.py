"""A TCP relay whose connections a test cuts, at once or after a number of bytes, and which then takes new ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Relay", "relay"]


class Relay:
    """``url`` leads to the server; ``cut`` ends every connection, ``budget`` is how many bytes of answers pass until
    one is ended (None: any number)."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ways: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.budget: int | None = None
        self.taken = 0
        self._news = asyncio.Event()

    def cut(self) -> None:
        """End all connections, in the middle of whatever passes."""
        for writer in self._writers:
            writer.transport.abort()

    async def took(self, before: int) -> None:
        """Wait until more than ``before`` connections were taken in all."""
        while self.taken <= before:
            self._news.clear()
            await self._news.wait()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._news.set()
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, back}
        self._writers |= both
        ways = {asyncio.create_task(self._pump(reader, back, None)), asyncio.create_task(self._pump(there, writer, 0))}
        self._ways |= ways
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        self._ways -= ways
        self._writers -= both
        for one in both:
            one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: int | None) -> None:
        while data := await reader.read(65_536):
            left = None if passed is None or self.budget is None else max(0, self.budget - passed)
            writer.write(data[:left])
            await writer.drain()
            if passed is not None:
                passed += len(data)
            if left is not None and left < len(data):
                return

    async def aclose(self) -> None:
        self.cut()
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)


@asynccontextmanager
async def relay(url: str) -> AsyncIterator[Relay]:
    """A relay to the server at ``url`` (http://host:port)."""
    made = Relay(int(url.rpartition(":")[2]))
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await made.aclose()
