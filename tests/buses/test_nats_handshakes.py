"""NATS servers that close while a connection begins: who was turned down is told so, and nobody else."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tapewick.errors import BusError, BusRefused
from tests.buses.link import Link
from tests.buses.rig import BusRig, got, head
from tests.parts.nats import NatsServer, nats_server  # noqa: F401

INFO = b'INFO {"server_id":"x","version":"2.9.0","auth_required":true,"max_payload":1048576}\r\n'
VIOLATION = b"-ERR 'Authorization Violation'\r\n"
LATE = b"-ERR 'Authentication Timeout'\r\n"
AT_ONCE = struct.pack("ii", 1, 0)  # how long to linger: closing resets the connection, and what was sent is lost


class Bouncer:
    """A server that turns everybody down. What it says is read only by who waits for it: where more was sent, its
    words are lost as they may be with a real one, by a reset or, with ``silent``, by an end of the stream."""

    def __init__(self, words: bytes, *, silent: bool = False) -> None:
        self._words, self._silent = words, silent
        self.met: list[bool] = []  # whether each connection waited for the verdict

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            writer.write(INFO)
            waits = b'"verbose": true' in await reader.readuntil(b"\r\n")
            self.met.append(waits)
            if waits:
                writer.write(self._words)
            elif not self._silent:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                writer.transport.abort()
        writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        async with server:
            yield f"nats://me:wrong@127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("silent", [False, True])
async def test_a_refusal_that_the_broken_connection_took_with_it_is_heard_all_the_same(silent: bool) -> None:
    bouncer = Bouncer(VIOLATION, silent=silent)
    async with bouncer.serving() as url:
        with pytest.raises(BusRefused, match=r"nats\.url"):
            async with BusRig("nats").open(url=url):
                pass
    assert bouncer.met == [False, True]


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("words", [b"", LATE])
async def test_a_server_that_breaks_off_without_a_verdict_has_refused_nobody(words: bytes, silent: bool) -> None:
    bouncer = Bouncer(words, silent=silent)
    async with bouncer.serving() as url:
        with pytest.raises(BusError) as raised:
            async with BusRig("nats").open(url=url):
                pass
    assert not isinstance(raised.value, BusRefused)
    assert 2 < len(bouncer.met) < 10, "tried again, but not for ever"


async def test_a_connection_that_broke_once_is_made_again(nats_server: NatsServer) -> None:  # noqa: F811
    class Clumsy(Link):
        dropped = 0

        async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.dropped < 1:
                self.dropped += 1
                writer.write(INFO)
                with suppress(OSError, asyncio.IncompleteReadError):
                    await reader.readuntil(b"\r\n")
                writer.close()
                return
            await super().accept(reader, writer)

    link = Clumsy(nats_server.port)
    server = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    async with server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with BusRig("nats").open(url=url) as bus:
            reader = bus.subscribe(["head"])
            await bus.publish("head", head(1))
            assert (await got(reader, 1))[0].message == head(1)
        await link.end()
    assert link.dropped == 1
