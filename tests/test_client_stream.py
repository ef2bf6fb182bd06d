"""Streams of the client: exact through cuts, restarts and slow readers; explicit where that is impossible."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from tapewick import _client_link
from tapewick._client_fields import fields_of
from tapewick.client import Candle, Client, Item, Live, Notice, Row, Rows, Skip, Stream, StreamGap, Trade
from tapewick.errors import BadPayload
from tapewick.outbox import Limits
from tests.cuttable import Relay, relay
from tests.fault.rig import seed
from tests.gateways.rig import BTC, STEP, T0, Rig, running

T = TypeVar("T")
TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
CUTS = int(os.environ.get("TAPEWICK_CUTS", "12"))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "data", ids=(BTC,)) as made:
        yield made


class Reader:
    """Follows a stream in the background and keeps what it handed out."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.items: list[Item] = []
        self.seqs: list[int] = []
        self.versions: list[tuple[int, int]] = []  # of candles: open time and pos, durable ones
        self.candles: dict[int, Candle] = {}
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for item in self._stream:
            self.items.append(item)
            if isinstance(item, Rows):
                for row in item:
                    self._keep(item.kind, row)

    def _keep(self, kind: str, row: Row) -> None:
        if isinstance(row, Trade):
            self.seqs.append(row.seq)
        elif isinstance(row, Candle):
            if kind == "event":
                self.versions.append((row.open_time, row.pos))
            held = self.candles.get(row.open_time)
            if held is None or row.pos >= held.pos:
                self.candles[row.open_time] = row

    @property
    def settled(self) -> dict[int, Candle]:
        return {time: row for time, row in self.candles.items() if row.state != "open"}

    def of(self, kind: type[T]) -> list[T]:
        return [item for item in self.items if isinstance(item, kind)]

    async def until(self, done: Callable[[], Any], seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@asynccontextmanager
async def reading(client: Client, *channels: str, **options: Any) -> AsyncIterator[Reader]:
    async with client.stream(*channels, **options) as stream:
        reader = Reader(stream)
        try:
            yield reader
        finally:
            await reader.stop()


async def publish(rig: Rig, rng: random.Random, done: asyncio.Event, first: int) -> None:
    """Trades with holes that are filled later, until ``done``."""
    holes: list[tuple[int, int]] = []
    while not done.is_set() or holes:
        count = rng.randint(1, 60)
        if rng.random() < 0.15 and not done.is_set():
            holes.append((first, count))
        else:
            await rig.tell(first, count, clock=T0 + (first + count) * STEP)
        first += count
        if holes and (rng.random() < 0.2 or done.is_set()):
            await rig.tell(*holes.pop(rng.randrange(len(holes))), late=True)
        await asyncio.sleep(rng.choice((0, 0, 0.002)))


async def truth(client: Client) -> dict[int, Candle]:
    return {row.open_time: row for row in await client.candles(BTC, "1m", limit=0) if row.state != "open"}


async def disturb(between: Relay, rng: random.Random, cuts: int = CUTS) -> None:
    """Cut at random moments, some after a number of bytes that may end inside a frame."""
    for _ in range(cuts):
        before = between.taken
        between.budget = rng.choice((None, rng.randint(1, 400), rng.randint(400, 60_000)))
        await asyncio.sleep(rng.uniform(0, 0.05))
        between.cut()
        await between.took(before)
    between.budget = None
    between.cut()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("begin", [{"since": 0}, {"start": T0}], ids=["since", "start"])
async def test_a_stream_cut_many_times_misses_nothing_and_doubles_nothing(rig: Rig, begin: dict[str, Any]) -> None:
    rng, done = random.Random(seed()), asyncio.Event()
    await rig.tell(1, 2500)
    async with (
        relay(rig.gateway.url) as between,
        Client(rig.gateway.url) as direct,
        Client(between.url) as client,
        reading(client, TRADES, CANDLES, **begin) as reader,
    ):
        await reader.until(lambda: reader.seqs)
        publishing = asyncio.create_task(publish(rig, rng, done, 2501))
        await disturb(between, rng, CUTS // 2)
        await reader.until(lambda: any(rows.kind == "event" for rows in reader.of(Rows)))
        await disturb(between, rng, CUTS // 2)
        done.set()
        await publishing
        total, final = (await direct.coverage(BTC))["trades"], await truth(direct)
        await reader.until(lambda: reader.seqs[-1] == total and reader.settled == final)
        assert reader.seqs == list(range(1, total + 1)), "event for event"
        assert len(reader.versions) == len(set(reader.versions)), "a version of a candle came twice"
        assert reader.of(StreamGap) == []
        assert {one.code for one in reader.of(Notice)} == {"connected", "disconnected"}


async def test_positions_go_on_in_another_stream(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with Client(rig.gateway.url) as client:
        async with reading(client, TRADES, CANDLES, snapshot=3) as reader:
            await reader.until(lambda: len(reader.of(Rows)) >= 2)
            positions = dict(reader._stream.positions)
        assert positions.keys() == {TRADES, CANDLES} and positions[TRADES].endswith(":700")
        await rig.tell(701, 600)
        async with reading(client, TRADES, CANDLES, since=positions) as later:
            await later.until(lambda: later.seqs[-1:] == [1300])
            assert later.seqs == list(range(701, 1301)) and later.of(StreamGap) == []


@pytest.mark.parametrize(("since", "reason"), [("other:5", "epoch"), (10**6, "future")])
async def test_a_refused_resume_is_told_and_a_snapshot_follows(rig: Rig, since: Any, reason: str) -> None:
    await rig.tell(1, 700)
    async with Client(rig.gateway.url) as client, reading(client, TRADES, since=since, snapshot=4) as reader:
        await reader.until(lambda: reader.seqs)
        gap, snapshot = reader.items[:2]
        assert isinstance(gap, StreamGap) and (gap.channel, gap.reason) == (TRADES, reason)
        assert isinstance(snapshot, Rows) and snapshot.kind == "snapshot" and reader.seqs == [697, 698, 699, 700]
        await rig.tell(701, 5)
        await reader.until(lambda: reader.seqs[-1] == 705)
        assert reader.seqs == list(range(697, 706))


async def test_skipped_trades_are_counted(rig: Rig) -> None:
    await rig.tell(1, 100)
    async with Client(rig.gateway.url) as client, reading(client, TRADES, snapshot=0, backfill="skip") as reader:
        await rig.tell(201, 1)
        await reader.until(lambda: reader.seqs or len(reader.items))
        await rig.tell(150, 30, late=True)
        await rig.tell(202, 1)
        await reader.until(lambda: reader.seqs[-1:] == [132])
        (skip,) = reader.of(Skip)
        assert (skip.count, skip.first.rpartition(":")[2], skip.position.rpartition(":")[2]) == (30, "102", "131")
        assert reader.seqs == [101, 132] and reader.of(StreamGap) == []


async def test_a_reader_that_pauses_is_closed_by_the_server_and_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_client_link, "HELD_BYTES", 20_000)
    limits = Limits(queue_bytes=65_536, slow_s=0.2)
    async with running(tmp_path / "data", ids=(BTC,), limits=limits) as rig, Client(rig.gateway.url) as client:
        await rig.tell(1, 10)
        before = await _slow_closes(rig)
        async with client.stream(TRADES, snapshot=0) as stream:
            waiting = asyncio.create_task(anext(stream))
            first = 11
            while not waiting.done():  # the subscription may still be on its way
                await rig.tell(first, 1)
                first += 1
            item = await waiting
            while await _slow_closes(rig) == before or first < 5000:
                await rig.tell(first, 5000)
                first += 5000
            reader = Reader(stream)
            await reader.until(lambda: reader.seqs[-1:] == [first - 1])
            assert isinstance(item, Rows)
            begin = [row.seq for row in item if isinstance(row, Trade)]
            assert begin + reader.seqs == list(range(begin[0], first))
            assert any("4008" in notice.detail for notice in reader.of(Notice)) and reader.of(StreamGap) == []
            await reader.stop()


async def _slow_closes(rig: Rig) -> float:
    """How many slow readers this process has closed so far."""
    async with rig.http as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("tapewick_slow_closes_total"))


async def test_a_cancelled_wait_loses_nothing(rig: Rig) -> None:
    seqs: list[int] = []
    async with Client(rig.gateway.url) as client, client.stream(TRADES, since=0) as stream:
        for first in range(1, 400, 7):
            await rig.tell(first, 7)
            for wait in (0, 0.0005, 0.001, 0.002):
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        item = await anext(stream)
                    assert isinstance(item, Rows)
                    seqs += [row.seq for row in item if isinstance(row, Trade)]
        async with asyncio.timeout(20):
            while seqs[-1:] != [399]:
                item = await anext(stream)
                assert isinstance(item, Rows)
                seqs += [row.seq for row in item if isinstance(row, Trade)]
    assert seqs == list(range(1, 400))


async def test_a_live_table_holds_the_newest_version_of_each_candle(rig: Rig) -> None:
    rng, done = random.Random(seed()), asyncio.Event()
    await rig.tell(1, 2500)
    async with (
        relay(rig.gateway.url) as between,
        Client(rig.gateway.url) as direct,
        Client(between.url) as client,
        await client.live(CANDLES, rows=1000) as live,
        await client.live(TRADES, rows=50) as trades,
    ):
        async with asyncio.timeout(60):  # what is open may still be on its way
            while live.table().rows != (await direct.candles(BTC, "1m")).rows:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        publishing = asyncio.create_task(publish(rig, rng, done, 2501))
        await disturb(between, rng)
        done.set()
        await publishing
        final, total = await truth(direct), (await direct.coverage(BTC))["trades"]
        async with asyncio.timeout(120):
            while {row.open_time: row for row in live.table() if row.state != "open"} != final:
                await live.changed()
            while trades.table().rows[-1].seq != total:  # type: ignore[attr-defined]
                await trades.changed()
        assert live.table()["open_time"].tolist() == sorted(live.table()["open_time"].tolist())
        assert trades.table()["seq"].tolist() == list(range(total - 49, total + 1))
        assert live.gaps == []
        async with asyncio.timeout(60):  # a cut may have come behind the last row
            while not live.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_long_live_table_begins_with_pages_of_history(rig: Rig) -> None:
    await rig.tell(1, 15_000)
    async with Client(rig.gateway.url) as client:
        async with await client.live(TRADES, rows=2500) as live:
            assert live.table()["seq"].tolist() == list(range(12_501, 15_001))
        async with await client.live(f"candle@{BTC}@1s", start=T0) as live:
            assert live.table().rows == (await client.candles(BTC, "1s", limit=0)).rows
        async with await client.live(TRADES, start=T0 + 14_000 * STEP) as live:
            version = live.version
            await rig.tell(15_001, 5)
            async with asyncio.timeout(20):
                while live.table().rows[-1].seq != 15_005:
                    version = await live.changed(version)
            assert live.table()["seq"].tolist() == list(range(14_000, 15_006))


async def test_a_live_table_is_read_again_after_a_gap(rig: Rig) -> None:
    """The tape is another one after a while, as after a restored backup: what is held is no part of it."""
    await rig.tell(1, 700)
    async with Client(rig.gateway.url) as client:
        stream = client.stream(TRADES, since="other:5", snapshot=2)
        own = await client.instrument(BTC)
        async with Live(stream, fields_of("trade", own), lambda: client.trades(BTC, limit=50), 100) as live:
            assert live.table()["seq"].tolist() == list(range(651, 701))
            assert [gap.reason for gap in live.gaps] == ["epoch"]


def test_rows_of_another_shape_are_no_rows() -> None:
    with pytest.raises(BadPayload, match="another version"):
        Rows(TRADES, "event", "e:1", [msgspec.Raw(b'{"seq":1}')]).rows  # noqa: B018
