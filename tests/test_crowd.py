"""A crowd over real sockets: whoever reads how, each gets exactly what was sent to it, in order."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick import crowd
from tapewick.crowd import Crowd
from tapewick.framing import ws_text
from tapewick.outbox import Limits, Outbox

READERS = 4
who = st.integers(0, READERS - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("all"), st.sampled_from([1, 150, 3_000, 70_000])),
        st.tuples(st.just("one"), who),
        st.tuples(st.just("read"), who),
        st.tuples(st.just("other crowd"), who),
        st.tuples(st.just("leave"), who),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=60,
)
needs_native = pytest.mark.skipif(crowd._send_each is None, reason="the native engine is not built")


class Reader(asyncio.Protocol):
    """One end with an outbox, the other a socket that reads when told; ``due`` is what must come."""

    outbox: Outbox

    def __init__(self) -> None:
        own, self.peer = socket.socketpair()
        for one, option in ((own, socket.SO_SNDBUF), (self.peer, socket.SO_RCVBUF)):
            one.setsockopt(socket.SOL_SOCKET, option, 4096)
            one.setblocking(False)
        self.own, self.due, self.got = own, bytearray(), bytearray()
        self.given_up: list[str] = []

    async def start(self) -> Reader:
        loop = asyncio.get_running_loop()
        transport: Any = (await loop.connect_accepted_socket(lambda: self, self.own))[0]
        ends = [lambda: self.given_up.append("slow"), lambda: self.given_up.append("failed")]
        self.outbox = Outbox(transport, ws_text, Limits(), *ends)
        self.transport = transport
        return self

    def pause_writing(self) -> None:
        self.outbox.pause()

    def resume_writing(self) -> None:
        self.outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.outbox.close()

    def read(self) -> None:
        """What the kernel has."""
        try:
            while part := self.peer.recv(65_536):
                self.got += part
        except BlockingIOError:
            pass

    async def read_all(self) -> None:
        async with asyncio.timeout(20):
            while len(self.got) < len(self.due):
                self.read()
                await asyncio.sleep(0)

    def end(self) -> None:
        self.transport.abort()
        self.peer.close()


async def play(steps: list[tuple[str, int]]) -> None:
    readers = [await Reader().start() for _ in range(READERS)]
    by_outbox = {reader.outbox: reader for reader in readers}
    one, other = Crowd(), Crowd()
    for reader in readers:
        one.add(reader.outbox)
    for number, (what, argument) in enumerate(steps):
        data = number.to_bytes(4) * argument
        if what == "all":
            for crowd in (one, other):
                members = list(crowd)
                for outbox in crowd.send(data):
                    outbox.raw(data)
                for outbox in members:
                    by_outbox[outbox].due += data
        elif what == "turn":
            await asyncio.sleep(0)
        else:
            reader = readers[argument]
            if what == "one":
                reader.outbox.raw(b"own")
                reader.due += b"own"
            elif what == "read":
                reader.read()
            elif what == "leave":
                one.discard(reader.outbox)
            else:
                other.add(reader.outbox)
    for reader in readers:
        await reader.read_all()
    assert all(reader.got == reader.due and not reader.given_up for reader in readers)
    for reader in readers:
        reader.end()
    await asyncio.sleep(0)


@needs_native
@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_each_gets_what_was_sent_to_it_in_order(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_the_same_without_the_native_engine(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crowd, "_send_each", None)
        asyncio.run(play(steps))


@needs_native
async def test_who_keeps_up_costs_its_transport_nothing() -> None:
    reader = await Reader().start()
    some = Crowd()
    some.add(reader.outbox)
    assert some.send(b"all") == [] and reader.outbox.direct is some
    assert reader.peer.recv(10) == b"all", "sent at once"
    reader.outbox.raw(b"own")
    assert reader.outbox.direct is None
    some.discard(reader.outbox)
    assert not some and not reader.outbox.crowds
    assert some.send(b"late") == []
    reader.end()


@needs_native
async def test_who_is_gone_hurts_nobody() -> None:
    gone, here = await Reader().start(), await Reader().start()
    some = Crowd()
    for reader in (gone, here):
        some.add(reader.outbox)
    assert some.send(b"1") == []
    gone.peer.close()
    for _ in range(5):
        for outbox in some.send(b"2"):
            outbox.raw(b"2")
    assert here.peer.recv(10) == b"122222"
    async with asyncio.timeout(20):
        while not gone.outbox.closed:  # noqa: ASYNC110 (its transport finds out)
            await asyncio.sleep(0.001)
    some.discard(gone.outbox)
    assert list(some) == [here.outbox]
    here.end()


@needs_native
def test_send_each_says_who_did_not_take_all() -> None:
    from array import array

    assert crowd._send_each is not None
    a, b = socket.socketpair()
    b.setblocking(False)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    big = bytes(1 << 20)
    ((index, taken),) = crowd._send_each(array("i", [a.fileno()]), big)
    assert index == 0 and 0 < taken < len(big)
    assert crowd._send_each(array("i", [a.fileno()]), b"x") == [(0, 0)], "full"
    b.close()
    a.close()
    assert crowd._send_each(array("i", []), b"x") == []
    assert crowd._send_each(array("i", [-1]), b"x") == [(0, 0)], "broken"
    with pytest.raises(TypeError):
        crowd._send_each(array("q", [1]), b"x")
