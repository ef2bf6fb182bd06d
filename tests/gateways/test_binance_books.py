"""Books for Binance clients: whatever happens upstream, differences lead from one state to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.gateways._binance_books import Chain, Side
from tapewick.gateways._binance_session import Rules
from tapewick.gateways.binance import Options
from tapewick.model import BookState, BookUpdate, Quote
from tests.gateways.rig import BTC, T0, Peer, Rig, running

FREE = Options(weight_per_min=10**6, rules=Rules(messages_per_s=1000))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "data", binance=FREE) as made:
        yield made


class Upstream:
    """A collector's run: a book that changes one level per step, with the venue's update ids."""

    def __init__(self, run: str, last_id: int) -> None:
        self.run, self.last_id, self.seq = run, last_id, 0
        self.bids: Side = {9_900 - k: 10 + k for k in range(30)}
        self.asks: Side = {10_100 + k: 20 + k for k in range(30)}

    def whole(self) -> BookUpdate:
        self.seq += 1
        return self._update(self.bids, self.asks, self.last_id, snapshot=True)

    def change(self, bids: Side, asks: Side, ids: int = 3) -> BookUpdate:
        first = self.last_id + 1
        self.last_id += ids
        self.seq += 1
        for side, news in ((self.bids, bids), (self.asks, asks)):
            side.update(news)
            for price in [price for price, size in side.items() if not size]:
                del side[price]
        return self._update(bids, asks, first, snapshot=False)

    def state(self, state: BookState) -> BookUpdate:
        self.seq += 1
        return self._update({}, {}, self.last_id, snapshot=False, state=state)

    def _update(self, bids: Side, asks: Side, first: int, *, snapshot: bool, state: BookState = "live") -> BookUpdate:
        def column(values: Any) -> Any:
            return np.array(list(values), np.int64)

        bids, asks = dict(sorted(bids.items(), reverse=True)), dict(sorted(asks.items()))
        return BookUpdate(
            instrument=BTC, run=self.run, prev_seq=self.seq - 1, seq=self.seq, state=state, snapshot=snapshot,
            first_id=first, last_id=self.last_id, ts_event=T0, ts_recv=T0,
            bid_price=column(bids), bid_size=column(bids.values()), ask_price=column(asks),
            ask_size=column(asks.values()), price_scale=2, size_scale=3,
        )  # fmt: skip


def texts(side: Side, *, falling: bool) -> list[list[str]]:
    return [[f"{p / 100:.2f}", f"{q / 1000:.3f}"] for p, q in sorted(side.items(), reverse=falling)]


async def depth(rig: Rig, limit: int = 100, status: int = 200) -> Any:
    return await rig.get(f"/api/v3/depth?symbol=BTCUSDT&limit={limit}", status)


async def until_depth(rig: Rig, last_id: int) -> Any:
    """The book over REST once it stands at ``last_id``."""
    async with asyncio.timeout(20):
        while True:
            async with rig.http as client:
                answer = await client.get("/api/v3/depth?symbol=BTCUSDT&limit=5000")
            if answer.status_code == 200 and answer.json()["lastUpdateId"] == last_id:
                return answer.json()
            await asyncio.sleep(0.01)


def differences(peer: Peer) -> list[dict[str, Any]]:
    return [frame for frame in peer.frames if frame.get("e") == "depthUpdate"]


async def subscribed(peer: Peer) -> None:
    peer.send({"method": "LIST_SUBSCRIPTIONS", "id": "here"})
    await peer.until(lambda p: [f for f in p.frames if f.get("id") == "here"])


class Client:
    """The venue's procedure for a local book, to the letter."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.id = snapshot["lastUpdateId"]
        self.sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}

    def take(self, event: dict[str, Any]) -> None:
        if event["u"] <= self.id:
            return
        assert event["U"] <= self.id + 1, f"a silent jump from {self.id} to {event['U']}"
        for name, side in self.sides.items():
            for price, size in event[name]:
                if float(size):
                    side[price] = size
                else:
                    side.pop(price, None)
        self.id = event["u"]


# -- REST ------------------------------------------------------------------------------------------


async def test_depth_over_rest(rig: Rig) -> None:
    up = Upstream("r1", 1000)
    await rig.bus.publish("books", up.whole())
    told = await until_depth(rig, 1000)
    assert list(told) == ["lastUpdateId", "bids", "asks"]
    assert told["bids"] == texts(up.bids, falling=True) and told["asks"] == texts(up.asks, falling=False)
    assert (await depth(rig, 5))["bids"] == told["bids"][:5]


async def test_a_book_that_is_not_live_is_never_served(rig: Rig) -> None:
    refused = await depth(rig, status=503)
    assert refused["code"] == -1008
    up = Upstream("r1", 1000)
    await rig.bus.publish("books", up.whole())
    await until_depth(rig, 1000)
    await rig.bus.publish("books", up.state("stale"))
    async with asyncio.timeout(20):
        while True:
            async with rig.http as client:
                answer = await client.get("/api/v3/depth?symbol=BTCUSDT")
            if answer.status_code == 503:
                break
            await asyncio.sleep(0.01)
    assert answer.json()["code"] == -1008 and "retry-after" in answer.headers


async def test_best_prices_over_rest_and_sockets(rig: Rig) -> None:
    quote = Quote(
        instrument=BTC, update_id=7, bid=9_999, bid_size=5, ask=10_001, ask_size=1_500, ts_event=T0, ts_recv=T0,
        price_scale=2, size_scale=3,
    )  # fmt: skip
    async with rig.ws("/ws/btcusdt@bookTicker") as peer:
        await subscribed(peer)
        await rig.bus.publish("books", quote)
        await peer.until(lambda p: [f for f in p.frames if "u" in f])
        told = next(f for f in peer.frames if "u" in f)
    assert told == {"u": 7, "s": "BTCUSDT", "b": "99.99", "B": "0.005", "a": "100.01", "A": "1.500"}
    assert list(told) == ["u", "s", "b", "B", "a", "A"]
    assert await rig.get("/api/v3/ticker/bookTicker?symbol=BTCUSDT") == {
        "symbol": "BTCUSDT", "bidPrice": "99.99", "bidQty": "0.005", "askPrice": "100.01", "askQty": "1.500",
    }  # fmt: skip


# -- differences -----------------------------------------------------------------------------------


async def test_differences_keep_a_clients_book_equal_through_a_change_of_run(rig: Rig) -> None:
    up = Upstream("r1", 1000)
    await rig.bus.publish("books", up.whole())
    await until_depth(rig, 1000)
    async with rig.ws("/ws/btcusdt@depth@100ms") as peer:
        await subscribed(peer)
        client = Client(await until_depth(rig, 1000))
        for k in range(10):
            await rig.bus.publish("books", up.change({9_900: 100 + k, 9_871 - k: 5}, {10_100 + k: 0}))
        await peer.until(lambda p: differences(p) and differences(p)[-1]["u"] == up.last_id)
        await rig.bus.publish("books", up.state("stale"))
        other = Upstream("r2", up.last_id + 500)
        other.bids = {9_950: 7, 9_900: 1}
        await rig.bus.publish("books", other.whole())
        await peer.until(lambda p: differences(p)[-1]["u"] == other.last_id)
        await rig.bus.publish("books", other.change({9_950: 0}, {}))
        await peer.until(lambda p: differences(p)[-1]["u"] == other.last_id)
        truth = await until_depth(rig, other.last_id)
    found = differences(peer)
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in zip(found, found[1:], strict=False))
    assert list(found[0]) == ["e", "E", "s", "U", "u", "b", "a"] and found[0]["U"] == 1001
    for event in found:
        client.take(event)
    assert client.sides == {"b": dict(truth["bids"]), "a": dict(truth["asks"])}
    assert client.sides["b"] == {"99.00": "0.001"}


async def test_slow_differences_hold_the_last_size_of_each_level(rig: Rig) -> None:
    up = Upstream("r1", 1000)
    await rig.bus.publish("books", up.whole())
    await until_depth(rig, 1000)
    async with rig.ws("/stream?streams=btcusdt@depth/btcusdt@depth@100ms") as peer:
        await subscribed(peer)
        for k in range(40):
            await rig.bus.publish("books", up.change({9_900: 100 + k}, {}))

        def of(p: Peer, name: str) -> list[dict[str, Any]]:
            return [f["data"] for f in p.frames if f.get("stream") == name]

        for name in ("btcusdt@depth", "btcusdt@depth@100ms"):
            await peer.until(lambda p, name=name: of(p, name) and of(p, name)[-1]["u"] == up.last_id)  # type: ignore[misc]
            assert of(peer, name)[-1]["b"] == [["99.00", "0.139"]]
            assert of(peer, name)[0]["U"] == 1001
        assert len(of(peer, "btcusdt@depth")) < 40


async def test_a_snapshot_is_never_ahead_of_the_fast_differences(rig: Rig) -> None:
    up = Upstream("r1", 1000)
    await rig.bus.publish("books", up.whole())
    await until_depth(rig, 1000)
    async with rig.ws("/ws/btcusdt@depth@100ms") as peer:
        await subscribed(peer)
        for k in range(30):
            await rig.bus.publish("books", up.change({9_900: 100 + k}, {10_100 + k: 0}))
            told = await depth(rig, 5000)
            id = told["lastUpdateId"]
            await peer.until(lambda p, id=id: id == 1000 or id in [event["u"] for event in differences(p)])  # type: ignore[misc]
        await until_depth(rig, up.last_id)
        chained = differences(peer)
        assert all(later["U"] == earlier["u"] + 1 for earlier, later in zip(chained, chained[1:], strict=False))


async def test_another_id_space_closes_the_socket_instead_of_jumping(rig: Rig) -> None:
    up = Upstream("r1", 1_000_000)
    await rig.bus.publish("books", up.whole())
    await until_depth(rig, up.last_id)
    async with rig.ws("/ws/btcusdt@depth@100ms") as peer, rig.ws("/ws/btcusdt@trade") as other:
        await subscribed(peer)
        await subscribed(other)
        await rig.bus.publish("books", up.change({9_900: 1}, {}))
        await peer.until(differences)
        chain = rig.gateway.binance.streams.chains[BTC]  # type: ignore[union-attr]
        chain.behind = 0.0
        fresh = Upstream("r2", 5)
        fresh.bids = {9_000: 1}
        chain.take(fresh.whole())
        await asyncio.sleep(0)
        chain.take(fresh.change({9_001: 1}, {}))
        await peer.until(lambda p: p.closed)
        assert peer.closed == (1012, "the order book starts anew") and other.closed is None
        assert all(event["u"] > 1_000_000 for event in differences(peer))


async def test_partial_books(rig: Rig) -> None:
    up = Upstream("r1", 1000)
    await rig.bus.publish("books", up.whole())
    await until_depth(rig, 1000)
    async with rig.ws("/stream?streams=btcusdt@depth5/btcusdt@depth10@100ms/btcusdt@depth20") as peer:
        await subscribed(peer)
        await rig.bus.publish("books", up.change({9_901: 4}, {}))

        def newest(p: Peer) -> dict[str, Any]:
            return {f["stream"].partition("@")[2]: f["data"] for f in p.frames if "stream" in f}

        await peer.until(lambda p: [f["lastUpdateId"] for f in newest(p).values()] == [up.last_id] * 3)
        for name, count in (("depth5", 5), ("depth10@100ms", 10), ("depth20", 20)):
            body = newest(peer)[name]
            assert list(body) == ["lastUpdateId", "bids", "asks"], "no kind, no symbol, no time"
            assert body["bids"] == texts(up.bids, falling=True)[:count]
            assert body["asks"] == texts(up.asks, falling=False)[:count]


# -- the chain, for any history --------------------------------------------------------------------

sizes = st.dictionaries(st.integers(1, 6), st.integers(0, 3), max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), sizes, sizes),
        st.tuples(st.just("restart"), sizes, st.integers(-4, 6)),
        st.tuples(st.just("whole")),
        st.tuples(st.just("stale")),
    ),
    max_size=30,
)


class Witness:
    """Applies every step and knows what the chain printed."""

    def __init__(self, chain: Chain) -> None:
        self.chain, self.sides, self.last, self.breaks = chain, None, 0, 0

    sides: tuple[Side, Side] | None

    def stepped(self, bids: Side, asks: Side, update: BookUpdate) -> None:
        assert self.sides is not None
        assert update.last_id > self.last, "ids rise"
        for side, news in zip(self.sides, (bids, asks), strict=True):
            for price, size in news.items():
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
        self.last = update.last_id

    def hurry(self) -> None:
        pass

    def broken(self) -> None:
        self.breaks += 1
        self.sides = None


@given(steps)
async def test_after_every_step_clients_hold_the_upstream_book_or_are_told(script: list[tuple[Any, ...]]) -> None:
    """Whenever ids have risen past what was sent, the sum of all differences is the upstream book."""
    up = Upstream("r0", 100)
    up.bids, up.asks = {}, {}
    chain = Chain(None, BTC)  # type: ignore[arg-type]
    witness = Witness(chain)
    chain.readers.add(witness)
    chain.take(up.whole())
    witness.sides, witness.last = ({}, {}), 100
    for number, (kind, *rest) in enumerate(script):
        if kind == "change":
            chain.take(up.change(dict(rest[0]), dict(rest[1])))
        elif kind == "whole":
            chain.take(up.whole())
        elif kind == "stale":
            chain.take(up.state("stale"))
        else:
            chain.take(up.state("stale"))
            up = Upstream(f"r{number + 1}", up.last_id + rest[1])
            up.bids, up.asks = {price: size for price, size in rest[0].items() if size}, {}
            chain.take(up.whole())
        assert witness.breaks == 0, "ids lag for a moment only"
        assert chain.last == witness.last >= 100
        if up.last_id >= witness.last and not chain.lagging:
            assert witness.sides == (up.bids, up.asks)
