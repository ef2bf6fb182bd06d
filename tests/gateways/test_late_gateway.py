"""A gateway that joins late tells what one tells that was there from the beginning, and takes over its clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tapewick.gateways.grpc import GrpcGateway
from tapewick.gateways.http import HttpGateway
from tapewick.market import Market
from tapewick.timeframe import NAMES
from tests.booking import Run, Truth, quote
from tests.fault.rig import seed
from tests.gateways.held import Follower, Held, event_source, grpc_stream, web_socket
from tests.gateways.relay import until
from tests.gateways.rig import BTC, STEP, T0, Peer, Rig, peer, running
from tests.gateways.test_stream import reduced

TRADES, CANDLES, HOURS = f"trade@{BTC}", f"candle@{BTC}@1m", f"candle@{BTC}@1h"
CHANNELS = (TRADES, CANDLES, HOURS)
LATEST = (f"ticker@{BTC}", f"book_top@{BTC}", f"bbo@{BTC}")
PATHS = (
    "/v1/instruments",
    f"/v1/coverage/{BTC}",
    f"/v1/trades?instrument={BTC}&since=0&limit=1000",
    f"/v1/book/{BTC}?levels=10",
    f"/v1/ticker/{BTC}",
    f"/udf/history?symbol={BTC}&resolution=1&to={T0 // 10**9 + 86_400}&countback=1000",
    f"/udf/quotes?symbols={BTC}",
    *(f"/v1/candles?instrument={BTC}&tf={tf}&limit=1000" for tf in NAMES),
)


class Publisher:
    """Trades with holes that are filled later, and a book with a quote for each of its updates."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self._rig, self._rng = rig, rng
        self._book = Run(Truth(seed=4, updates=3000), "r1")
        self._holes = list[tuple[int, int]]()
        self.next = 1

    async def some(self, rounds: int) -> None:
        """Go on for so many rounds; nothing is missing in the end."""
        for n in range(rounds):
            count = self._rng.randint(1, 60)
            if self._rng.random() < 0.15:
                self._holes.append((self.next, count))
            else:
                await self._rig.tell(self.next, count, clock=T0 + (self.next + count) * STEP)
            self.next += count
            if self._holes and (self._rng.random() < 0.3 or n == rounds - 1):
                for hole in self._holes:
                    await self._rig.tell(*hole, late=True)
                self._holes.clear()
            await self._rig.bus.publish("books", self._book.step() if n % 10 else self._book.whole())
            await self._rig.bus.publish("books", quote(self._book.last_id, bid=9_990 - 10 * (n % 3)))
            await asyncio.sleep(0)
        await self._rig.tell(self.next, 1, clock=T0 + (self.next + 1) * STEP)
        self.next += 1


@asynccontextmanager
async def gateway(rig: Rig) -> AsyncIterator[HttpGateway]:
    """One more gateway, with a market of its own, over the same store and bus."""
    async with Market(rig.bus, rig.store, rig.clock) as market, HttpGateway(market, port=0) as made:
        yield made


async def answers(url: str) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=url) as client:
        told = {path: await client.get(path) for path in PATHS}
    assert all(answer.status_code == 200 for answer in told.values()), told
    return {path: answer.json() for path, answer in told.items()}


def whole(held: Held, last: int) -> bool:
    """Whether all of the tape up to trade number ``last`` has come."""
    return held.begun and len(held.trades[TRADES]) > 0 and bool(held.trades[TRADES][-1]["seq"] == last)


async def settled(rig: Rig) -> dict[int, tuple[Any, ...]]:
    """The stored candles that are no longer open."""
    told = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=1000")
    return reduced([row for row in told["candles"] if row["state"] != "open"])


def since_first(held: Held, truth: dict[int, tuple[Any, ...]]) -> bool:
    """Whether the settled candles from the first one shown on are the stored ones."""
    begun = min(row["open_time"] for row in held.rows[CANDLES])
    mine = {at: row for at, row in held.candles(CANDLES).items() if at >= begun}
    return bool(mine) and mine == {at: row for at, row in truth.items() if at >= begun}


def states(c: Peer) -> dict[str, Any]:
    """The newest value of each channel that only knows how things stand."""
    newest = {frame["ch"]: frame["data"] for frame in c.frames if frame.get("ch") in LATEST and "data" in frame}
    for rows in newest.values():
        for row in rows:
            row.pop("data_age_ms", None)
    return newest


@pytest.mark.timeout(300)
async def test_a_late_gateway_equals_an_old_one(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        publisher = Publisher(rig, random.Random(seed()))
        since = (await rig.store.head(BTC)).epoch + ":0"
        first, second = (Held(CHANNELS, dict.fromkeys(CHANNELS, since)) for _ in range(2))
        async with web_socket(rig.gateway.url, first) as old, rig.ws() as old_states:
            old_states.subscribe(*LATEST)
            await publisher.some(60)
            async with (
                gateway(rig) as late,
                web_socket(late.url, second) as new,
                peer(late.url.replace("http", "ws", 1) + "/v1/ws") as new_states,
            ):
                new_states.subscribe(*LATEST)
                await publisher.some(60)
                last = (await rig.store.head(BTC)).seq
                for follower in (old, new):
                    await follower.until(lambda held: whole(held, last))
                assert first.trades == second.trades, "event for event"
                truth = await settled(rig)
                for follower in (old, new):
                    await follower.until(lambda held: held.candles(CANDLES) == truth != {})
                    assert follower.held.candles(HOURS) == {}, "none has closed"

                async def same() -> bool:
                    shown = states(new_states)
                    return len(shown) == len(LATEST) and states(old_states) == shown

                async def told() -> Any:
                    there = await answers(late.url)
                    return await answers(rig.gateway.url) == there and there

                assert (await until(told))[f"/v1/book/{BTC}?levels=10"]["state"] == "live"
                await until(same)


@asynccontextmanager
async def another(rig: Rig, transport: str, held: Held) -> AsyncIterator[Follower]:
    """Follow at a gateway that has not been there before."""
    async with Market(rig.bus, rig.store, rig.clock) as market:
        if transport == "grpc":
            async with GrpcGateway(market, port=0) as there, grpc_stream(there.address, held) as follower:
                yield follower
        else:
            way = web_socket if transport == "web socket" else event_source
            async with HttpGateway(market, port=0) as made, way(made.url, held) as follower:
                yield follower


@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["web socket", "event source", "grpc"])
async def test_a_client_of_a_gateway_that_died_goes_on_at_another(tmp_path: Path, transport: str) -> None:
    async with running(tmp_path) as rig:
        publisher = Publisher(rig, random.Random(seed()))
        await publisher.some(10)
        held = Held(CHANNELS)
        for _ in range(3):
            async with another(rig, transport, held) as follower:
                await follower.count(3)
                await publisher.some(25)
                await follower.until(lambda held: held.begun)
            await publisher.some(10)
        last, truth = (await rig.store.head(BTC)).seq, await settled(rig)
        async with another(rig, transport, held) as follower:
            await follower.until(lambda held: whole(held, last) and since_first(held, truth))
        seqs = [row["seq"] for row in held.trades[TRADES]]
        assert seqs == list(range(seqs[0], last + 1)), "no trade missed, none twice"
