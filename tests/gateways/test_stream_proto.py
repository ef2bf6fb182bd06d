"""Protobuf frames on the WebSocket: read with generated code, row for row what the JSON protocol tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from picows import WSFrame, WSMsgType, WSTransport

from tapewick import wire
from tapewick.deflate import unpack
from tapewick.model import Health, position
from tapewick.outbox import Limits
from tapewick.proto_frames import control
from tapewick.timeframe import SECOND
from tapewick.v1 import service_pb2 as pb
from tests.booking import Run, Truth, quote
from tests.gateways.grpc_rig import rows_of
from tests.gateways.rig import BTC, T0, Peer, Rig, running
from tests.gateways.test_bridge import wire as raw_wire
from tests.gateways.test_stream import Stalled

TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
PROTO = {"Sec-WebSocket-Protocol": "tapewick.v1.proto"}
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}


class Binary(Peer):
    """A client that keeps ``Frame`` messages, and a view of them by the names JSON has."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[pb.Frame] = []
        self.texts = self.compressed = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.BINARY:
            self.texts += frame.msg_type == WSMsgType.TEXT
            super().on_ws_frame(transport, frame)
            return
        payload = frame.get_payload_as_bytes()
        self.compressed += frame.rsv1
        message = pb.Frame.FromString(unpack(payload, 10**7) if frame.rsv1 else payload)
        self.messages.append(message)
        seen = {"type": pb.Frame.Type.Name(message.type).lower(), "id": message.id, "ch": message.channel}
        self.frames.append({**seen, "kind": message.kind, "pos": message.pos, "frame": message})
        self.news.set()

    def batches(self, ch: str, *types: str) -> list[Any]:
        found = [rows_of(f["frame"]) for f in self.frames if f["ch"] == ch and f["type"] in types]
        return [rows for rows in found if rows is not None]

    def seqs(self) -> list[int]:
        return [seq for rows in self.batches(TRADES, "snapshot", "event") for seq in rows.seq.tolist()]


async def test_the_subprotocol_chooses(rig: Rig) -> None:
    async with raw_wire(rig) as w:
        w.upgrade(Sec_WebSocket_Protocol="x, tapewick.v1.proto, tapewick.v1.json")
        assert (await w.head())[1]["sec-websocket-protocol"] == "tapewick.v1.proto"
        assert (await w.reader.readexactly(1)) == b"\x82"


async def test_trades_and_candles_are_those_of_the_json_protocol(rig: Rig) -> None:
    await rig.tell(1, 700)
    wanted = {"ch": TRADES, "snapshot": 60}, {"ch": CANDLES, "snapshot": 5}
    async with rig.ws() as text, rig.ws(kind=Binary, extra_headers=PROTO) as binary:
        for c in (text, binary):
            c.subscribe(*wanted, id="x")
            await c.got("snapshot", 2)
        for first in range(701, 1401, 50):
            await rig.tell(first, 50, clock=T0 + first * SECOND // 10)
        await text.until(lambda c: c.rows(TRADES, "event")[-1:] and c.rows(TRADES, "event")[-1]["seq"] == 1400)
        await binary.until(lambda c: c.seqs() and c.seqs()[-1] == 1400)
        rows = text.rows(TRADES, "snapshot", "event")
        assert binary.seqs() == [row["seq"] for row in rows] == list(range(641, 1401))
        batches = binary.batches(TRADES, "snapshot", "event")
        ids = [id for batch in batches for id in batch.trade_id.tolist()]
        prices = [price for batch in batches for price in batch.price.tolist()]
        assert ids == [row["trade_id"] for row in rows]
        assert prices == [round(float(row["price"]) * 100) for row in rows]
        closed = len(await text.got("event", ch=CANDLES, kind="closed"))
        await binary.got("event", closed, ch=CANDLES, kind="closed")
        events = [(f["kind"], f["pos"]) for f in text.of("event", ch=CANDLES)]
        assert [(f["kind"], f["pos"]) for f in binary.of("event", ch=CANDLES)][: len(events)] == events
        held = [int(row["pos"]) for b in binary.batches(CANDLES, "event") for row in b.rows]
        assert held[: len(events)] == [row["pos"] for row in text.rows(CANDLES, "event")]
        (update, *_) = await binary.got("update", ch=CANDLES)  # the open candle too
        assert not update["frame"].pos, "provisional: nothing to resume from"
        (told,) = binary.of("subscribed")
        assert told["id"] == "x" and [one.channel for one in told["frame"].channels] == [TRADES, CANDLES]
        assert binary.texts == 0 and rig.gateway.connections


async def test_a_resume_is_exact_and_a_refused_one_says_so(rig: Rig) -> None:
    await rig.tell(1, 100)
    epoch = (await rig.store.head(BTC)).epoch
    async with rig.ws(kind=Binary, extra_headers=PROTO) as c:
        c.subscribe({"ch": TRADES, "since": position(epoch, 40)})
        (told,) = await c.got("subscribed")
        assert told["frame"].channels[0].recovered and told["frame"].channels[0].replayed == 60
        await c.until(lambda c: c.seqs()[-1:] == [100])
        assert c.seqs() == list(range(41, 101))
    async with rig.ws(kind=Binary, extra_headers=PROTO) as c:
        c.subscribe({"ch": TRADES, "since": "WRONG:5", "snapshot": 7})
        await c.got("snapshot")
        (gap,) = c.of("gap")
        assert gap["frame"].reason == "epoch" and gap["frame"].to_pos == position(epoch, 100)
        assert not c.of("subscribed")[0]["frame"].channels[0].recovered


async def test_every_answer_has_its_frame(rig: Rig) -> None:
    async with rig.ws(kind=Binary, extra_headers=PROTO) as c:
        (welcome,) = await c.got("welcome")
        assert welcome["frame"].ts == rig.market.now()
        c.send({"op": "ping", "id": 5})
        await c.got("pong", id="5")
        c.subscribe(TRADES, "trade@sim:NOPE", {"ch": CANDLES, "times": "ns"}, id=6)
        (told,) = await c.got("subscribed", id="6")
        rows = {one.channel: (one.code, one.message) for one in told["frame"].channels}
        assert rows[TRADES] == (0, "") and rows["trade@sim:NOPE"][0] == 4404
        assert rows[CANDLES][0] == 4400 and "times" in rows[CANDLES][1]
        c.send({"op": "list", "id": 7})
        (listed,) = await c.got("list", id="7")
        assert [one.channel for one in listed["frame"].channels] == [TRADES]
        c.send({"op": "unsubscribe", "id": 8, "channels": [{"ch": TRADES}]})
        assert (await c.got("unsubscribed", id="8"))[0]["frame"].count == 1
        c.send(b"nonsense")
        (error,) = await c.got("error")
        assert error["frame"].code == "bad_request" and error["frame"].message and error["id"] == ""
        c.transport.send(WSMsgType.BINARY, b"\x0a\x01x")
        assert (await c.until(lambda c: c.closed))[0] == 1003


@pytest.mark.parametrize("mode", ["conflate", "all"])
async def test_books_and_quotes_travel_as_columns(rig: Rig, mode: str) -> None:
    truth = Truth(seed=3, updates=30)
    run = Run(truth, "r1")
    book, top, bbo = f"book@{BTC}", f"book_top@{BTC}", f"bbo@{BTC}"
    await rig.bus.publish("books", run.whole())
    async with rig.ws(kind=Binary, extra_headers=PROTO) as c:
        c.subscribe({"ch": book, "levels": 5}, {"ch": top, "levels": 5, "mode": mode}, {"ch": bbo, "mode": mode})
        await c.got("snapshot", 3)
        await rig.bus.publish("books", quote(999))
        for _ in range(30):
            await rig.bus.publish("books", run.step())
        await c.until(lambda c: (b := c.batches(book, "update")) and b[-1].last_id == 30)
        bids: dict[int, int] = {}
        for part in c.batches(book, "snapshot", "update"):
            bids.update(zip(part.bid_price.tolist(), part.bid_size.tolist(), strict=True))
            bids = {price: size for price, size in bids.items() if size}
        assert sorted(bids.items(), reverse=True) == truth.top(30, 5)[0]
        await c.until(lambda c: (b := c.batches(top, "update")) and b[-1].last_id == 30)
        assert c.batches(top, "update")[-1].bid_price.tolist() == [price for price, _ in truth.top(30, 5)[0]]
        await c.until(lambda c: (q := c.batches(bbo, "update")) and q[-1].update_id == 999)


async def test_tickers_and_health_have_the_fields_of_their_objects(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with rig.ws(kind=Binary, extra_headers=PROTO) as c, rig.ws() as text:
        for one in (c, text):
            one.subscribe(f"ticker@{BTC}", "health")
            await one.got("snapshot", 2)
        told = text.of("snapshot", ch=f"ticker@{BTC}")[0]["data"][0]
        shown = c.of("snapshot", ch=f"ticker@{BTC}")[0]["frame"].ticker
        for field, value in shown.ListFields():
            assert value == (told["ts"] * 10**6 if field.name == "ts" else told[field.name]), field.name
        assert len(shown.ListFields()) >= 12
        await rig.tell(701, 5)
        await c.until(lambda c: (u := c.of("update")) and u[-1]["frame"].ticker.trades_24h == 705)
        rig.bus.offer("health", Health(source="sim", state="refused", detail="HTTP 451", ts=5_000_000))
        (event,) = await c.got("event", ch="health", kind="stream_health")
        (row,) = event["frame"].conditions
        assert (row.source, row.state, row.detail, row.ts) == ("sim", "refused", "HTTP 451", 5_000_000)
        (same,) = (await text.got("event", ch="health", kind="stream_health"))[0]["data"]
        assert same["ts"] * 10**6 == row.ts and same["instrument"] is None


async def test_a_frame_is_encoded_once_for_all_and_compressed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    real = wire.frame

    def counted(*args: Any, **fields: Any) -> bytes:
        data = real(*args, **fields)
        if args[0] == "event":
            made.append(data)
        return data

    async with (
        running(tmp_path, ws_deflate=True) as rig,
        rig.ws(kind=Binary, extra_headers=PROTO) as one,
        rig.ws(kind=Binary, extra_headers=PROTO) as two,
        rig.ws(kind=Binary, extra_headers={**PROTO, **DEFLATE}) as packed,
    ):
        for c in (one, two, packed):
            c.subscribe({"ch": TRADES, "snapshot": 0})
            await c.got("subscribed")
        await rig.tell(1, 1)
        for c in (one, two, packed):
            await c.got("event")
        monkeypatch.setattr(wire, "frame", counted)
        for first in range(2, 102, 20):
            await rig.tell(first, 20)
        for c in (one, two, packed):
            await c.until(lambda c: c.seqs()[-1:] == [101])
            assert c.seqs() == list(range(1, 102))
        assert [f["frame"].SerializeToString() for f in one.of("event")[1:]] == made
        assert packed.compressed >= 5 and not one.compressed


async def test_a_slow_reader_is_told_in_its_own_format(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(queue_bytes=100_000, slow_s=0.3)) as rig:
        stalled = Stalled(rig)
        await stalled.start(TRADES, protocol="tapewick.v1.proto")
        first = 1
        while rig.gateway.connections:
            await rig.tell(first, 500)
            first += 500
        data = await stalled.read()
        stalled.socket.close()
        assert data.endswith(b"\x0f\xa8slow_consumer") and b"slow_consumer" in data[:-40]


def test_control_frames_keep_what_the_schema_has() -> None:
    told = {
        "type": "subscribed",
        "id": 3,
        "channels": [{"ch": "a", "pos": "E:4", "recovered": True, "replayed": 2, "max_rate": 1.0}],
        "errors": [{"ch": "b", "code": 4404, "msg": "none"}],
    }
    frame = pb.Frame.FromString(control(told))
    assert frame.id == "3" and frame.type == pb.Frame.SUBSCRIBED
    assert [(one.channel, one.pos, one.recovered, one.replayed, one.code, one.message) for one in frame.channels] == [
        ("a", "E:4", True, 2, 0, ""), ("b", "", False, 0, 4404, "none"),
    ]  # fmt: skip
    assert frame.SerializeToString() == control(told), "the same bytes as the generated code's"
    slow = {"type": "error", "code": "slow_consumer", "msg": "m", "pos": {"trade@x": "E:9"}}
    frame = pb.Frame.FromString(control(slow))
    assert [(one.channel, one.pos) for one in frame.channels] == [("trade@x", "E:9")]
    notice = {"type": "notice", "code": "conflated", "ch": "c", "dropped": 5, "window_ms": 7}
    assert pb.Frame.FromString(control(notice)).count == 5
