"""Connections cut at random moments: what a resuming client holds in the end equals what one held that was never cut.

``TAPEWICK_CUTS`` sets how often each transport is cut (default 12; ``make torture`` 200). The seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fault.rig import seed
from tests.gateways.event_source import Event, opened
from tests.gateways.rig import BTC, ETH, STEP, T0, Rig, running
from tests.gateways.test_stream import reduced

CUTS = int(os.environ.get("TAPEWICK_CUTS", "12"))
TRADES, OTHERS = f"trade@{BTC}", f"trade@{ETH}"
CANDLES = f"candle@{BTC}@1m"
CHANNELS = (TRADES, OTHERS, CANDLES)


class Held:
    """What a client has: every trade in the order it came, every candle row, and where it stands."""

    def __init__(self, positions: dict[str, str]) -> None:
        self.positions = dict(positions)
        self.trades: dict[str, list[dict[str, Any]]] = {TRADES: [], OTHERS: []}
        self.rows: list[dict[str, Any]] = []

    def take(self, frame: dict[str, Any]) -> None:
        assert frame["type"] not in ("gap", "snapshot", "error"), frame
        if frame["type"] == "subscribed":
            assert all(one["recovered"] for one in frame["channels"]), frame
        if frame["type"] == "event":
            self.positions[frame["ch"]] = frame["pos"]
            self.trades.get(frame["ch"], self.rows).extend(frame["data"])

    @property
    def candles(self) -> dict[int, tuple[Any, ...]]:
        return reduced([row for row in self.rows if row["state"] != "open"])


async def publish(rig: Rig, rng: random.Random, done: asyncio.Event) -> tuple[int, int]:
    """Trades with holes that are filled later, until ``done``; how many of each instrument."""
    first, others, holes = 1, 0, list[tuple[int, int]]()
    while not done.is_set() or holes or first < 2000:
        count = rng.randint(1, 60)
        if rng.random() < 0.15 and not done.is_set():
            holes.append((first, count))
        else:
            await rig.tell(first, count, clock=T0 + (first + count) * STEP)
        first += count
        if holes and (rng.random() < 0.2 or done.is_set()):
            await rig.tell(*holes.pop(rng.randrange(len(holes))), late=True)
        if rng.random() < 0.3:
            await rig.tell(others + 1, 5, ETH)
            others += 5
        await asyncio.sleep(rng.choice((0, 0, 0.002)))
    return first - 1, others


async def cut_web_socket(rig: Rig, rng: random.Random, held: Held) -> None:
    """Read a random number of frames, the end perhaps in the middle of a burst, and drop the rest."""
    wanted = rng.choice((0, 1, 2, 3, rng.randint(4, 60)))
    async with rig.ws() as c:
        c.subscribe(*({"ch": name, "since": position} for name, position in held.positions.items()))
        await c.until(lambda c: len(c.frames) >= wanted)
        for frame in c.frames[: max(wanted, 1)]:
            held.take(frame)


async def cut_event_source(rig: Rig, rng: random.Random, held: Held) -> None:
    """Read a random number of bytes, which may end in the middle of an event, and drop the rest."""
    bytes_ = rng.choice((0, 200, 600, rng.randint(1, 60_000)))
    last_id = held.positions["id"]
    async with opened(rig.gateway.url, ",".join(CHANNELS), last_id, budget=bytes_) as s:
        await s.until(lambda s: s.ended)
        for event in s.events:
            held.take(event.data)
        held.positions["id"] = s.last_id


def reached(held: Held, frames: list[dict[str, Any]], done: Callable[[Held], bool]) -> Callable[[Any], bool]:
    """A condition that takes what came since it was last looked at."""
    taken = 0

    def look(_: Any) -> bool:
        nonlocal taken
        for frame in frames[taken:]:
            held.take(frame)
        taken = len(frames)
        return done(held)

    return look


async def finish_web_socket(rig: Rig, held: Held, done: Callable[[Held], bool]) -> None:
    async with rig.ws() as c:
        c.subscribe(*({"ch": name, "since": position} for name, position in held.positions.items()))
        await c.until(reached(held, c.frames, done), 60)


async def finish_event_source(rig: Rig, held: Held, done: Callable[[Held], bool]) -> None:
    async with opened(rig.gateway.url, ",".join(CHANNELS), held.positions["id"]) as s:
        await s.until(reached(held, Datas(s.events), done), 60)  # type: ignore[arg-type]


class Datas:
    """The data of events, as a list that grows with them."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, which: slice) -> list[dict[str, Any]]:
        return [event.data for event in self._events[which]]


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[tuple[Rig, dict[str, str]]]:
    """A read side, and the positions at which nothing has happened yet."""
    async with running(folder, ids=(BTC, ETH)) as rig:
        async with rig.ws() as c:
            c.subscribe(*({"ch": name, "snapshot": 0} for name in CHANNELS))
            (told,) = await c.got("subscribed")
        yield rig, {one["ch"]: one["pos"] for one in told["channels"]}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("transport", ["web socket", "event source"])
async def test_a_client_cut_many_times_holds_what_an_uncut_one_holds(tmp_path: Path, transport: str) -> None:
    rng, web_socket = random.Random(seed()), transport == "web socket"
    async with started(tmp_path) as (rig, positions), rig.ws() as uncut:
        uncut.subscribe(*({"ch": name, "since": position} for name, position in positions.items()))
        whole, held, done = Held(positions), Held(positions), asyncio.Event()
        if not web_socket:
            async with opened(rig.gateway.url, ",".join(CHANNELS), snapshot=0) as s:
                await s.got("subscribed")
                held.positions["id"] = s.last_id
        publishing = asyncio.create_task(publish(rig, rng, done))
        for _ in range(CUTS):
            await (cut_web_socket if web_socket else cut_event_source)(rig, rng, held)
        done.set()
        totals = await publishing
        stored = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=10000")
        truth = reduced([row for row in stored["candles"] if row["state"] != "open"])

        def complete(one: Held) -> bool:
            return (len(one.trades[TRADES]), len(one.trades[OTHERS])) == totals and one.candles == truth

        await (finish_web_socket if web_socket else finish_event_source)(rig, held, complete)
        await uncut.until(reached(whole, uncut.frames, complete), 60)
        for channel in (TRADES, OTHERS):
            assert held.trades[channel] == whole.trades[channel], "event for event"
            assert [row["seq"] for row in held.trades[channel]] == list(range(1, len(held.trades[channel]) + 1))
        assert held.candles == whole.candles == truth != {}
