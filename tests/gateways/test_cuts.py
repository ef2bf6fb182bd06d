"""Connections cut at random moments: what a resuming client holds in the end equals what one held that was never cut.

``TAPEWICK_CUTS`` sets how often each transport is cut (default 12; ``make torture`` 200). The seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tapewick.gateways.grpc import GrpcGateway
from tests.fault.rig import seed
from tests.gateways.held import Follower, Held, event_source, grpc_stream, web_socket
from tests.gateways.rig import BTC, ETH, STEP, T0, Rig, running
from tests.gateways.severing import severed
from tests.gateways.test_stream import reduced

CUTS = int(os.environ.get("TAPEWICK_CUTS", "12"))
TRADES, OTHERS = f"trade@{BTC}", f"trade@{ETH}"
CANDLES = f"candle@{BTC}@1m"
CHANNELS = (TRADES, OTHERS, CANDLES)


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


class Cutter:
    """Connects to one server over one transport and cuts the connection at random moments."""

    def __init__(self, transport: str, url: str, rng: random.Random) -> None:
        self._transport, self._url, self._rng = transport, url, rng

    @asynccontextmanager
    async def following(self, held: Held, budget: int | None = None) -> AsyncIterator[Follower]:
        if self._transport == "event source":
            async with event_source(self._url, held, budget=budget, snapshot=0) as follower:
                yield follower
        elif self._transport == "web socket":
            async with web_socket(self._url, held) as follower:
                yield follower
        elif budget is None:
            async with grpc_stream(self._url, held) as follower:
                yield follower
        else:
            async with severed(self._url, budget) as address, grpc_stream(address, held) as follower:
                yield follower

    async def cut(self, held: Held) -> None:
        """Once: after a random number of bytes, which may end in the middle of a frame, or of frames."""
        rng = self._rng
        bytes_ = rng.choice((0, 200, 600, rng.randint(1, 60_000)))
        wanted = rng.choice((0, 1, 2, 3, rng.randint(4, 60)))
        by_bytes = self._transport == "event source" or (self._transport == "grpc" and rng.random() < 0.5)
        async with self.following(held, bytes_ if by_bytes else None) as follower:
            if by_bytes:
                await follower.end()
            else:
                await follower.count(wanted)
                follower.take(max(wanted, 1))


@asynccontextmanager
async def started(folder: Path, transport: str) -> AsyncIterator[tuple[Rig, str, dict[str, str]]]:
    """A read side, the transport's address, and the positions at which nothing has happened yet."""
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(running(folder, ids=(BTC, ETH)))
        url = rig.gateway.url
        if transport == "grpc":
            url = (await stack.enter_async_context(GrpcGateway(rig.market, port=0))).address
        async with rig.ws() as c:
            c.subscribe(*({"ch": name, "snapshot": 0} for name in CHANNELS))
            (told,) = await c.got("subscribed")
        yield rig, url, {one["ch"]: one["pos"] for one in told["channels"]}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("transport", ["web socket", "event source", "grpc"])
async def test_a_client_cut_many_times_holds_what_an_uncut_one_holds(tmp_path: Path, transport: str) -> None:
    rng = random.Random(seed())
    async with started(tmp_path, transport) as (rig, url, positions):
        whole, held, done = Held(CHANNELS, positions), Held(CHANNELS, positions), asyncio.Event()
        if transport == "event source":
            async with event_source(url, Held(CHANNELS), snapshot=0) as first:
                await first.count(1)
            held.token = first.held.token
        async with web_socket(rig.gateway.url, whole) as uncut:
            publishing = asyncio.create_task(publish(rig, rng, done))
            cutter = Cutter(transport, url, rng)
            for _ in range(CUTS):
                await cutter.cut(held)
            done.set()
            totals = await publishing
            stored = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=10000")
            truth = reduced([row for row in stored["candles"] if row["state"] != "open"])

            def complete(one: Held) -> bool:
                counts = len(one.trades[TRADES]), len(one.trades[OTHERS])
                return counts == totals and one.candles(CANDLES) == truth

            async with cutter.following(held) as last:
                await last.until(complete)
            await uncut.until(complete)
        for channel in (TRADES, OTHERS):
            assert held.trades[channel] == whole.trades[channel], "event for event"
            assert [row["seq"] for row in held.trades[channel]] == list(range(1, len(held.trades[channel]) + 1))
        assert held.candles(CANDLES) == whole.candles(CANDLES) == truth != {}
        print(f"{transport}: {CUTS} cuts, {totals} trades, {len(truth)} candles")  # noqa: T201  # with the seed
