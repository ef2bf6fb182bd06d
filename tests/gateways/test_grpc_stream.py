"""The gRPC stream over real sockets: seams, resume, open candles, slow readers, limits, shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tapewick.model import BookUpdate, State
from tapewick.outbox import Limits
from tapewick.timeframe import SECOND
from tapewick.v1 import service_pb2 as pb
from tests.gateways.grpc_rig import Client, GrpcRig, rows_of, serving, subscribed
from tests.gateways.rig import BTC, ETH, STEP, T0

TRADES = f"trade@{BTC}"
CANDLES = f"candle@{BTC}@1m"
VALUES = ("open", "high", "low", "close", "volume_lo", "trades", "state", "rev", "complete", "last_seq")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[GrpcRig]:
    async with serving(tmp_path / "data", ids=(BTC, ETH)) as made:
        yield made


def offset(position: str) -> int:
    return int(position.rpartition(":")[2])


def reduced(batches: list[Any]) -> dict[int, tuple[int, ...]]:
    """The newest version of each settled candle a client holds: the highest pos wins."""
    held: dict[int, tuple[int, ...]] = {}
    for batch in batches:
        for row in batch.rows[batch.rows["state"] != State.OPEN]:
            key, value = int(row["open_time"]), (int(row["pos"]), *(int(row[name]) for name in VALUES))
            held[key] = max(held.get(key, value), value, key=lambda one: one[0])
    return held


def stored(rows: Any) -> dict[int, tuple[int, ...]]:
    return {
        int(row["open_time"]): (int(row["pos"]), *(int(row[name]) for name in VALUES))
        for row in rows
        if row["state"] != State.OPEN
    }


async def test_snapshot_then_live_as_columns_with_positions(rig: GrpcRig) -> None:
    await rig.tell(1, 700)
    async with rig.client() as c:
        await c.got("WELCOME")
        await c.subscribe({"channel": TRADES, "snapshot": 3}, {"channel": f"candle@{BTC}@1", "snapshot": 5}, id="a")
        (told,) = await c.got("SUBSCRIBED")
        epoch = told.channels[0].pos.split(":")[0]
        assert told.id == "a" and told.channels[0].pos == f"{epoch}:700" and not told.channels[0].recovered
        assert told.channels[1].channel == CANDLES, "the canonical spelling"
        await c.got("SNAPSHOT", 2)
        (trades,) = c.of("SNAPSHOT", TRADES)
        assert trades.pos == f"{epoch}:700" and rows_of(trades).seq.tolist() == [698, 699, 700]
        assert (trades.trades.price_scale, trades.trades.size_scale) == (2, 3)
        (candles,) = c.batches(CANDLES, "SNAPSHOT")
        assert candles.rows["trades"].tolist() == [599], "open candles come only where they are asked for"
        await rig.tell(701, 4)
        (event,) = await c.got("EVENT", channel=TRADES)
        assert (event.from_pos, event.pos) == (f"{epoch}:701", f"{epoch}:704")
        rows = rows_of(event)
        assert rows.trade_id.tolist() == [701, 702, 703, 704] and rows.epoch == epoch
        assert rows.ts_event.tolist() == [T0 + n * STEP for n in range(701, 705)]
        assert not c.of("UPDATE")


async def test_include_open_streams_the_open_candle(rig: GrpcRig) -> None:
    await rig.tell(1, 650)
    async with rig.client() as c, rig.client() as closed_only:
        await c.subscribe({"channel": CANDLES, "include_open": True})
        await closed_only.subscribe(CANDLES)
        await closed_only.got("SNAPSHOT")
        (first,) = (await c.got("SNAPSHOT"))[:1]
        assert rows_of(first).rows["state"].tolist() == [State.CLOSED, State.OPEN]
        await rig.tell(651, 9)
        newest = await c.until(lambda c: (u := c.batches(CANDLES, "UPDATE")) and u[-1].rows["trades"][-1] == 60 and u)
        assert newest[-1].provisional and newest[-1].rows["state"].tolist() == [State.OPEN]
        assert not any(frame.pos for frame in c.of("UPDATE")), "provisional: nothing to resume from"
        await rig.tell(660, 700, clock=T0 + 140 * SECOND)
        for client in (c, closed_only):
            await client.until(lambda c: any((b.rows["trades"] == 600).any() for b in c.batches(CANDLES, "EVENT")))
            assert {f.kind for f in client.of("EVENT", CANDLES)} == {"closed"}
        assert not closed_only.of("UPDATE")


async def test_no_hole_and_no_duplicate_at_the_seam(rig: GrpcRig) -> None:
    await rig.tell(1, 500)
    total = 2500

    async def publish() -> None:
        for start in range(501, total + 1, 20):
            await rig.tell(start, 20, clock=T0 + start * STEP)

    publisher = asyncio.create_task(publish())
    async with rig.client() as one, rig.client() as two, rig.client() as three:
        for c in (one, two, three):
            await c.subscribe({"channel": TRADES, "snapshot": 50}, {"channel": CANDLES, "snapshot": 1000})
            await c.got("EVENT")
        await publisher
        rows, _ = await rig.store.candles(BTC, 1)
        for c in (one, two, three):
            await c.until(lambda c: (seqs := c.seqs(TRADES)) and seqs[-1] == total)
            seqs = c.seqs(TRADES)
            assert seqs == list(range(seqs[0], total + 1))
            await c.until(lambda c: reduced(c.batches(CANDLES)) == stored(rows))


async def test_a_snapshot_without_open_candles_holds_as_many_closed_ones(rig: GrpcRig) -> None:
    await rig.tell(1, 3100, clock=T0 + 303 * SECOND)  # the last closed minutes wait for late trades: several are open
    stored, _ = await rig.store.candles(BTC, 1)
    closed = [int(row["open_time"]) for row in stored if row["state"] != State.OPEN]
    assert len(closed) > 3 and len(closed) < len(stored)
    async with rig.client() as c, rig.client() as every:
        await c.subscribe({"channel": CANDLES, "snapshot": 3})
        await every.subscribe({"channel": CANDLES, "snapshot": 3, "include_open": True})
        ((told,), (whole,)) = await c.got("SNAPSHOT"), await every.got("SNAPSHOT")
        assert rows_of(told).rows["open_time"].tolist() == closed[-3:]
        assert told.pos == whole.pos
        assert State.OPEN in rows_of(whole).rows["state"].tolist() and len(rows_of(whole).rows) == 3
        await c.subscribe({"channel": CANDLES, "snapshot": 1000}, id="2")
        told = (await c.got("SNAPSHOT", 2))[1]
        assert rows_of(told).rows["open_time"].tolist() == closed


@pytest.mark.parametrize(("since", "reason"), [("WRONG:5", "epoch"), ("{epoch}:9999", "future"), ("9999", "future")])
async def test_a_resume_that_cannot_be_exact_is_refused(rig: GrpcRig, since: str, reason: str) -> None:
    await rig.tell(1, 650)
    head = await rig.market.head(BTC)
    since = since.format(epoch=head.epoch)
    async with rig.client() as c:
        await c.subscribe({"channel": TRADES, "since": since}, {"channel": CANDLES, "since": since})
        (told,) = await c.got("SUBSCRIBED")
        assert [one.recovered for one in told.channels] == [False, False]
        await c.got("SNAPSHOT", 2)
        assert {gap.reason for gap in c.of("GAP")} == {reason} and len(c.of("GAP")) == 2
        assert c.of("GAP", TRADES)[0].to_pos == f"{head.epoch}:650"
        assert c.seqs(TRADES)[-1] == 650
    async with rig.client() as c:
        await c.subscribe({"channel": TRADES, "since": since, "strict": True})
        assert await c.until(lambda c: c.code) == grpc.StatusCode.OUT_OF_RANGE
        assert reason in c.details and not c.of("SNAPSHOT")


async def test_positions_that_are_none_and_unknown_channels_are_told(rig: GrpcRig) -> None:
    async with rig.client() as c:
        await c.subscribe(
            {"channel": TRADES, "since": "x:y"},
            "trade@sim:NOPE",
            "nonsense",
            {"channel": f"candle@{BTC}@7m"},
            {"channel": TRADES, "include_open": True},
            {"channel": TRADES, "snapshot": 10**9},
            {"channel": f"health@{BTC}", "snapshot": 5},
            {"channel": TRADES, "since_ts": -1},
            f"trade@{ETH}",
        )
        (told,) = await c.got("SUBSCRIBED")
        codes = [one.code for one in told.channels]
        assert sorted(codes) == [0, *[4400] * 7, 4404]
        assert all(one.message for one in told.channels if one.code)
        await c.call.write(pb.SubscribeRequest(id="p", ping=pb.Ping()))
        await c.call.write(pb.SubscribeRequest(id="l", list=pb.List()))
        assert (await c.got("PONG"))[0].id == "p"
        assert [one.channel for one in (await c.got("LIST"))[0].channels] == [f"trade@{ETH}"]
        gone = pb.Unsubscribe(channels=[f"trade@{ETH}", "trade@never"])
        await c.call.write(pb.SubscribeRequest(id="u", unsubscribe=gone))
        assert (await c.got("UNSUBSCRIBED"))[0].count == 1
        await c.call.write(pb.SubscribeRequest(id="e"))
        assert (await c.got("ERROR"))[0].code == "bad_request"


async def test_late_trades_are_marked_or_skipped(rig: GrpcRig) -> None:
    await rig.tell(1, 100)
    await rig.tell(151, 50)
    async with rig.client() as every, rig.client() as sparing:
        await every.subscribe({"channel": TRADES, "since": "150"})
        await sparing.subscribe({"channel": TRADES, "since": "150", "backfill": "BACKFILL_SKIP"})
        for c in (every, sparing):
            assert (await c.got("SUBSCRIBED"))[0].channels[0].recovered
        await rig.tell(101, 50, late=True)
        await rig.tell(201, 10)
        await every.until(lambda c: c.seqs(TRADES)[-1:] == [210])
        assert [f.late for f in every.of("EVENT")] == [True, False]
        await sparing.until(lambda c: c.seqs(TRADES)[-1:] == [210])
        (skip,) = sparing.of("SKIP")
        assert (offset(skip.from_pos), offset(skip.to_pos), skip.count) == (151, 200, 50)
        assert sparing.seqs(TRADES) == list(range(201, 211))


async def test_history_from_a_time_then_live(rig: GrpcRig) -> None:
    await rig.tell(1, 2500, clock=T0 + 260 * SECOND)
    async with rig.client() as c:
        await c.subscribe({"channel": TRADES, "since_ts": T0 + 100 * STEP}, {"channel": CANDLES, "since_ts": T0})
        await c.until(lambda c: c.seqs(TRADES)[-1:] == [2500])
        await rig.tell(2501, 10)
        await c.until(lambda c: c.seqs(TRADES)[-1:] == [2510])
        assert c.seqs(TRADES) == list(range(100, 2511))
        rows, _ = await rig.store.candles(BTC, 1)
        await c.until(lambda c: reduced(c.batches(CANDLES)) == stored(rows))


async def test_a_slow_reader_is_bounded_and_told_where_to_resume(tmp_path: Path) -> None:
    limits = Limits(queue_bytes=150_000, slow_s=0.2)
    async with serving(tmp_path / "data", limits=limits) as rig:
        await rig.tell(1, 10)
        async with (
            rig.client() as fast,
            rig.channel(**{"http2.lookahead_bytes": 65_536, "http2.bdp_probe": 0}) as thin,
            subscribed(thin, read=False) as slow,
        ):
            for c in (fast, slow):
                await c.subscribe({"channel": TRADES, "since": "10"})
            await fast.got("SUBSCRIBED")
            most, first = 0, 11
            while rig.gateway.calls > 1 and first < 100_000:
                await rig.tell(first, 500)
                first += 500
                most = max(most, *(sink.size for sink in rig.gateway.sinks))
                if first > 20_000:
                    await asyncio.sleep(0.01)
            assert rig.gateway.calls == 1, "the slow one is cut off"
            assert most <= limits.queue_bytes + 500 * 100
            await fast.until(lambda c: c.seqs(TRADES)[-1:] == [first - 1], 40)
            assert fast.seqs(TRADES) == list(range(11, first)), "and the fast one did not notice"
            slow.read()
            assert await slow.until(lambda c: c.code) == grpc.StatusCode.RESOURCE_EXHAUSTED
            told = pb.Positions.FromString(slow.trailers["tapewick-pos-bin"])
            seqs = slow.seqs(TRADES)
            assert [(one.channel, offset(one.pos)) for one in told.channels] == [(TRADES, seqs[-1])]
            async with rig.client() as again:
                await again.subscribe({"channel": TRADES, "since": told.channels[0].pos})
                await again.until(lambda c: c.seqs(TRADES)[-1:] == [first - 1])
                assert seqs + again.seqs(TRADES) == list(range(11, first))


async def test_open_candles_are_conflated_for_a_reader_that_pauses(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", limits=Limits(flush_s=0.001, notice_s=0.0)) as rig:
        await rig.tell(1, 10)
        async with (
            rig.channel(**{"http2.lookahead_bytes": 4096, "http2.bdp_probe": 0}) as thin,
            subscribed(thin, read=False) as c,
        ):
            await c.subscribe({"channel": CANDLES, "include_open": True}, {"channel": TRADES, "since": "10"})
            first = 11
            while not any(box.conflated for box in rig.gateway.connections) and first < 60_000:
                await rig.tell(first, 50)
                first += 50
            c.read()
            notice = (await c.got("NOTICE"))[0]
            assert notice.code == "conflated" and notice.channel == CANDLES and notice.count > 0
            await c.until(lambda c: c.seqs(TRADES)[-1:] == [first - 1])
            assert c.seqs(TRADES, "EVENT") == list(range(11, first)), "trades are never conflated"


async def test_books_and_quotes_travel_as_columns(rig: GrpcRig) -> None:
    def update(seq: int, *, snapshot: bool = False, **sides: Any) -> BookUpdate:
        none = np.empty(0, np.int64)
        columns = {name: sides.get(name, none) for name in ("bid_price", "bid_size", "ask_price", "ask_size")}
        return BookUpdate(
            instrument=BTC,
            run="r1",
            prev_seq=seq - 1,
            seq=seq,
            state="live",
            snapshot=snapshot,
            first_id=seq,
            last_id=seq,
            ts_event=T0 + seq,
            ts_recv=T0 + seq,
            price_scale=2,
            size_scale=3,
            **columns,
        )

    def array(*values: int) -> Any:
        return np.array(values, np.int64)

    whole = {"bid_price": array(99, 98), "bid_size": array(5, 6), "ask_price": array(101, 102), "ask_size": array(7, 8)}
    await rig.bus.publish("books", update(1, snapshot=True, **whole))
    async with rig.client() as c:
        await c.subscribe(
            f"bbo@{BTC}", {"channel": f"book@{BTC}", "levels": 5}, {"channel": f"book_top@{BTC}", "levels": 5}
        )
        await c.got("SNAPSHOT", 3)
        (book,) = c.batches(f"book@{BTC}", "SNAPSHOT")
        assert book.bid_price.tolist() == [99, 98] and book.ask_size.tolist() == [7, 8] and book.seq == 1
        await rig.bus.publish("books", update(2, bid_price=array(99, 97), bid_size=array(0, 4)))
        await c.got("UPDATE", channel=f"book@{BTC}")
        (delta,) = c.batches(f"book@{BTC}", "UPDATE")
        assert (delta.prev_seq, delta.seq, delta.snapshot) == (1, 2, False)
        assert dict(zip(delta.bid_price.tolist(), delta.bid_size.tolist(), strict=True)) == {99: 0, 97: 4}
        await c.until(lambda c: (q := c.batches(f"bbo@{BTC}", "UPDATE")) and q[-1].bid == 98)
        await c.until(lambda c: (t := c.batches(f"book_top@{BTC}", "UPDATE")) and t[-1].bid_price.tolist() == [98, 97])


async def test_a_client_that_asks_too_often_is_sent_away(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", limits=Limits(in_per_s=0.001, in_burst=5)) as rig, rig.client() as c:
        for n in range(6):
            await c.call.write(pb.SubscribeRequest(id=str(n), ping=pb.Ping()))
        assert await c.until(lambda c: c.code) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "rate_limit" in c.details


async def test_stopping_ends_streams_as_unavailable_after_what_waits(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as rig:
        await rig.tell(1, 50)
        made = rig.channel()
        call = subscribed(made)
        c: Client = await call.__aenter__()
        await c.subscribe({"channel": TRADES, "since": "0"})
        await c.got("SUBSCRIBED")
        await rig.tell(51, 50)
    try:
        assert await c.until(lambda c: c.code) == grpc.StatusCode.UNAVAILABLE
        assert c.seqs(TRADES) == list(range(1, len(c.seqs(TRADES)) + 1))
    finally:
        await call.__aexit__(None, None, None)
        await made.close()


async def test_a_client_that_went_away_leaves_nothing_behind(rig: GrpcRig) -> None:
    async with rig.client() as c:
        await c.subscribe(TRADES, {"channel": CANDLES, "include_open": True})
        await c.got("SNAPSHOT", 2)
        assert rig.gateway.calls == 1 and rig.gateway.channels == [TRADES, CANDLES]
    async with asyncio.timeout(20):
        while rig.gateway.calls or rig.gateway.channels:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_no_frame_grows_beyond_its_bound_and_a_cut_commit_comes_again_whole(
    rig: GrpcRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapewick.frames.MOST_ROWS", 7)
    await rig.tell(1, 6000)  # one commit: 9 closed candles of one pos
    async with rig.client() as c:
        await c.subscribe({"channel": TRADES, "since": "0"}, {"channel": CANDLES, "since": "0"})
        await c.until(lambda c: (e := c.of("EVENT", TRADES)) and offset(e[-1].pos) == 6000)
        rows, _ = await rig.store.candles(BTC, 1)
        await c.until(lambda c: reduced(c.batches(CANDLES)) == stored(rows))
        assert c.seqs(TRADES) == list(range(1, 6001))
        assert max(len(frame.trades.seq) for frame in c.frames) == 7
        candles = c.of("EVENT", CANDLES)
        assert [len(frame.candles.open_time) for frame in candles] == [7, 2]
        assert offset(candles[0].pos) < offset(candles[1].pos) == candles[0].candles.row_pos[-1]


async def test_a_client_with_nothing_more_to_ask_and_nothing_to_hear_is_done(rig: GrpcRig) -> None:
    async with rig.client() as c:
        await c.subscribe("trade@sim:NOPE")
        await c.call.done_writing()
        assert await c.until(lambda c: c.code) == grpc.StatusCode.OK
        assert c.of("SUBSCRIBED")[0].channels[0].code == 4404
