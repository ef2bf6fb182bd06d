"""``backfill: skip``: late trades are told by their number only, and no position is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tapewick.channel import Since
from tapewick.fanout import QUIET
from tapewick.hub import Hub
from tapewick.outbox import Limits
from tests.gateways.rig import BTC, Rig, running
from tests.test_hub import TRADES, Reader, follow, settled


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path) as made:
        yield made


def seen(reader: Reader) -> list[tuple[str, int, int]]:
    """Events and skips in order as (type, from, to); asserts that they follow each other."""
    told = []
    for frame in reader.transport.frames():
        if frame["type"] in ("event", "skip"):
            first, last = (int(frame[name].rpartition(":")[2]) for name in ("from", "to" if "to" in frame else "pos"))
            assert frame["type"] == "event" or frame["count"] == last - first + 1
            assert frame["type"] == "skip" or [row["seq"] for row in frame["data"]] == list(range(first, last + 1))
            told.append((frame["type"], first, last))
    for (_, _, end), (_, start, _) in zip(told, told[1:], strict=False):
        assert start == end + 1, "no hole and nothing twice"
    return told


async def until(done: Any) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_a_run_of_late_trades_is_one_frame_before_what_follows(rig: Rig) -> None:
    hub = Hub(rig.market, Limits())
    every, skipping = Reader(hub.limits), Reader(hub.limits)
    await follow(hub, every, TRADES)
    await follow(hub, skipping, TRADES, skip=True)
    await rig.tell(1, 10)
    for first in range(101, 201, 20):
        await rig.tell(first, 20, late=True)
    await rig.tell(301, 5)
    await until(lambda: seen(skipping)[-1:] == [("event", 111, 115)])
    assert [told for told in seen(skipping) if told[0] == "skip"] == [("skip", 11, 110)]
    (skip,) = skipping.of("skip")
    assert skip == {"type": "skip", "ch": f"trade@{BTC}", "from": skip["from"], "to": skip["to"], "count": 100}
    assert every.seqs() == list(range(1, 116)) and not every.of("skip")
    assert [f.get("late") for f in every.of("event")].count(True) >= 1
    for one in (every, skipping):
        hub.drop(one.box)


async def test_a_run_that_nothing_follows_is_told_once_it_is_quiet(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.fanout.QUIET", QUIET / 5)
    hub = Hub(rig.market, Limits())
    reader = Reader(hub.limits)
    await follow(hub, reader, TRADES, skip=True)
    await rig.tell(1, 50, late=True)
    await until(lambda: seen(reader) == [("skip", 1, 50)])
    await rig.tell(101, 5)
    await until(lambda: seen(reader)[-1] == ("event", 51, 55))
    hub.drop(reader.box)


async def test_a_resume_skips_what_came_late_meanwhile(rig: Rig) -> None:
    await rig.tell(1, 10)
    await rig.tell(101, 1500, late=True)
    await rig.tell(2001, 10)
    await rig.tell(3001, 10, late=True)
    hub = Hub(rig.market, Limits())
    every, skipping = Reader(hub.limits), Reader(hub.limits)
    await follow(hub, every, TRADES, since=Since(None, 0))
    await follow(hub, skipping, TRADES, since=Since(None, 0), skip=True)
    for one in (every, skipping):
        await settled(one)
    assert seen(skipping) == [("event", 1, 10), ("skip", 11, 1510), ("event", 1511, 1520), ("skip", 1521, 1530)]
    assert every.seqs() == list(range(1, 1531))
    assert [(f["data"][0]["seq"], f.get("late", False)) for f in every.of("event")] == [
        (1, False), (11, True), (1001, True), (1511, False), (1521, True),
    ]  # fmt: skip
    await rig.tell(4001, 3)
    await until(lambda: seen(skipping)[-1] == ("event", 1531, 1533))
    for one in (every, skipping):
        hub.drop(one.box)


async def test_a_reader_that_joins_or_lags_inside_a_run_misses_nothing(rig: Rig) -> None:
    hub = Hub(rig.market, Limits(queue_bytes=3000, slow_s=60))
    early, late, slow = (Reader(hub.limits) for _ in range(3))
    await follow(hub, early, TRADES, skip=True)
    await follow(hub, slow, TRADES, skip=True)
    slow.stall()
    for first in range(1, 1001, 100):
        await rig.tell(first, 100)
    await rig.tell(2001, 10, late=True)
    await until(lambda: bool(slow.box.lagging))
    await follow(hub, late, TRADES, skip=True)
    await rig.tell(3001, 10, late=True)
    slow.drain()
    await settled(slow)
    await rig.tell(4001, 10)
    for one, first in ((early, 1), (slow, 1), (late, 1011)):
        await until(lambda one=one: seen(one)[-1:] == [("event", 1021, 1030)])
        assert seen(one)[0][1] == first
        assert sum(last - start + 1 for kind, start, last in seen(one) if kind == "skip") == (20 if first == 1 else 10)
        hub.drop(one.box)
