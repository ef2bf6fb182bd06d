"""A TCP link to a server that tests can cut and restore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["Link", "linked"]


class Link:
    """Passes bytes both ways between its own port and ``target``; while cut, connections are closed at once."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.whole = self.hears = True
        self.connections = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.whole:
                self.connections += 1
                await self._pass(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return
        self._writers |= {writer, forth}
        await asyncio.gather(_pump(reader, forth), _pump(back, writer, lambda: self.hears))
        self._writers -= {writer, forth}

    def cut(self) -> None:
        """Break every connection and take no new one."""
        self.whole = False
        for writer in list(self._writers):
            writer.transport.abort()

    def deafen(self) -> None:
        """Pass on what is sent to the target, and nothing of what it answers; until restored."""
        self.hears = False

    def restore(self) -> None:
        self.whole = self.hears = True

    async def end(self) -> None:
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, open: Callable[[], bool] = lambda: True
) -> None:
    with suppress(OSError):
        while chunk := await source.read(65_536):
            if open():
                sink.write(chunk)
                await sink.drain()
    sink.close()
    with suppress(OSError):
        await sink.wait_closed()


@asynccontextmanager
async def linked(target: int) -> AsyncIterator[Link]:
    """A link to the port ``target`` of loopback."""
    link = Link(target)
    server = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        await link.end()
        await server.wait_closed()
