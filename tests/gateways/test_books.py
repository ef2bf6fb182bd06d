"""Books, quotes and health over real sockets: snapshots, deltas, slow readers, hand-over, REST."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tapewick.book_keeper import keep_books
from tapewick.errors import NotFound
from tapewick.model import BookUpdate, Gap, Health, Quote, Wanted
from tapewick.outbox import Limits
from tapewick.timeframe import SECOND
from tests.booking import Run, Truth, quote
from tests.gateways.rig import BTC, ETH, T0, Peer, Rig, running

BOOK, TOP, BBO = f"book@{BTC}", f"book_top@{BTC}", f"bbo@{BTC}"
TRUTH = Truth(seed=11, updates=400)


def tell(rig: Rig, *updates: BookUpdate | Quote) -> None:
    for update in updates:
        assert rig.bus.offer("books", update)


async def reached(rig: Rig, last_id: int, state: str = "live") -> None:
    """Wait until the market's book stands there."""
    for _ in range(100_000):
        view, _ = rig.market.books_of(BTC)
        if (view.last_id, view.state) == (last_id, state):
            return
        await asyncio.sleep(0)
    raise AssertionError(f"the book stays {view.state} at {view.last_id}")


def texts(levels: list[tuple[int, int]]) -> list[list[str]]:
    def decimal(mantissa: int, scale: int) -> str:
        return f"{mantissa / 10**scale:.{scale}f}".rstrip("0").rstrip(".")

    return [[decimal(price, 2), decimal(size, 3)] for price, size in levels]


class Ladder:
    """A client's book by the published rule: apply iff the run is mine and ``prev_seq`` is my ``seq``."""

    def __init__(self) -> None:
        self.run, self.seq, self.state, self.last_id = "", 0, "", 0
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}
        self.snapshots = self.deltas = 0

    def take(self, frame: dict[str, Any]) -> None:
        for row in frame["data"]:
            self.state = row["state"]
            if frame["type"] == "snapshot":
                self.snapshots += 1
                self.bids, self.asks = dict(row["bids"]), dict(row["asks"])
            elif frame.get("kind") == "delta":
                assert self.run == row["source_run"] and row["prev_seq"] == self.seq, "the chain holds"
                self.deltas += 1
                for side, changes in ((self.bids, row["b"]), (self.asks, row["a"])):
                    for price, size in changes:
                        if size == "0":
                            side.pop(price, None)
                        else:
                            side[price] = size
            else:
                continue
            self.run, self.seq, self.last_id = row["source_run"], row["seq"], row["last_update_id"]

    def shown(self) -> tuple[list[list[str]], list[list[str]]]:
        bids = sorted(([p, q] for p, q in self.bids.items()), key=lambda level: -float(level[0]))
        return bids, sorted(([p, q] for p, q in self.asks.items()), key=lambda level: float(level[0]))


def ladder(c: Peer, ch: str = BOOK, truth: Truth = TRUTH, levels: int = 5) -> Ladder:
    """Replay a client's frames, comparing with the truth after each."""
    made = Ladder()
    for frame in c.frames:
        if frame.get("ch") == ch and "data" in frame:
            made.take(frame)
            if made.run:
                bids, asks = truth.top(made.last_id, levels)
                assert made.shown() == (texts(bids), texts(asks))
    return made


async def test_a_client_that_applies_every_delta_holds_the_best_levels(rig: Rig) -> None:
    run = Run(TRUTH, "a")
    tell(rig, run.whole())
    await reached(rig, 0)
    async with rig.ws() as c, rig.ws() as late:
        c.subscribe({"ch": BOOK, "levels": 5})
        (told,) = await c.got("subscribed")
        assert told["channels"] == [{"ch": BOOK, "recovered": False, "levels": 5}]
        (first,) = await c.got("snapshot")
        row = first["data"][0]
        assert row["state"] == "live" and row["source_run"] == "a" and row["last_update_id"] == 0
        assert len(row["bids"]) == len(row["asks"]) == 5 and row["ts_event"] == T0 // 10**6
        for n in range(1, 101):
            tell(rig, run.step())
            if n % 20 == 0:
                tell(rig, run.whole())
            if n == 50:
                late.subscribe({"ch": BOOK, "levels": 5})
                await late.got("snapshot")
            if n % 7 == 0:
                await asyncio.sleep(0)
        await reached(rig, 100)
        bids, asks = TRUTH.top(100, 5)
        for one in (c, late):
            await one.until(lambda one: ladder(one).shown() == (texts(bids), texts(asks)))
            made = ladder(one)
            assert made.snapshots == 1 and made.deltas > 5
        assert c.frames[-1]["data"] == late.frames[-1]["data"], "one encoding serves both"
        delta = c.of("update", kind="delta")[0]["data"][0]
        assert delta["state"] == "live" and delta["first_update_id"] <= delta["last_update_id"]


async def test_depths_are_channels_of_their_own_and_a_wrong_one_is_refused(rig: Rig) -> None:
    tell(rig, Run(TRUTH, "a").whole())
    await reached(rig, 0)
    async with rig.ws() as five, rig.ws() as twenty:
        five.subscribe({"ch": BOOK, "levels": 5})
        twenty.subscribe({"ch": BOOK})
        (a,), (b,) = await five.got("snapshot"), await twenty.got("snapshot")
        assert len(a["data"][0]["bids"]) == 5 and len(b["data"][0]["bids"]) == 8
        five.subscribe({"ch": BOOK, "levels": 7}, id=2)
        (error,) = await five.got("error", id=2)
        assert "levels" in error["msg"]
        options = [
            {"ch": BBO, "levels": 5}, {"ch": BOOK, "since": 4}, {"ch": TOP, "snapshot": 3},
            {"ch": f"candle@{BTC}@1m", "backfill": "skip"}, {"ch": f"trade@{BTC}", "levels": 5},
        ]  # fmt: skip
        five.subscribe(*options, id=3)
        (told,) = await five.got("subscribed", id=3)
        assert [one["code"] for one in told["errors"]] == [4400] * 5
        assert ["levels", "since", "snapshot", "backfill", "levels"] == [
            one["msg"].partition(" no option ")[2].partition(";")[0] for one in told["errors"]
        ]
        five.send({"op": "subscribe", "id": 4, "channels": [{"ch": BOOK, "depth": 5}]})
        assert "depth" in (await five.got("error", id=4))[0]["msg"], "an unknown field is refused"


async def test_a_stale_book_says_so_sends_no_deltas_and_begins_again_with_a_snapshot(rig: Rig) -> None:
    run = Run(TRUTH, "a")
    tell(rig, run.whole())
    await reached(rig, 0)
    async with rig.ws() as c:
        c.subscribe({"ch": BOOK, "levels": 5}, {"ch": TOP, "levels": 5})
        await c.got("snapshot", 2)
        tell(rig, run.stale("update ids jumped"), run.step(), run.step())
        (told,) = await c.got("update", kind="state")
        assert told["data"][0]["state"] == "stale" and told["data"][0]["detail"] == "update ids jumped"
        (top,) = await c.got("update", ch=TOP)
        assert top["data"][0]["state"] == "stale" and top["data"][0]["detail"]
        tell(rig, run.whole())
        await c.got("snapshot", 2, ch=BOOK)
        assert not c.of("update", kind="delta")
        made = ladder(c)
        assert made.state == "live" and made.last_id == 2 and made.snapshots == 2


async def test_a_subscriber_before_the_first_book_is_told_and_then_served(rig: Rig) -> None:
    async with rig.ws() as c:
        c.subscribe(BOOK, TOP, BBO)
        snapshots = {f["ch"]: f["data"] for f in await c.got("snapshot", 3)}
        assert snapshots[BOOK][0]["state"] == snapshots[TOP][0]["state"] == "syncing"
        assert "no order book" in snapshots[BOOK][0]["detail"] and snapshots[BBO] == []
        tell(rig, Run(TRUTH, "a").whole())
        await c.got("snapshot", 2, ch=BOOK)
        (top,), (best,) = await c.got("update", ch=TOP), await c.got("update", ch=BBO)
        assert top["data"][0]["bids"] == texts(TRUTH.top(0, 20)[0])
        assert best["data"][0]["bid"] == "100" and best["data"][0]["ask"] == "100.1"


def narrow(url: Any) -> socket.socket:
    """A connection that holds little of what its peer sends: whoever stops reading is noticed soon."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((url.host, url.port))
    made.setblocking(False)
    return made


async def test_a_slow_reader_of_a_book_gets_it_whole_once_it_has_drained(tmp_path: Path) -> None:
    truth = Truth(seed=5, updates=20_000)
    run = Run(truth, "a")
    limits = Limits(queue_bytes=60_000, slow_s=0.2)
    async with running(tmp_path, limits=limits) as rig, rig.ws(socket_factory=narrow) as c:
        tell(rig, run.whole())
        await reached(rig, 0)
        c.subscribe({"ch": BOOK, "levels": 20})
        await c.got("snapshot")
        assert c.transport is not None
        c.transport.underlying_transport.pause_reading()  # type: ignore[attr-defined]
        (outbox,) = rig.gateway.connections
        async with asyncio.timeout(60):
            while not outbox.lagging:
                assert run.last_id < 20_000, "the sockets of this machine hold everything"
                tell(rig, run.step())
                await reached(rig, run.last_id)
                assert outbox.queued < 200_000
        c.transport.underlying_transport.resume_reading()  # type: ignore[attr-defined]
        await c.got("snapshot", 2)
        assert c.closed is None, "it is not given up"
        tell(rig, run.step())
        bids, asks = truth.top(run.last_id, 20)
        await c.until(lambda c: ladder(c, truth=truth, levels=20).shown() == (texts(bids), texts(asks)))


async def test_two_collectors_one_killed_readers_keep_one_consistent_book(rig: Rig) -> None:
    a, b = Run(TRUTH, "a"), Run(TRUTH, "b", start=3)
    tell(rig, a.whole(), b.whole())
    await reached(rig, 0)
    async with rig.ws() as c:
        c.subscribe({"ch": BOOK, "levels": 5})
        await c.got("snapshot")
        for n in range(30):
            tell(rig, a.step(), b.step())
            if n % 10 == 0:
                tell(rig, a.whole(), b.whole())
        await reached(rig, 30)
        await c.until(lambda c: ladder(c).last_id > 20)
        rig.clock.advance(11)  # a is dead
        await c.got("update", kind="state")
        assert c.of("update", kind="state")[0]["data"][0]["state"] == "stale"
        tell(rig, b.step(), b.whole(), b.step())
        await reached(rig, b.last_id)
        bids, asks = TRUTH.top(b.last_id, 5)
        await c.until(lambda c: ladder(c).shown() == (texts(bids), texts(asks)))
        made = ladder(c)
        assert made.run == "b" and made.snapshots == 2
        ids = [f["data"][0]["last_update_id"] for f in c.frames if f.get("ch") == BOOK and f.get("kind") != "state"]
        assert ids == sorted(ids)


async def test_best_bid_and_ask_come_from_the_venue_else_from_the_book(rig: Rig) -> None:
    run = Run(TRUTH, "a")
    async with rig.ws() as c:
        c.subscribe(BBO)
        await c.got("snapshot")
        tell(rig, quote(5, bid=9_985, bid_size=1_500))
        (told,) = await c.got("update", ch=BBO)
        assert told["data"] == [
            {
                "instrument": BTC, "update_id": 5, "bid": "99.85", "bid_size": "1.5", "ask": "100.2",
                "ask_size": "0.002", "ts_event": None, "ts_recv": T0 // 10**6,
            }
        ]  # fmt: skip
        run.last_id = 7
        tell(rig, run.whole())
        await c.until(lambda c: c.of("update", ch=BBO)[-1]["data"][0]["update_id"] == 7)
        tell(rig, quote(9, bid=9_000))
        await c.until(lambda c: c.of("update", ch=BBO)[-1]["data"][0]["bid"] == "90")


async def test_the_live_book_over_rest(rig: Rig) -> None:
    run = Run(TRUTH, "a")
    refused = await rig.get(f"/v1/book/{BTC}", 404)
    assert "no order book" in refused["detail"] and "collect" in refused["detail"]
    assert "NOPE" in (await rig.get("/v1/book/sim:NOPE", 404))["detail"]
    tell(rig, run.whole(), run.step())
    await reached(rig, 1)
    rig.clock.set(T0 + 86_400 * SECOND + 250_000_000)
    tell(rig, run.whole())
    book = await rig.get(f"/v1/book/{BTC}?levels=3")
    bids, asks = TRUTH.top(1, 3)
    assert book == {
        "instrument": BTC, "state": "live", "source_run": "a", "seq": 2, "first_update_id": 1, "last_update_id": 1,
        "ts_event": T0 // 10**6 + 100, "data_age_ms": 86_400_150, "bids": texts(bids), "asks": texts(asks),
    }  # fmt: skip
    assert len((await rig.get(f"/v1/book/{BTC}"))["bids"]) == len(TRUTH.at[1][0])
    tell(rig, run.stale("update ids jumped from 1 to 4"))
    await reached(rig, 1, "stale")
    book = await rig.get("/v1/book/sim%3ABTCUSDT?levels=1")
    assert book["state"] == "stale" and "jumped" in book["detail"] and book["last_update_id"] == 1
    for query, field in (("levels=0", "levels"), ("levels=5001", "levels"), ("at=never", "at"), ("depth=5", "depth")):
        assert (await rig.get(f"/v1/book/{BTC}?{query}", 400))["field"] == field


async def test_a_silent_book_is_never_served_as_live(rig: Rig) -> None:
    tell(rig, Run(TRUTH, "a").whole())
    await reached(rig, 0)
    rig.clock.advance(10.5)
    book = await rig.get(f"/v1/book/{BTC}")
    assert book["state"] == "stale" and "silent" in book["detail"]


async def test_books_are_stored_at_intervals_and_found_by_time(rig: Rig) -> None:
    run, times = Run(TRUTH, "a"), []
    keeper = asyncio.create_task(keep_books(rig.bus, rig.store, rig.clock, interval=60, levels=4))
    await asyncio.sleep(0)
    unknown = Run(Truth(1, 1, "sim:NOPE"), "a").whole()

    async def stored(last_id: int) -> None:
        async with asyncio.timeout(20):
            while (found := await rig.store.book_at(BTC, 2**62)) is None or found.last_id != last_id:
                rig.clock.advance(61)
                await asyncio.sleep(0.001)

    for _ in range(2):
        tell(rig, run.whole(), unknown, run.step(), run.whole(), run.step())
        await reached(rig, run.last_id)
        await stored(run.last_id - 1)  # the newest whole one
        times.append((run.last_id - 1, T0 + (run.last_id - 1) * 100_000_000))
    for last_id, time in times:
        book = await rig.get(f"/v1/book/{BTC}?at={time // 10**6}&levels=2")
        bids, asks = TRUTH.top(last_id, 2)
        assert book["state"] == "stored" and book["last_update_id"] == book["first_update_id"] == last_id
        assert (book["bids"], book["asks"]) == (texts(bids), texts(asks))
    assert len((await rig.get(f"/v1/book/{BTC}?at={times[0][1] // 10**6}"))["bids"]) == 4, "to the stored depth"
    early = await rig.get(f"/v1/book/{BTC}?at=1", 404)
    assert early["field"] == "at" and "store_interval_s" in early["detail"]
    keeper.cancel()
    await asyncio.wait([keeper])


async def test_watching_a_book_and_quotes_from_within(rig: Rig) -> None:
    a, b = Run(TRUTH, "a"), Run(TRUTH, "b", start=2)
    with pytest.raises(NotFound):
        await rig.market.book(BTC)
    with pytest.raises(NotFound):
        await rig.market.quote(BTC)
    async with aclosing(rig.market.watch_book(BTC)) as books, aclosing(rig.market.watch_quotes(BTC)) as quotes:
        assert (await anext(books)).state == "syncing"
        tell(rig, a.whole(), a.step())
        first, second = await anext(books), await anext(books)
        assert first.snapshot and first.run == "a" and not second.snapshot and second.prev_seq == first.seq
        assert (await anext(quotes)).update_id == 1
        tell(rig, quote(9))
        assert (await anext(quotes)) == quote(9) == await rig.market.quote(BTC)
        tell(rig, a.stale("gone"))
        assert ((told := await anext(books)).state, told.detail) == ("stale", "gone")
        tell(rig, b.whole())
        again = await anext(books)
        assert again.snapshot and again.run == "b" and again.last_id == 2
        view = await rig.market.book(BTC)
        assert view.live and view.run == "b" and view.bbo is not None


async def test_a_watcher_far_behind_gets_the_whole_book_again(rig: Rig) -> None:
    truth = Truth(seed=2, updates=3000)
    run = Run(truth, "a")
    tell(rig, run.whole())
    await reached(rig, 0)
    async with aclosing(rig.market.watch_book(BTC)) as books:
        assert (await anext(books)).snapshot
        for _ in range(3000):
            tell(rig, run.step())
        await reached(rig, 3000)
        held: dict[int, int] = {}
        async for update in books:
            if update.snapshot:
                held = {}
            held.update(zip(update.bid_price.tolist(), update.bid_size.tolist(), strict=True))
            if update.last_id == 3000:
                break
        assert {price: size for price, size in held.items() if size} == truth.at[3000][0]


def gap(left: int, state: str = "open", **fields: Any) -> Gap:
    times = {"left_ts": T0, "right_ts": T0 + SECOND}
    return Gap(**{"instrument": BTC, "left_id": left, "right_id": left + 10, "state": state, **times, **fields})


async def test_health_tells_streams_books_and_gaps(rig: Rig) -> None:
    rig.bus.offer("health", Health(source="sim", state="connected", ts=T0))
    rig.bus.offer("health", Health(source="chainlink", state="stale", ts=T0, detail="no round", instrument=ETH))
    tell(rig, Run(TRUTH, "a").whole())
    await reached(rig, 0)
    async with rig.ws() as all_of_it, rig.ws() as btc:
        all_of_it.subscribe("health")
        btc.subscribe(f"health@{BTC}")
        (everything,), (own,) = await all_of_it.got("snapshot"), await btc.got("snapshot")
        assert everything["ch"] == "health" and {row["kind"] for row in everything["data"]} == {
            "stream_health",
            "book_state",
        }
        assert [row["source"] for row in own["data"] if row["kind"] == "stream_health"] == ["sim"]
        assert [row["state"] for row in own["data"] if row["kind"] == "book_state"] == ["live"]
        rig.bus.offer("health", Health(source="sim", state="connected", ts=T0 + 1))  # the same again: no news
        rig.bus.offer("health", Health(source="sim", state="disconnected", ts=T0 + 10**6, detail="reset"))
        (told,) = await btc.got("event", kind="stream_health")
        assert told["data"] == [
            {"kind": "stream_health", "source": "sim", "instrument": None, "state": "disconnected", "detail": "reset",
             "ts": T0 // 10**6 + 1}
        ]  # fmt: skip
        rig.clock.advance(11)
        (told,) = await btc.got("event", kind="book_state")
        assert told["data"][0]["state"] == "stale"
        await rig.tell(1, 10)
        await rig.tell(21, 10)  # 11 to 20 are missing
        (opened,) = await btc.got("event", kind="gap_opened")
        assert opened["data"][0]["left_id"] == 10 and opened["data"][0]["right_id"] == 21
        await rig.tell(11, 10, late=True)
        await closes(rig, btc)
        (closed,) = btc.of("event", kind="gap_closed")
        assert closed["data"][0]["state"] == "closed" and closed["data"][0]["left_id"] == 10
        await all_of_it.got("event", kind="gap_closed")
        rig.bus.offer("health", Health(source="chainlink", state="connected", ts=T0, instrument=ETH))
        await all_of_it.until(lambda c: [f for f in c.of("event") if f["data"][0].get("instrument") == ETH])
        assert not [f for f in btc.frames if "data" in f and any(r.get("instrument") == ETH for r in f["data"])]


async def closes(rig: Rig, c: Peer) -> None:
    """Let the engine's clock go on until the closing is told."""
    async with asyncio.timeout(20):
        while not c.of("event", kind="gap_closed"):
            rig.clock.advance(1)
            await asyncio.sleep(0.02)


async def test_a_late_subscriber_of_health_sees_open_gaps(rig: Rig) -> None:
    await rig.tell(1, 10)
    await rig.tell(31, 10)
    async with rig.ws() as c:
        c.subscribe("health@*")
        (told,) = await c.got("snapshot")
        assert [(row["left_id"], row["right_id"]) for row in told["data"] if row["kind"] == "gap_opened"] == [(10, 31)]
        rig.bus.offer("wanted", Wanted(instrument=BTC, ranges=((11, 30),)))  # nothing changed: nothing told
        await rig.tell(11, 20, late=True)
        await closes(rig, c)
        assert not c.of("event", kind="gap_opened")
