"""One subscription that begins in the past: what it brings is the tape, event for event, while trades keep coming."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick.gateways.grpc import GrpcGateway
from tapewick.model import TradeBatch
from tapewick.timeframe import DAY, SECOND
from tests.fault.rig import seed
from tests.gateways.held import Follower, Held, event_source, grpc_stream, web_socket
from tests.gateways.rig import BTC, STEP, T0, Rig, batch, running
from tests.gateways.test_stream import reduced

TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
NOW = T0 + DAY  # the rig's present
BEGUN, ASKED = NOW - 3 * DAY, NOW - 2 * DAY
COUNT = int(os.environ.get("TAPEWICK_HISTORY", "6000"))  # trades of the three days before
LATE = 200  # of them, that came after the others
CHANNELS = (TRADES, CANDLES)

Following = Callable[[Held], Any]


def past(chance: random.Random) -> TradeBatch:
    """Trades at random times of the last three days."""
    made = batch(1, COUNT)
    made.ts_event = np.sort(np.array([chance.randrange(BEGUN, NOW) for _ in range(COUNT)], np.int64))
    made.ts_recv = made.ts_event + 1
    return made


async def told_past(rig: Rig, chance: random.Random) -> None:
    """Put the past there; some of it, on either side of the time asked for, came late and has later positions."""
    whole = past(chance)
    asked = int(np.searchsorted(whole.ts_event, ASKED))
    late = np.zeros(COUNT, bool)
    late[asked - LATE // 2 : asked + LATE // 2] = True
    first, rest = np.flatnonzero(~late), whole.select(np.flatnonzero(late))
    cut = int(np.searchsorted(first, COUNT // 2))  # the late ones come in the middle of what follows the asked time
    for part in np.array_split(first[:cut], 5):
        await rig.bus.publish("trades", whole.select(part))
        await rig.bus.settled("trades")
    rest.late = True
    await rig.bus.publish("trades", rest)
    await rig.bus.settled("trades")
    for part in np.array_split(first[cut:], 5):
        await rig.bus.publish("trades", whole.select(part))
        await rig.bus.settled("trades")


async def go_on(rig: Rig, chance: random.Random, done: asyncio.Event) -> int:
    """Trades of the present, with holes filled later, until ``done``; the highest seq."""
    first, holes = COUNT + 1, list[TradeBatch]()
    while not done.is_set() or holes:
        rig.clock.advance(5)
        count = chance.randint(1, 40)
        made = batch(first, count, clock=rig.clock.now())
        made.ts_event = rig.clock.now() - SECOND + np.arange(count, dtype=np.int64) * (STEP // 10)
        made.ts_recv = made.ts_event + 1
        first += count
        if chance.random() < 0.15 and not done.is_set():
            made.late, made.clock = True, 0
            holes.append(made)
        else:
            await rig.bus.publish("trades", made)
        if holes and (done.is_set() or chance.random() < 0.3):
            await rig.bus.publish("trades", holes.pop(0))
        await rig.bus.settled("trades")
        await asyncio.sleep(0.001)
    return first - 1


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[tuple[Rig, dict[str, Following]]]:
    """A read side on three days of trades, and how to follow it on each transport."""
    async with running(folder) as rig, GrpcGateway(rig.market, port=0) as gateway:
        url = rig.gateway.url
        yield (
            rig,
            {
                "web socket": lambda held: web_socket(url, held),
                "event source": lambda held: event_source(url, held),
                "grpc": lambda held: grpc_stream(gateway.address, held),
            },
        )


async def stored(rig: Rig, last: int) -> tuple[list[dict[str, Any]], dict[int, tuple[Any, ...]]]:
    """The tape from the first trade at or after the time asked for, and the settled candles from it on."""
    batch, _ = await rig.store.trades(BTC, start=ASKED, limit=1)
    assert batch.seq is not None
    after, rows = int(batch.seq[0]) - 1, list[dict[str, Any]]()
    while after < last:
        part = (await rig.get(f"/v1/trades?instrument={BTC}&since={after}&limit=1000"))["trades"]
        rows += part
        after = part[-1]["seq"]
    candles, path = dict[int, tuple[Any, ...]](), f"/v1/candles?instrument={BTC}&tf=1m&limit=1000&start="
    start = ASKED // 10**6
    while part := (await rig.get(f"{path}{start}"))["candles"]:
        candles |= reduced([row for row in part if row["state"] != "open"])
        start = part[-1]["open_time"] + 1
    return rows, candles


def since_asked(held: Held) -> dict[int, tuple[Any, ...]]:
    return {at: row for at, row in held.candles(CANDLES).items() if at * 10**6 >= ASKED}


@pytest.mark.timeout(600)
async def test_two_days_of_history_and_live_are_the_tape_on_every_transport(tmp_path: Path) -> None:
    chance, done = random.Random(seed()), asyncio.Event()
    async with started(tmp_path) as (rig, ways):
        await told_past(rig, chance)
        publishing = asyncio.create_task(go_on(rig, chance, done))
        whole = {name: Held(CHANNELS, start=ASKED // 10**6) for name in ways}
        often = {name: Held(CHANNELS, start=ASKED // 10**6) for name in ways}

        async def follow(name: str) -> None:
            """To the end of what is published, without a cut."""
            async with ways[name](whole[name]) as follower:
                await caught_up(follower)

        async def follow_cut(name: str) -> None:
            """The same, cut after a few frames again and again, among them pages of the snapshots."""
            held, cuts = often[name], random.Random(chance.random())
            for _ in range(8):
                async with ways[name](held) as follower:
                    wanted = cuts.randint(1, 6)
                    await follower.count(wanted)
                    follower.take(None if name == "event source" else wanted)  # its id is that of all that came
            async with ways[name](held) as follower:
                await caught_up(follower)

        async def caught_up(follower: Follower) -> None:
            await follower.until(lambda held: held.begun and held.trades[TRADES][-1]["seq"] > COUNT + 200, 300)
            live.release()
            last, _, candles = await truth
            await follower.until(lambda held: held.trades[TRADES][-1]["seq"] == last, 300)
            await follower.until(lambda held: since_asked(held) == candles, 300)

        live = asyncio.Semaphore(0)
        truth: asyncio.Future[tuple[int, Any, Any]] = asyncio.get_running_loop().create_future()
        clients = [asyncio.create_task(one(name)) for name in ways for one in (follow, follow_cut)]
        for _ in clients:  # each is in the present before the trades end
            waiting = asyncio.create_task(live.acquire())
            await asyncio.wait({waiting, *clients}, return_when=asyncio.FIRST_COMPLETED)
            assert waiting.done(), [client.result() for client in clients if client.done()]
        done.set()
        last = await publishing
        truth.set_result((last, *await stored(rig, last)))
        await asyncio.gather(*clients)
        _, rows, candles = truth.result()
        assert [row["seq"] for row in rows] == list(range(rows[0]["seq"], last + 1)) and candles
        for held in (*whole.values(), *often.values()):
            assert held.trades[TRADES] == rows, "event for event"
            assert since_asked(held) == candles


async def test_a_long_replay_does_not_hold_up_the_other_channels(tmp_path: Path) -> None:
    async with started(tmp_path) as (rig, ways):
        await told_past(rig, random.Random(3))
        for name, way in ways.items():
            held = Held(CHANNELS, start=BEGUN // 10**6)
            async with way(held) as follower:
                await follower.until(lambda held: len(held.rows[CANDLES]) and len(held.trades[TRADES]) == COUNT)
            before = sum(rows for _, rows in held.order[: [channel for channel, _ in held.order].index(CANDLES)])
            assert before <= 2000 < COUNT, (name, "the first two pages at most")


async def test_a_time_in_the_future_begins_with_what_comes(tmp_path: Path) -> None:
    async with started(tmp_path) as (rig, ways):
        await rig.tell(1, 50)
        for way in ways.values():
            held = Held((TRADES,), start=NOW // 10**6)
            async with way(held) as follower:
                await follower.until(lambda held: held.begun)
                assert held.trades[TRADES] == []
                first = (await rig.store.head(BTC)).seq + 1
                await rig.tell(first, 5)
                await follower.until(lambda held: len(held.trades[TRADES]) == 5)
                assert [row["seq"] for row in held.trades[TRADES]] == list(range(first, first + 5))


async def test_a_time_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    async with started(tmp_path) as (rig, _):
        for query, field in (
            (f"channels={TRADES}&since_ts=soon", "since_ts"),
            (f"channels={TRADES}&since_ts=-1", "since_ts"),
            (f"channels=ticker@{BTC}&since_ts=1", "since_ts"),
        ):
            told = await rig.get(f"/v1/sse?{query}", 400)
            assert field in str(told), told
