"""The native codec against the Python one on order-book frames: the same answer to any bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.engine import _codec

from .codecs import T, codec, combined, raw
from .depths import depth, flat_books, futures_depth, futures_quote, quote
from .test_codec_parity import (
    decimals,
    frames,
    junk,
    objects,
    odd_decimals,
    odd_ids,
    plain_decimals,
    seldom,
    stamps,
    texts,
)

SHAPES = [
    combined(depth(), "abcusdt@depth@100ms"),
    combined(futures_depth(), "abcusd_perp@depth@0ms"),
    combined(quote(), "abcusdt@bookTicker"),
    combined(futures_quote(), "abcusdt@bookTicker"),
    raw(depth()),
    raw(quote()),
    combined({"e": "kline", "k": {"x": [1.5]}}, "abcusdt@kline_1m"),
    raw({"lastUpdateId": 5, "bids": [["1", "2"]], "asks": [["3", "0.5"]]}),
]
patient = settings(suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def native() -> Any:
    return codec("native")


def assert_same(native: Any, frames: list[bytes]) -> None:
    """Both codecs, fresh, on the same frames: in one call, and one call each; every frame is accounted for."""
    recv = np.arange(1, len(frames) + 1, dtype=np.int64)
    ours, theirs = native.Decoder(8, 8, books=True), _codec.Decoder(8, 8, books=True)
    for decoder in (ours, theirs):
        decoder.set_scale("SET", 2, 3)
    answer = flat_books(ours.frames(frames, recv))
    assert answer == flat_books(theirs.frames(frames, recv))
    trades = sum(len(columns["trade_id"]) + len(columns["voids"]) for _, columns in answer[0])
    counted = sum(answer[1].values()) + sum(answer[2].values())
    assert trades + counted + sum(head[3] for head, _ in answer[4]) + len(answer[5]) == len(frames)
    for frame in frames:
        assert flat_books(ours.frames([frame], 1)) == flat_books(theirs.frames([frame], 1)), frame


ids = seldom(odd_ids, st.integers(0, 10**13)).map(str)
symbols = st.sampled_from(["SET", "ABCUSDT"] * 10 + ["币安USDT", 'Q"\\', "X" * 65, ""])


@st.composite
def sides(draw: Any) -> str:
    """The levels of one side as JSON."""
    if draw(st.integers(0, 15)) == 15:
        return json.dumps(draw(junk), allow_nan=True)
    values = st.one_of(plain_decimals, plain_decimals, seldom(odd_decimals, decimals)).flatmap(texts)
    pairs = draw(st.lists(st.tuples(values, values), max_size=4))
    more = draw(st.sampled_from(["", "", "", ",[]"]))
    return "[" + ",".join(f"[{price},{size}{more}]" for price, size in pairs) + "]"


@st.composite
def books(draw: Any) -> bytes:
    """A frame that is or nearly is one of an order book."""
    kind = draw(st.sampled_from(["depthUpdate", "bookTicker"]))
    members = [("s", draw(texts(draw(symbols)))), ("u", draw(ids))]
    if kind == "depthUpdate":
        members += [("U", draw(ids)), ("b", draw(sides())), ("a", draw(sides()))]
    else:
        members += [(key, draw(texts(draw(decimals)))) for key in "bBaA"]
    for key, value in (("e", json.dumps(kind)), ("E", draw(stamps)), ("T", draw(stamps)), ("pu", draw(ids))):
        if draw(st.booleans()):
            members.insert(0, (key, str(value)))
    if draw(st.integers(0, 4)) == 4:
        members.append((draw(st.sampled_from(["ps", "new", *(key for key, _ in members)])), json.dumps(draw(junk))))
    body = draw(objects(members))
    if draw(st.booleans()):
        named = {"depthUpdate": "x@depth@100ms", "bookTicker": "x@bookTicker"}[kind]
        odd = ["x@depth", "x@bookTicker", "x@kline_1m", "x@depth5", "\\u0040@depth", "币@kline_1s", "x@news"]
        stream = draw(st.sampled_from([named] * 10 + odd))
        body = draw(objects([("stream", f'"{stream}"'), ("data", body)]))
    return f"{draw(st.sampled_from(['', '', ' ']))}{body}".encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: Any) -> bytes:
    """A frame with a piece cut out, replaced or inserted."""
    frame: bytes = draw(st.one_of(st.sampled_from(SHAPES), books()))
    start = draw(st.integers(0, len(frame)))
    end = start + draw(st.integers(0, 5))
    pieces = [b'"', b"\\", b"}", b"{", b"[", b"]", b",", b"0", b"\xe5", b"9" * 20]
    piece: bytes = draw(st.one_of(st.binary(max_size=3), st.sampled_from(pieces)))
    return frame[:start] + piece + frame[end:]


@patient
@given(batch=st.lists(st.one_of(books(), books(), frames()), max_size=5))
def test_frames_of_any_layout(native: Any, batch: list[bytes]) -> None:
    assert_same(native, batch)


@patient
@given(batch=st.lists(damaged(), min_size=1, max_size=4))
def test_damaged_frames(native: Any, batch: list[bytes]) -> None:
    assert_same(native, batch)


@pytest.mark.parametrize("frame", SHAPES, ids=range(len(SHAPES)))
def test_truncated_at_every_byte(native: Any, frame: bytes) -> None:
    for end in range(len(frame)):
        # A copy of its own, so that a read past the end leaves the buffer.
        assert_same(native, [bytes(bytearray(frame[:end]))])


@pytest.mark.parametrize("value", ["1", "0.5", "12345678.12345678", "1.000", "0.00000001", "100", "9" * 18, "1" * 19])
def test_values_at_the_very_end_of_a_frame(native: Any, value: str) -> None:
    for side in ({"b": [], "a": [["1", value]]}, {"b": [], "a": [[value, value]]}):
        for frame in (combined(depth(**side), "abcusdt@depth"), raw(depth(**side))):
            assert_same(native, [frame])
            assert not native.Decoder(books=True).frames([frame], 0).rejects


@patient
@given(
    body=st.one_of(
        st.builds(
            lambda bids, asks, id, time: f'{{"lastUpdateId":{id},"E":{time},"bids":{bids},"asks":{asks}}}',
            sides(), sides(), ids, stamps,
        ).map(str.encode),
        damaged(),
        junk.map(lambda value: json.dumps(value).encode()),
    ),
    scales=st.tuples(st.integers(0, 10), st.integers(0, 10)),
)  # fmt: skip
def test_snapshots(native: Any, body: bytes, scales: tuple[int, int]) -> None:
    ours, theirs = native.read_snapshot(body, *scales), _codec.read_snapshot(body, *scales)
    if isinstance(theirs, str):
        assert ours == theirs
        return
    for name in ("last_id", "ts_event", "bid_end", "ask_end", "price", "size"):
        assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
    assert (ours.price_scale, ours.size_scale) == (theirs.price_scale, theirs.size_scale)


def test_columns_stay_when_the_rest_is_gone(native: Any) -> None:
    """Columns are views of the group's memory; each keeps it alive."""
    decoder = native.Decoder(books=True)
    frame = combined(depth(E=T), "abcusdt@depth")
    kept = [decoder.frames([frame.replace(b"61.25000000", b"%d" % i)] * 50, 1).depth[0].price for i in range(1, 100)]
    del decoder
    assert [int(column[0]) for column in kept] == [i * 10**8 for i in range(1, 100)]
