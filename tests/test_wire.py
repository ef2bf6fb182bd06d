"""The wire codec against protobuf's own generated code, and against garbage."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.errors import WireError
from tapewick.model import (
    CANDLE,
    BookUpdate,
    CandleBatch,
    Gap,
    Head,
    Health,
    Instrument,
    Message,
    Quote,
    TradeBatch,
    Wanted,
    Watch,
)
from tapewick.scans import Announcement, Order, OrderEvent
from tapewick.wire import decode, encode, stamp, stamped

PROTO = Path(__file__).parent.parent / "proto"


@pytest.fixture(scope="session")
def pb(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """market.proto compiled by protoc, imported."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("pb")
    assert protoc.main(["protoc", f"-I{PROTO}", f"--python_out={out}", "tapewick/v1/market.proto"]) == 0
    # the generated package must not shadow ours: load it by file
    (out / "tapewick_pb").mkdir()
    source = (out / "tapewick" / "v1" / "market_pb2.py").read_text()
    (out / "tapewick_pb" / "market_pb2.py").write_text(source)
    sys.path.insert(0, str(out / "tapewick_pb"))
    try:
        yield importlib.import_module("market_pb2")
    finally:
        sys.path.remove(str(out / "tapewick_pb"))


def trades(n: int, seed: int, *, covers: tuple[tuple[int, int], ...] | None, numbered: bool) -> TradeBatch:
    rng = np.random.default_rng(seed)
    wide = rng.integers(-(2**63), 2**63 - 1, (7, max(n, 1)), dtype=np.int64)[:, :n]
    return TradeBatch(
        instrument="binance:币安人生USDT",
        trade_id=wide[0],
        first_id=wide[1],
        count=rng.integers(0, 2**31 - 1, n).astype(np.int32),
        ts_event=wide[2],
        ts_recv=wide[3],
        price=wide[4],
        size=wide[5],
        side=rng.integers(-1, 2, n).astype(np.int8),
        price_scale=int(rng.integers(0, 19)),
        size_scale=int(rng.integers(0, 19)),
        covers=covers,
        late=bool(seed % 2),
        clock=-seed,
        source="replay",
        seq=wide[6] if numbered else None,
        epoch="01J8Z" if numbered else "",
    )


def candles(n: int, seed: int) -> CandleBatch:
    raw = np.random.default_rng(seed).integers(0, 256, n * CANDLE.itemsize, dtype=np.uint8)
    rows = raw.view(CANDLE).copy()
    rows["number"] = 0
    rows["reserved"] = np.void(b"\0" * 6)
    return CandleBatch(
        instrument="sim:BTCUSDT", rows=rows, price_scale=2, size_scale=5, provisional=seed % 2 == 0, epoch="E", pos=seed
    )


def book(n: int, **changes: Any) -> BookUpdate:
    sides = np.random.default_rng(n).integers(0, 2**63 - 1, (4, n + 1), dtype=np.int64)
    update = BookUpdate(
        instrument="sim:BTCUSDT",
        run="01J8Z",
        prev_seq=n,
        seq=n + 1,
        state="live",
        snapshot=n % 2 == 0,
        first_id=2**62,
        last_id=2**62 + 5,
        ts_event=-(2**63),
        ts_recv=17,
        bid_price=sides[0],
        bid_size=sides[1],
        ask_price=sides[2][:n],
        ask_size=sides[3][:n],
        price_scale=2,
        size_scale=0,
        source="binance",
    )
    return replace(update, **changes)


def announcement(**changes: Any) -> Announcement:
    event = OrderEvent(
        contract="0x" + "c0" * 20,
        block=2**40,
        block_hash="0x" + "b1" * 32,
        tx_hash="0x" + "7a" * 32,
        log_index=3,
        ts=1_700_000_000 * 10**9,
        kind="created",
        order_id=str(2**256 - 1),
        fields={"user": "0x" + "aa" * 20, "amountIn": str(2**255), "note": "", "é": "é"},
    )
    order = Order(
        contract=event.contract, order_id=event.order_id, status="PENDING", amount_in="0.05", decimals_in=6, stub=True,
        is_long=True, created_at=event.ts, block=7, last_block=2**40, last_block_hash=event.block_hash,
    )  # fmt: skip
    told: dict[str, Any] = {"kind": "order.created", "finality": "pending", "confirmations": 0}
    told |= {"component": "31337/0xc0", "seq": 2**62, "order_id": event.order_id, "event": event, "order": order}
    return Announcement(**(told | changes))


def same(a: Message, b: Message) -> bool:
    if isinstance(a, TradeBatch | CandleBatch | BookUpdate):
        fields = a.__dataclass_fields__
        return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)
    return a == b


def generated(pb: Any, message: Message) -> bytes:
    """What protobuf's own code makes of the message."""
    name = {TradeBatch: "trades", CandleBatch: "candles", BookUpdate: "book"}.get(
        type(message), type(message).__name__.lower()
    )  # type: ignore[call-overload]
    body = getattr(envelope := pb.Envelope(), name)
    body.SetInParent()
    for field in body.DESCRIPTOR.fields:
        _fill(body, field, message)
    return bytes(envelope.SerializeToString(deterministic=True))


def _fill(body: Any, field: Any, message: Any) -> None:
    name = field.name
    if field.message_type is not None:
        value = getattr(message, name)
        if isinstance(value, dict):
            getattr(body, name).update(value)
        elif value is not None:
            nested = getattr(body, name)
            nested.SetInParent()
            for one in nested.DESCRIPTOR.fields:
                _fill(nested, one, value)
        return
    pairs: dict[str, Any] = {"covers_given": getattr(message, "covers", None) is not None}
    for low, high, attribute in (("covers_from", "covers_to", "covers"), ("from_id", "to_id", "ranges")):
        ranges = getattr(message, attribute, None) or ()
        pairs |= {low: [r[0] for r in ranges], high: [r[1] for r in ranges]}
    if name in pairs:
        value = pairs[name]
    elif isinstance(message, CandleBatch) and name not in message.__dataclass_fields__:
        value = message.rows["pos" if name == "row_pos" else name]
    else:
        value = getattr(message, name)
    if isinstance(value, np.ndarray):
        value = value.tobytes() if field.type == field.TYPE_BYTES else value.tolist()
    if isinstance(value, list | tuple):
        getattr(body, name).extend(value)
    elif value is not None:
        setattr(body, name, value)


MESSAGES: list[Message] = [
    *(trades(n, n, covers=None, numbered=n % 2 == 0 and n > 0) for n in (0, 1, 15, 16, 256, 5000)),
    trades(3, 7, covers=((1, 5), (9, 9)), numbered=True),
    trades(0, 8, covers=(), numbered=False),
    *(candles(n, n) for n in (0, 1, 17, 300)),
    Head(
        instrument="binance:BTCUSDT", epoch="01J8Z", seq=2**62, pos=0, watermark=-(2**63), price_scale=2, size_scale=5
    ),
    Wanted(instrument="binance:BTCUSDT", ranges=((5, 9), (2**62, 2**62 + 1))),
    Wanted(instrument="binance:BTCUSDT", ranges=((5, 9),), since=(-(2**63),)),
    Gap(instrument="sim:X", left_id=-1, right_id=2**62, left_ts=-(2**63), right_ts=5, state="repairing", attempts=3),
    Instrument(id="sim:X", venue="sim", symbol="X", price_scale=0, status="break", granularity="agg"),
    Health(source="binance", state="refused", ts=-1, detail="451"),
    Health(source="binance", state="connected", ts=5, instrument="binance:X", collector="collect-a-1"),
    Watch(instrument="binance:X"),
    Watch(instrument="binance:X", wanted=False),
    announcement(),
    announcement(kind="order.reverted", order=None, finality="confirmed", confirmations=12),
    announcement(event=None, order=None),
    announcement(event=OrderEvent("", 0, "", "", 0, 0, "raw", "", {})),
    *(book(n) for n in (0, 1, 200)),
    book(
        0, state="stale", detail="its collector is silent", bid_price=np.empty(0, np.int64), bid_size=np.empty(0, "i8")
    ),
    Quote(
        instrument="sim:X",
        update_id=2**62,
        bid=-1,
        bid_size=0,
        ask=2**63 - 1,
        ask_size=5,
        ts_event=0,
        ts_recv=9,
        price_scale=2,
        size_scale=3,
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: f"{type(m).__name__}")
def test_bytes_equal_generated_code(pb: Any, message: Message) -> None:
    assert encode(message) == generated(pb, message)
    assert same(decode(encode(message)), message)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**31), st.booleans())
def test_round_trip(n: int, seed: int, numbered: bool) -> None:
    message = trades(n, seed, covers=((1, 2),), numbered=numbered and n > 0)
    back = decode(encode(message))
    assert isinstance(back, TradeBatch)
    if not n:
        message.seq = None
    assert same(back, message)


def test_unpacked_and_chunked_columns_read_the_same(pb: Any) -> None:
    """Parsers must take packed chunks and single elements alike."""
    whole = trades(4, 3, covers=None, numbered=False)
    halves = [whole.select(np.array([0, 1])), whole.select(np.array([2, 3]))]
    bodies = b"".join(_body(encode(half)) for half in halves)
    envelope = b"\x0a" + _length(bodies) + bodies
    # side is a bytes field: the last one wins in protobuf, so the lengths no longer agree
    with pytest.raises(WireError, match="different length"):
        decode(envelope)
    wanted = b"\x11" + (7).to_bytes(8, "little") + b"\x19" + (9).to_bytes(8, "little")
    back = decode(b"\x22" + _length(wanted) + wanted)
    assert back == Wanted(instrument="", ranges=((7, 9),))


def _body(data: bytes) -> bytes:
    at = 1
    while data[at] & 0x80:
        at += 1
    return data[at + 1 :]


def _length(data: bytes) -> bytes:
    n, out = len(data), bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def test_unknown_fields_are_skipped() -> None:
    head = Head(instrument="a:B", epoch="E", seq=1, pos=2, watermark=3, price_scale=0, size_scale=8)
    body = _body(encode(head)) + b"\xf8\x3f\x01" + b"\xfa\x3f\x02hi"
    assert decode(b"\x1a" + _length(body) + body) == head


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_garbage_is_refused_or_read_never_more(data: st.DataObject) -> None:
    raw = bytearray(encode(MESSAGES[data.draw(st.integers(0, len(MESSAGES) - 1))])[:4000])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        decode(bytes(raw[:cut]))
    except WireError as error:
        assert str(error)


@given(st.integers(1, 2**63), st.integers(1, 2**64 - 1))
def test_a_stamp_is_read_by_us_and_by_generated_code(pb: Any, origin: int, number: int) -> None:
    content = encode(trades(3, 1, covers=None, numbered=True))
    assert stamped(content) == (0, 0)
    told = pb.Envelope.FromString(content + stamp(origin, number))
    assert (told.origin, told.number) == stamped(content + stamp(origin, number)) == (origin, number)
    assert told.SerializeToString(deterministic=True) == content + stamp(origin, number)
    assert encode(decode(content + stamp(origin, number))) == content
