"""The resilient feed over real sockets: what a venue may do to a connection, and what becomes of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from picows import WSCloseCode, WSMsgType

from tapewick.clock import ManualClock
from tapewick.net import link
from tapewick.net.backoff import AttemptLimiter, Backoff
from tapewick.net.inbox import Inbox, Wakeup
from tapewick.net.websocket import Feed, LinkChange
from tests.net.serving import change, frames, quick, running, serving

pytestmark = pytest.mark.timeout(20)


async def test_frames_arrive_in_order_and_pings_are_answered_with_their_payload() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox)):
        peer = await server.peer(0)
        peer.text(b"one", b"two")
        peer.transport.send_ping(b"1700000000")
        assert await frames(inbox, 2) == [b"one", b"two"]
        await server.heard.wait()
        assert peer.received == [(WSMsgType.PONG, b"1700000000")]


async def test_a_fragmented_message_is_one_frame() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox)):
        peer = await server.peer(0)
        peer.transport.send(WSMsgType.TEXT, b"first ", fin=False)
        peer.transport.send(WSMsgType.CONTINUATION, b"second", fin=True)
        assert await frames(inbox, 1) == [b"first second"]


@pytest.mark.parametrize("polite", [True, False])
async def test_reconnects_after_the_connection_was_closed(polite: bool) -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox, backoff=quick())):
        peer = await server.peer(0)
        if polite:
            peer.transport.send_close(WSCloseCode.GOING_AWAY, b"maintenance")
        else:
            peer.transport.disconnect(graceful=False)
        lost = await change(inbox, "disconnected")
        assert ("1001" in lost.detail) == polite
        (await server.peer(1)).text(b"again")
        await change(inbox, "connected")
        assert await frames(inbox, 1) == [b"again"]


async def test_silence_without_fin_is_noticed() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox, idle=0.2, backoff=quick())):
        await server.peer(0)
        assert "silent" in (await change(inbox, "disconnected")).detail
        await server.peer(1)


@pytest.fixture
def suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FIRST_PING", 0.05)
    monkeypatch.setattr(link, "SUSPICIOUS", 0.2)


async def test_a_peer_that_answered_pings_and_no_longer_does_is_dead(suspicious: None) -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox, idle=3600, backoff=quick())):
        await server.peer(0)
        await server.pinged(1)
        await server.pinged(2)  # the first was answered, else there is no second
        server.pongs = False
        assert "silent" in (await change(inbox, "disconnected")).detail
        await server.peer(1)


async def test_a_quiet_peer_that_answers_pings_is_kept(suspicious: None) -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox, idle=3600, backoff=quick())):
        (await server.peer(0)).text(b"one")
        await server.pinged(6)
        assert len(server.peers) == 1


async def test_a_peer_that_never_answers_pings_may_be_quiet_for_long(suspicious: None) -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox, idle=1.5, backoff=quick())):
        server.pongs = False
        await server.peer(0)
        lost = await change(inbox, "disconnected")
        found = re.search(r"silent for ([0-9.]+) s", lost.detail)
        assert found is not None and float(found[1]) >= 1.5
        assert server.pings == 1


async def test_pings_alone_keep_a_connection_alive() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox, idle=4.0, backoff=quick())):
        peer = await server.peer(0)
        for _ in range(20):
            await asyncio.sleep(0.25)
            peer.transport.send_ping(b"")
        assert len(server.peers) == 1


@pytest.mark.parametrize("size", [1 << 20, 1_100_000, 10_000_000])
async def test_a_frame_above_the_cap_costs_the_connection_and_nothing_else(size: int) -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, backoff=quick())
        async with running(feed):
            (await server.peer(0)).text(b"x" * size)
            if size > 1 << 20:
                assert "larger than" in (await change(inbox, "disconnected")).detail
                (await server.peer(1)).text(b"on it goes")
                assert await frames(inbox, 1) == [b"on it goes"]
                assert feed.take_oversize() == 1
                assert feed.take_oversize() == 0
            else:
                assert await frames(inbox, 1) == [b"x" * size]


async def test_renewal_overlaps_and_loses_nothing() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, overlap=0.7, backoff=quick())
        async with running(feed):
            old = await server.peer(0)
            await change(inbox, "connected")
            feed.renew()
            new = await server.peer(1)
            old.text(b"old")
            assert await frames(inbox, 1) == [b"old"]
            new.text(b"new")
            assert await frames(inbox, 1) == [b"new"]
            await server.left.wait()
            new.text(b"newer")
            item = await inbox.get()
            assert isinstance(item, Wakeup) and item.frames == [b"newer"], "no change of state is reported"
            assert len(server.peers) == 2


async def test_renewal_survives_the_old_connection_ending_first() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, overlap=0.2, backoff=quick())
        async with running(feed):
            old = await server.peer(0)
            await change(inbox, "connected")
            feed.renew()
            new = await server.peer(1)
            old.transport.disconnect(graceful=False)
            new.text(b"here")
            item = await inbox.get()
            assert isinstance(item, Wakeup) and item.frames == [b"here"], "no disconnect is reported"
            assert len(server.peers) == 2


async def test_a_connection_renews_itself_at_the_end_of_its_life() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server, running(Feed([server.url], inbox, lifetime=0.1, overlap=0.01)):
        await server.peer(2)


async def test_greeting_is_sent_on_every_connect() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, greeting=[b"a", b"b"], backoff=quick())
        async with running(feed):
            for number in range(2):
                peer = await server.peer(number)
                while len(peer.received) < 2:
                    server.heard.clear()
                    await server.heard.wait()
                assert [payload for _, payload in peer.received] == [b"a", b"b"]
                peer.transport.disconnect(graceful=False)


async def test_the_next_address_is_tried_when_one_cannot_be_reached() -> None:
    inbox: Inbox[LinkChange] = Inbox()
    async with serving() as server:
        feed = Feed(["ws://127.0.0.1:1/stream", server.url], inbox, backoff=quick())
        async with running(feed):
            assert "127.0.0.1:1 cannot be reached" in (await change(inbox, "disconnected")).detail
            await server.peer(0)


async def test_a_lone_frame_waits_for_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox: Inbox[LinkChange] = Inbox()
    loop = asyncio.get_running_loop()
    timers: list[str] = []
    plain = loop.call_at

    def counted(when: float, callback: Callable[..., object], *args: object, **kwargs: object) -> asyncio.TimerHandle:
        timers.append(repr(callback))
        return plain(when, callback, *args)

    async with serving() as server, running(Feed([server.url], inbox)):
        peer = await server.peer(0)
        peer.text(b"first")
        assert await frames(inbox, 1) == [b"first"]
        for _ in range(3):
            await asyncio.sleep(0)
        monkeypatch.setattr(loop, "call_at", counted)
        peer.text(b"lone")
        assert await frames(inbox, 1) == [b"lone"]
        monkeypatch.undo()
    assert timers == []


def test_backoff_is_capped_full_jitter() -> None:
    highest = Backoff(base=0.5, cap=60.0, rng=lambda: 1.0)
    assert [highest.delay() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    highest.reset()
    assert highest.delay(retry_after=7.0) == 7.5
    assert Backoff(rng=lambda: 0.0).delay() == 0.0


async def test_attempts_per_host_are_limited() -> None:
    clock = ManualClock(10**18)
    limiter = AttemptLimiter(limit=3, period=300.0)
    for _ in range(3):
        await limiter.take(clock)
    fourth = asyncio.create_task(limiter.take(clock))
    await asyncio.sleep(0)
    clock.advance(299.9)
    await asyncio.sleep(0)
    assert not fourth.done()
    clock.advance(0.2)
    await fourth
