"""Outboxes and fan-out without a network: a transport that records what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tapewick.channel import Channel, Since
from tapewick.errors import StoreError
from tapewick.hub import Hub
from tapewick.hub import Request as Wish
from tapewick.outbox import MOST_JOBS, Limits, Outbox
from tapewick.timeframe import SECOND
from tests.gateways.rig import BTC, T0, Rig, batch, running

TRADES = Channel.parse(f"trade@{BTC}")
CANDLES = Channel.parse(f"candle@{BTC}@1m")


class Recorder(asyncio.Transport):
    """Keeps every write; ``full`` makes it look as if the peer took none since."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.waiting = 0
        self.full = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))
        self.waiting += len(data) if self.full else 0

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def frames(self) -> list[dict[str, Any]]:
        """Every object written, in order."""
        return [msgspec.json.decode(line) for line in b"".join(self.writes).splitlines()]


def line(payload: bytes, position: bytes = b"", /) -> bytes:
    return payload + b"\n"


class Reader:
    """An outbox on a recorder."""

    def __init__(self, limits: Limits, frame: Any = line) -> None:
        self.transport = Recorder()
        self.gave_up = self.failed = 0
        self.end = asyncio.Event()
        self.box = Outbox(self.transport, frame, limits, self._give_up, self._fail)

    def _give_up(self) -> None:
        self.gave_up += 1
        self.end.set()

    def _fail(self) -> None:
        self.failed += 1

    def stall(self) -> None:
        self.transport.full = True
        self.box.pause()

    def drain(self) -> None:
        self.transport.full, self.transport.waiting = False, 0
        self.box.resume()

    def of(self, type: str) -> list[dict[str, Any]]:
        return [f for f in self.transport.frames() if f["type"] == type]

    def seqs(self) -> list[int]:
        return [row["seq"] for f in self.of("event") for row in f["data"]]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path) as made:
        yield made


async def settled(*readers: Reader) -> None:
    """Let every job of the readers finish."""
    for _ in range(200):
        await asyncio.sleep(0.005)
        if not any(r.box.busy for r in readers):
            return
    raise AssertionError("jobs do not end")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0)


async def follow(hub: Hub, reader: Reader, channel: Channel, **wish: Any) -> None:
    admitted = await hub.admit(Wish(channel, **{"snapshot": 0, **wish}))
    await hub.follow(reader.box, admitted)


async def test_a_frame_is_encoded_once_for_all_readers_of_a_format(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(rig.market, Limits())
    readers = [Reader(hub.limits) for _ in range(5)]
    for one in readers:
        await follow(hub, one, TRADES)
    calls = 0
    encode = rig.market.encode

    def counted(*args: Any, **options: Any) -> bytes:
        nonlocal calls
        calls += 1
        return encode(*args, **options)

    monkeypatch.setattr(rig.market, "encode", counted)
    await rig.tell(1, 10)
    await asyncio.sleep(0.02)
    assert calls == 1
    assert all(one.seqs() == list(range(1, 11)) for one in readers)
    for one in readers:
        hub.drop(one.box)
    await rig.tell(11, 10)
    assert calls == 1, "without readers nothing is encoded"


@pytest.mark.parametrize("channel", [TRADES, CANDLES])
async def test_who_joins_others_at_the_present_asks_nothing_of_the_store(
    rig: Rig, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(rig.market, Limits(flush_s=0))
    one, two = Reader(hub.limits), Reader(hub.limits)
    await rig.tell(1, 5)
    await follow(hub, one, channel)
    await rig.tell(6, 5)
    head = await rig.market.head(BTC)
    await until(lambda: rig.market.forwarded(BTC).seq >= head.seq)

    async def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("the store was asked")

    with monkeypatch.context() as patch:
        for name in ("head", "trades", "candles", "coverage"):
            patch.setattr(rig.market._store, name, asked)
        await follow(hub, two, channel)
    seen = len(one.transport.frames())
    await rig.tell(11, 5)
    await rig.tell(161, 600)  # into other minutes
    await settled(one, two)
    type = "event" if channel is TRADES else "update"
    await until(lambda: bool(two.of(type)) and one.of(type)[-1]["data"] == two.of(type)[-1]["data"])
    assert [f for f in two.transport.frames() if f["type"] == "event"] == [
        f for f in one.transport.frames()[seen:] if f["type"] == "event"
    ]
    if channel is TRADES:
        assert two.seqs() == list(range(11, 616)), "nothing is missing and nothing comes twice"
    else:
        assert two.of("event"), "the minutes that closed"


async def test_events_of_one_turn_are_one_write(rig: Rig) -> None:
    hub = Hub(rig.market, Limits())
    reader = Reader(hub.limits)
    await follow(hub, reader, TRADES)
    for first in (1, 11, 21):
        await rig.bus.publish("trades", batch(first, 10))
    await rig.bus.settled("trades")
    await asyncio.sleep(0.02)
    assert reader.seqs() == list(range(1, 31))
    assert len(reader.transport.writes) <= len(reader.of("event"))
    hub.drop(reader.box)


async def test_a_channel_left_behind_is_caught_up_from_the_store(rig: Rig) -> None:
    hub = Hub(rig.market, Limits(queue_bytes=3000, slow_s=60))
    slow, fast = Reader(hub.limits), Reader(hub.limits)
    await follow(hub, slow, TRADES)
    await follow(hub, fast, TRADES)
    slow.stall()
    for first in range(1, 3001, 100):
        await rig.tell(first, 100)
        assert slow.box.queued <= 3000
    await asyncio.sleep(0.02)
    assert fast.seqs() == list(range(1, 3001))
    assert slow.box.lagging and slow.seqs() == list(range(1, len(slow.seqs()) + 1))
    slow.drain()
    await settled(slow)
    await rig.tell(3001, 5)
    await asyncio.sleep(0.02)
    assert slow.seqs() == list(range(1, 3006)), "exactly once, in order"
    assert slow.gave_up == 0
    for one in (slow, fast):
        hub.drop(one.box)


async def test_too_slow_for_too_long_is_given_up_with_positions(rig: Rig) -> None:
    hub = Hub(rig.market, Limits(queue_bytes=10, slow_s=0.02))
    slow = Reader(hub.limits)
    await follow(hub, slow, TRADES)
    slow.stall()
    await rig.tell(1, 10)
    await rig.tell(11, 10)
    async with asyncio.timeout(60):
        await slow.end.wait()
    (error,) = slow.of("error")
    assert error["code"] == "slow_consumer" and error["pos"][TRADES.name].endswith(f":{len(slow.seqs())}")
    hub.drop(slow.box)


async def test_open_candles_keep_only_the_newest_while_stalled(rig: Rig) -> None:
    hub = Hub(rig.market, Limits(flush_s=0, notice_s=0))
    reader = Reader(hub.limits)
    await follow(hub, reader, CANDLES)
    reader.stall()
    for first in range(1, 51):
        await rig.tell(first, 1)
    assert not reader.of("update")
    assert reader.box.queued < 2000
    reader.drain()
    (update,) = reader.of("update")
    assert update["data"][0]["trades"] == 50
    (notice,) = reader.of("notice")
    assert notice["code"] == "conflated" and notice["dropped"] == 49 and notice["ch"] == CANDLES.name
    assert notice["window_ms"] >= 0
    hub.drop(reader.box)


async def test_the_first_update_goes_out_at_once_and_the_next_ones_are_conflated(rig: Rig) -> None:
    hub = Hub(rig.market, Limits(flush_s=0.2))
    reader = Reader(hub.limits)
    await follow(hub, reader, CANDLES)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for first in range(1, 31):
        await rig.bus.publish("trades", batch(first, 1))
        await until(lambda: bool(reader.of("update")))  # what comes in one turn is one update
    await until(lambda: reader.of("update")[-1]["data"][0]["trades"] == 30)
    updates = [f["data"][0]["trades"] for f in reader.of("update")]
    assert updates[0] < 30 and len(updates) <= 2 + (loop.time() - began) / 0.2
    hub.drop(reader.box)


async def test_a_closed_candle_is_not_followed_by_its_open_self(rig: Rig) -> None:
    hub = Hub(rig.market, Limits(flush_s=0.05))
    reader = Reader(hub.limits)
    await follow(hub, reader, CANDLES)
    for first in range(1, 1300, 13):
        await rig.tell(first, 13, clock=T0 + first * SECOND // 10 + 3 * SECOND)
    await asyncio.sleep(0.2)
    newest = 0
    for frame in reader.transport.frames():
        for row in frame["data"]:
            if row["state"] != "open":
                newest = max(newest, row["open_time"])
            else:
                assert row["open_time"] > newest, "an open row after its own close"
    assert newest
    hub.drop(reader.box)


async def test_rows_of_one_commit_never_share_a_position_they_can_be_cut_at(rig: Rig) -> None:
    """A client cut off between two frames of a commit resumes before the commit."""
    await rig.tell(1, 1100, clock=T0 + 115 * SECOND)
    await rig.tell(1151, 700, clock=T0 + 190 * SECOND)
    hub = Hub(rig.market, Limits())
    reader = Reader(hub.limits)
    await follow(hub, reader, CANDLES, since=Since(None, 0))
    await rig.tell(1101, 50, late=True)
    await asyncio.sleep(0.05)
    frames = [f for f in reader.transport.frames() if f["type"] == "event"]
    for one, after in zip(frames, frames[1:], strict=False):
        last = int(one["pos"].split(":")[1])
        assert all(row["pos"] > last for row in after["data"])
    assert {f.get("kind") for f in frames} >= {"closed", "revised"}
    hub.drop(reader.box)


async def test_the_last_reader_takes_the_channel_with_it(rig: Rig) -> None:
    hub = Hub(rig.market, Limits())
    a, b = Reader(hub.limits), Reader(hub.limits)
    await follow(hub, a, TRADES)
    await follow(hub, b, TRADES)
    assert hub.unfollow(a.box, TRADES.name)
    assert not hub.unfollow(a.box, TRADES.name)
    await rig.tell(1, 5)
    await asyncio.sleep(0.02)
    assert a.seqs() == [] and b.seqs() == [1, 2, 3, 4, 5]
    hub.drop(b.box)
    assert not hub.channels


async def test_who_leaves_while_a_channel_opens_leaves_no_listener(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, gate, attached = Hub(rig.market, Limits()), asyncio.Event(), list[object]()
    attach = rig.market.attach

    async def slow(channel: Channel, listener: Any) -> Any:
        await gate.wait()
        head = await attach(channel, listener)
        attached.append(listener)
        return head

    detach = rig.market.detach

    def watched(channel: Channel, listener: Any) -> None:
        detach(channel, listener)
        if listener in attached:
            attached.remove(listener)

    monkeypatch.setattr(rig.market, "attach", slow)
    monkeypatch.setattr(rig.market, "detach", watched)
    readers = [Reader(hub.limits) for _ in range(2)]
    for one in readers:
        admitted = await hub.admit(Wish(TRADES))
        one.box.work(lambda one=one, admitted=admitted: hub.follow(one.box, admitted))  # type: ignore[misc]
    await asyncio.sleep(0)
    for one in readers:
        hub.drop(one.box)
    gate.set()
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not attached and not hub.channels


async def test_a_channel_that_could_not_be_opened_can_be_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(rig.market, Limits())
    attach, broken = rig.market.attach, True

    async def flaky(channel: Channel, listener: Any) -> Any:
        if broken:
            raise StoreError("gone")
        return await attach(channel, listener)

    monkeypatch.setattr(rig.market, "attach", flaky)
    first, second = Reader(hub.limits), Reader(hub.limits)
    with pytest.raises(StoreError):
        await follow(hub, first, TRADES)  # it stays a user of the channel
    broken = False
    await follow(hub, second, TRADES)
    await rig.tell(1, 5)
    await asyncio.sleep(0.02)
    assert second.seqs() == [1, 2, 3, 4, 5]
    for one in (first, second):
        hub.drop(one.box)


async def test_two_formats_get_the_same_payload(rig: Rig) -> None:
    hub = Hub(rig.market, Limits())

    def spaced(payload: bytes, position: bytes = b"", /) -> bytes:
        return b" " + payload + b"\n"

    plain, other = Reader(hub.limits), Reader(hub.limits, spaced)
    for one in (plain, other):
        await follow(hub, one, TRADES)
    await rig.tell(1, 5)
    await asyncio.sleep(0.02)
    assert b"".join(other.transport.writes) == b" " + b"".join(plain.transport.writes)
    for one in (plain, other):
        hub.drop(one.box)


async def test_jobs_a_peer_asks_for_are_bounded() -> None:
    reader = Reader(Limits())
    gate = asyncio.Event()

    async def job() -> None:
        await gate.wait()

    assert all(reader.box.work(job, asked=True) for _ in range(MOST_JOBS))
    assert not reader.box.work(job, asked=True)
    gate.set()
    await settled(reader)
    reader.box.close()


async def test_a_job_that_fails_ends_the_connection_only() -> None:
    reader = Reader(Limits())

    async def job() -> None:
        raise ValueError("a bug")

    reader.box.work(job)
    await settled(reader)
    assert reader.failed == 1
    reader.box.close()
