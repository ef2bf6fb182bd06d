"""Streams of a feed changed at run time, tapped, doubled and renewed, over real sockets."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.errors import ConfigError
from tapewick.net import control
from tapewick.net.control import SENDS_PER_SECOND, Control
from tapewick.net.inbox import Inbox, Wakeup
from tapewick.net.websocket import Feed, LinkEnded, StreamsBegun, StreamsRefused
from tapewick.sim.venue import SimVenue
from tests.net.serving import Peer, change, frames, quick, running, serving

pytestmark = pytest.mark.timeout(60)


def ack(message: dict[str, Any]) -> bytes:
    return b'{"result":null,"id":%d}' % message["id"]


def named(path: str) -> list[str]:
    """The streams a connection's URL asks for."""
    return parse_qs(urlsplit(path).query).get("streams", [""])[0].split("/")


def carried(path: str, controls: list[dict[str, Any]]) -> set[str]:
    """The streams a connection carries after the messages it was sent."""
    streams = set(named(path))
    for message in controls:
        if message["method"] == "SUBSCRIBE":
            streams |= set(message["params"])
        else:
            streams -= set(message["params"])
    return streams


async def answering(peer: Peer, count: int) -> list[dict[str, Any]]:
    """Acknowledge control messages until there were ``count``."""
    for number in range(count):
        peer.text(ack((await peer.until(number + 1))[number]))
    return peer.controls()


async def test_streams_change_at_run_time_and_reconnects_ask_for_what_is_wanted_now() -> None:
    inbox: Inbox[Any] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=["btcusdt@trade", "币安usdt@trade"], backoff=quick())
        async with running(feed):
            peer = await server.peer(0)
            assert named(server.paths[0]) == ["btcusdt@trade", "币安usdt@trade"]
            feed.subscribe(["ethusdt@trade", "btcusdt@trade"])
            assert (await answering(peer, 1))[0] == {"method": "SUBSCRIBE", "params": ["ethusdt@trade"], "id": 1}
            feed.unsubscribe(["btcusdt@trade", "never@trade"])
            assert (await answering(peer, 2))[1] == {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 2}
            assert feed.streams == ("币安usdt@trade", "ethusdt@trade")
            peer.transport.disconnect(graceful=False)
            again = await server.peer(1)
            assert named(server.paths[1]) == ["币安usdt@trade", "ethusdt@trade"]
            assert again.controls() == []


async def test_the_venues_own_rules_are_kept() -> None:
    inbox: Inbox[Any] = Inbox()
    async with SimVenue(rate=50.0) as venue:
        feed = Feed([f"{venue.ws_url}/stream"], inbox, streams=["btcusdt@trade"], backoff=quick())
        async with running(feed):
            await frames(inbox, 1)
            for _ in range(4):  # more messages than the venue allows in a second, were they not joined and paced
                feed.unsubscribe(["btcusdt@trade"])
                feed.subscribe(["ethusdt@trade"])
                feed.resubscribe(["ethusdt@trade"])
                await frames(inbox, 5)
            while not (await frames(inbox, 1))[0].startswith(b'{"stream":"ethusdt@trade"'):
                pass
            assert feed.connects == 1


async def test_more_streams_than_a_url_carries_follow_in_messages_and_1024_is_the_end() -> None:
    inbox: Inbox[Any] = Inbox()
    streams = [f"s{number}usdt@trade" for number in range(250)]
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=streams, backoff=quick())
        async with running(feed):
            controls = await answering(await server.peer(0), 2)
            assert [len(message["params"]) for message in controls] == [100, 50]
            assert carried(server.paths[0], controls) == set(streams)
        with pytest.raises(ConfigError, match="1025 streams"):
            feed.subscribe(f"t{number}usdt@trade" for number in range(775))
        assert len(feed.streams) == 250, "what is refused changes nothing"


async def test_a_forced_resubscription_touches_one_stream() -> None:
    inbox: Inbox[Any] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=["a@trade", "b@trade"], backoff=quick())
        async with running(feed):
            peer = await server.peer(0)
            await change(inbox, "connected")
            peer.text(b"{}")
            await frames(inbox, 1)
            feed.resubscribe(["b@trade", "unwanted@trade"])
            controls = await answering(peer, 2)
            assert [(each["method"], each["params"]) for each in controls] == [
                ("UNSUBSCRIBE", ["b@trade"]),
                ("SUBSCRIBE", ["b@trade"]),
            ]
            feed.subscribe(["c@trade"])
            assert (await answering(peer, 3))[2]["params"] == ["c@trade"], "once is enough"


@pytest.mark.parametrize(
    "answer",
    [
        b'{"code":2,"msg":"Invalid request: \\u001b[31m","id":1}',
        b'{"error":{"code":2,"msg":"Invalid request: \\u001b[31m"},"id":1}',
        b'{"code":2,"msg":"Invalid request: \\u001b[31m","id":null}',
    ],
)
async def test_an_error_answer_is_told_and_the_connection_goes_on(answer: bytes) -> None:
    inbox: Inbox[Any] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=["a@trade"], backoff=quick())
        async with running(feed):
            peer = await server.peer(0)
            feed.subscribe(["bad@stream"])
            await peer.until(1)
            peer.text(b'{"stream":"a@trade","data":{"id":1}}', b'{"id":99,"result":null}', answer)
            while not isinstance(item := await inbox.get(), StreamsRefused):
                pass
            assert item.streams == ("bad@stream",)
            assert "refused with code 2" in item.detail and item.detail.isprintable()
            feed.subscribe(["c@trade"])
            assert (await peer.until(2))[1]["params"] == ["c@trade"], "the refused one is not repeated"


async def test_what_is_not_acknowledged_is_repeated_three_times_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_WITHIN", 0.1)
    inbox: Inbox[Any] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=["a@trade"], backoff=quick())
        async with running(feed):
            peer = await server.peer(0)
            feed.subscribe(["mute@trade"])
            while not isinstance(item := await inbox.get(), StreamsRefused):
                pass
            assert item.streams == ("mute@trade",) and "not acknowledged" in item.detail
            assert [message["params"] for message in peer.controls()] == [["mute@trade"]] * 3
            assert len({message["id"] for message in peer.controls()}) == 3


class Sent:
    """Takes the messages of a control and notes when each left."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.more = asyncio.Event()

    def __call__(self, message: bytes) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self.more.set()

    async def until(self, count: int) -> None:
        while len(self.times) < count:
            self.more.clear()
            await self.more.wait()


async def test_control_messages_and_pongs_keep_their_distance() -> None:
    """Looked at where they are sent: on a loaded machine a server may read two at once."""
    sent = Sent()
    wanted = {f"s{number}": None for number in range(350)}
    talk = Control(wanted, (), lambda streams, detail: None)
    task = asyncio.create_task(talk.run(sent, [b"greeting"]))
    await sent.until(3)
    await asyncio.sleep(0.8 / SENDS_PER_SECOND)  # so that the next one is nearly due
    talk.count_pong()
    ponged = asyncio.get_running_loop().time()
    await sent.until(5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    distance = 0.99 / SENDS_PER_SECOND
    assert min(after - before for before, after in itertools.pairwise(sent.times)) >= distance
    assert next(time for time in sent.times if time > ponged) - ponged >= distance


@given(st.lists(st.tuples(st.sampled_from("SUR"), st.sets(st.integers(0, 300), max_size=150)), max_size=12))
def test_any_changes_end_in_what_is_wanted(changes: list[tuple[str, set[int]]]) -> None:
    """Whatever is asked for in whatever order, the messages lead the venue to the wanted set."""

    async def converge() -> None:
        wanted: dict[str, None] = {"a@trade": None}
        held = {"a@trade"}
        talk = Control(wanted, tuple(wanted), lambda streams, detail: None)

        def send(message: bytes) -> None:
            asked = msgspec.json.decode(message)
            assert 0 < len(asked["params"]) <= 100
            if asked["method"] == "SUBSCRIBE":
                assert held.isdisjoint(asked["params"])
                held.update(asked["params"])
            else:
                assert held.issuperset(asked["params"])
                held.difference_update(asked["params"])
            talk.heard(ack(asked))

        task = asyncio.create_task(talk.run(send, ()))
        for kind, numbers in changes:
            streams = [f"s{number}@trade" for number in sorted(numbers)]
            if kind == "S":
                wanted.update(dict.fromkeys(streams))
            elif kind == "U":
                for stream in streams:
                    wanted.pop(stream, None)
            else:
                talk.force(streams)
            talk.nudge()
            for _ in range(len(numbers) % 7):  # some messages leave before the next change
                await asyncio.sleep(0)
        await talk.settled.wait()
        assert held == set(wanted) and not talk.pending
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(control, "SENDS_PER_SECOND", 1e9)
        asyncio.run(converge())


async def test_a_tap_sees_every_wakeup_also_one_that_is_dropped() -> None:
    inbox: Inbox[Any] = Inbox(max_bytes=200)
    tapped: list[Wakeup] = []
    more = asyncio.Event()

    def tap(wakeup: Wakeup) -> None:
        tapped.append(wakeup)
        more.set()

    async with serving() as server:
        feed = Feed([server.url], inbox, tap=tap, backoff=quick())
        async with running(feed):
            peer = await server.peer(0)
            payloads = [b"%03d" % number + b"x" * 97 for number in range(8)]
            for payload in payloads:
                peer.text(payload)
                while not any(payload in wakeup.frames for wakeup in tapped):
                    more.clear()
                    await more.wait()
            assert [frame for wakeup in tapped for frame in wakeup.frames] == payloads
            assert all(wakeup.feed is feed and wakeup.link == 0 and wakeup.recv for wakeup in tapped)
            assert inbox.dropped_frames == 7


async def test_redundant_connections_deliver_both_and_one_is_enough() -> None:
    inbox: Inbox[Any] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=["a@trade"], redundant=True, tell_links=True, backoff=quick())
        async with running(feed):
            peers = [await server.peer(0), await server.peer(1)]
            assert [named(path) for path in server.paths] == [["a@trade"]] * 2
            for peer in peers:
                peer.text(b"same")
            links: set[int] = set()
            while len(links) < 2:
                item = await inbox.get()
                if isinstance(item, Wakeup):
                    assert set(item.frames) == {b"same"}
                    links.add(item.link)
            assert links == {0, 1}
            feed.subscribe(["b@trade"])
            for peer in peers:
                assert (await answering(peer, 1))[0]["params"] == ["b@trade"]
            peers[0].transport.disconnect(graceful=False)
            told = await change(inbox, "connected")
            while "1 of 2" not in told.detail:
                told = await change(inbox, "connected")
            third = await server.peer(2)
            assert named(server.paths[2]) == ["a@trade", "b@trade"]
            third.text(b"back")
            assert await frames(inbox, 1) == [b"back"]


async def test_redundant_connections_prefer_different_addresses() -> None:
    inbox: Inbox[Any] = Inbox()
    async with serving() as one, serving() as two:
        async with running(Feed([one.url, two.url], inbox, redundant=True, backoff=quick())):
            await one.peer(0)
            await two.peer(0)
            assert len(one.peers) == len(two.peers) == 1


async def test_the_end_of_a_link_comes_behind_its_last_frame() -> None:
    inbox: Inbox[Any] = Inbox()
    async with serving() as server:
        feed = Feed([server.url], inbox, tell_links=True, overlap=0.05, backoff=quick())
        async with running(feed):
            old = await server.peer(0)
            old.text(b"1")
            await frames(inbox, 1)
            feed.renew()
            new = await server.peer(1)
            new.text(b"2")
            seen: list[object] = []
            while not seen or not isinstance(seen[-1], LinkEnded):
                seen.append(await inbox.get())
            assert isinstance(seen[-1], LinkEnded) and seen[-1].link == 0
            new.text(b"3")
            while not isinstance(item := await inbox.get(), Wakeup) or item.frames != [b"3"]:
                assert not isinstance(item, Wakeup) or item.link == 1
            assert item.link == 1


async def begun(inbox: Inbox[Any]) -> set[str]:
    """The streams that begin next."""
    while not isinstance(item := await inbox.get(), StreamsBegun):
        pass
    return set(item.streams)


async def test_streams_begin_with_their_connection_or_when_they_are_acknowledged() -> None:
    inbox: Inbox[Any] = Inbox()
    streams = [f"s{number}@trade" for number in range(150)]
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=streams, tell_links=True, backoff=quick())
        async with running(feed):
            peer = await server.peer(0)
            assert await begun(inbox) == set(streams[:100])
            [message] = await peer.until(1)
            assert message["params"] == streams[100:]
            peer.text(b"data")
            while not isinstance(item := await inbox.get(), Wakeup) or item.frames != [b"data"]:
                assert not isinstance(item, StreamsBegun), "nobody has acknowledged it"
            peer.text(ack(message))
            assert await begun(inbox) == set(streams[100:])
            feed.resubscribe([streams[7]])
            peer.text(ack((await peer.until(2))[1]))
            assert (await peer.until(3))[2]["method"] == "SUBSCRIBE"
            peer.text(ack((await peer.until(3))[2]))
            assert await begun(inbox) == {streams[7]}
            peer.transport.disconnect(graceful=False)
            assert await begun(inbox) == set(streams[:100])


async def test_what_another_connection_carries_does_not_begin() -> None:
    inbox: Inbox[Any] = Inbox()
    async with serving() as server:
        feed = Feed(
            [server.url], inbox, streams=["a@trade"], redundant=True, tell_links=True, overlap=0.05, backoff=quick()
        )
        async with running(feed):
            peers = [await server.peer(0), await server.peer(1)]
            for peer in peers:
                peer.text(b"here")
            assert await frames(inbox, 2) == [b"here"] * 2
            peers[0].transport.disconnect(graceful=False)
            (await server.peer(2)).text(b"back")
            feed.renew()
            for number in (3, 4):
                (await server.peer(number)).text(b"new")
            seen: list[Any] = []
            while sum(isinstance(item, Wakeup) for item in seen) < 3:
                seen.append(await inbox.get())
            feed.subscribe(["b@trade"])
            for number in (3, 4):
                await answering(await server.peer(number), 1)
            while not isinstance(seen[-1], StreamsBegun):
                seen.append(await inbox.get())
            assert [item.streams for item in seen if isinstance(item, StreamsBegun)] == [("b@trade",)]


async def test_a_renewed_connection_replaces_the_old_one_only_when_it_carries_all_streams() -> None:
    inbox: Inbox[Any] = Inbox()
    streams = [f"s{number}@trade" for number in range(150)]
    async with serving() as server:
        feed = Feed([server.url], inbox, streams=streams, overlap=30.0, tell_links=True, backoff=quick())
        async with running(feed):
            await answering(await server.peer(0), 1)
            feed.renew()
            new = await server.peer(1)
            new.text(b"early data")
            message = (await new.until(1))[0]
            await asyncio.sleep(1.5)  # longer than what follows the moment it carries everything
            assert not server.left.is_set()
            assert feed.connects == 2 and carried(server.paths[1], [message]) == set(streams)
            # The ends of links are told in line: none may be there before the acknowledgement.
            assert not any(isinstance(item, LinkEnded) for item in inbox._items)
            new.text(ack(message))
            while not isinstance(item := await inbox.get(), LinkEnded):
                pass
            assert item.link == 0


async def test_wakeups_of_two_links_are_not_joined() -> None:
    inbox: Inbox[Any] = Inbox()
    feed = object()
    for link, frame in ((0, b"a"), (0, b"b"), (1, b"b"), (0, b"c")):
        inbox.offer(Wakeup(feed, [frame], 1, 10, link))
    items = [await inbox.get() for _ in range(3)]
    assert [(item.link, item.frames) for item in items] == [(0, [b"a", b"b"]), (1, [b"b"]), (0, [b"c"])]
