"""A TCP relay that cuts its connections off, in the middle of whatever passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["severed"]


@asynccontextmanager
async def severed(address: str, budget: int) -> AsyncIterator[str]:
    """The address of a relay to ``address`` that passes ``budget`` bytes of the first connection's answer, ends it, and
    takes no other."""
    host, _, port = address.rpartition(":")
    relays: set[asyncio.Task[None]] = set()
    made: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None) -> None:
        while data := await reader.read(65_536):
            writer.write(data[:most])
            await writer.drain()
            if most is not None and (most := most - len(data)) <= 0:
                return

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if made:
            writer.transport.abort()
            return
        made.append(writer)
        there, back = await asyncio.open_connection(host, int(port))
        made.append(back)
        ways = {asyncio.create_task(pump(reader, back, None)), asyncio.create_task(pump(there, writer, budget))}
        relays.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        back.transport.abort()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in relays:
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
        for writer in made:
            writer.transport.abort()
