"""The native codec against the Python one: the same answer to any bytes, in any order."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.engine import _codec

from .codecs import T, agg, codec, combined, flat, futures, raw, trade, without

SHAPES = [
    combined(trade()),
    combined(futures()),
    combined(futures(X="", p="0.0", q="0.0")),
    combined(agg()),
    raw(trade()),
    raw(agg(s="币USDT")),
    combined(trade(s='A"\n')),
    b' { "data" : %s , "stream" : "a@trade" } ' % raw(trade(x=[{"k": [1.5e3, None, "\\u00e9"]}])),
    combined({"e": "depthUpdate", "b": [["1", "2"]]}, "abcusdt@depth@100ms"),
    raw({"u": 1, "s": "A", "b": "1", "B": "1", "a": "2", "A": "1"}),
    raw({"lastUpdateId": 1, "bids": [["1", "2"]]}),
    raw({"result": None, "id": "x"}),
]


@pytest.fixture(scope="module")
def native() -> Any:
    return codec("native")


# How long drawing takes says more about the machine than about the strategy.
patient = settings(suppress_health_check=[HealthCheck.too_slow])


def assert_same(native: Any, frames: list[bytes], scales: tuple[int, int] = (8, 8)) -> Any:
    """Both codecs, fresh, on the same frames: bare, as lines, and one call per frame."""
    recv = np.arange(1, len(frames) + 1, dtype=np.int64)
    ours, theirs = native.Decoder(*scales), _codec.Decoder(*scales)
    for decoder in (ours, theirs):
        decoder.set_scale("SET", 2, 3)
    answer = flat(ours.frames(frames, recv))
    assert answer == flat(theirs.frames(frames, recv))
    assert sum(map(sum, (answer[1].values(), answer[2].values()))) + rows(answer) == len(frames)
    block = b"".join(b"%d %s\n" % (i, frame) for i, frame in enumerate(frames, 1))
    assert flat(ours.lines(block)) == flat(theirs.lines(block))
    ours, theirs = native.Decoder(*scales), _codec.Decoder(*scales)
    for frame in frames:
        assert flat(ours.frames([frame], 1)) == flat(theirs.frames([frame], 1)), frame
    return answer


def rows(answer: Any) -> int:
    """Frames that became rows or void ids."""
    return sum(len(columns["trade_id"]) + len(columns["voids"]) for _, columns in answer[0])


def seldom(odd: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``odd`` once in eight draws, else ``usual``."""
    return st.integers(0, 7).flatmap(lambda n: odd if n == 7 else usual)


spaces = st.sampled_from([""] * 50 + [" ", "\n", "\t\r "] * 3 + ["\x0b"])
symbols = st.sampled_from(["SET", "ABCUSDT"] * 10 + ["币安USDT", 'Q"\\', "\x00", "X" * 64, "X" * 65, ""])
digits = st.text("0123456789", max_size=24) | st.text("0", max_size=30) | st.text("0123456789", max_size=4)
plain_decimals = st.builds(
    "{}.{}".format, st.integers(0, 10**11), st.integers(0, 10**10).map(lambda n: str(n).zfill(8))
)
legal_decimals = st.one_of(
    plain_decimals,
    st.integers(0, 10**19).map(str),
    st.builds("{}{}e{}".format, st.sampled_from(["", "-", "+"]), st.integers(0, 10**6), st.integers(-16, 16)),
)
odd_decimals = st.one_of(
    st.builds("{}{}.{}{}".format, st.sampled_from(["", "-", "+", "."]), digits, digits, digits),
    st.builds("{}e{}{}".format, digits, st.sampled_from(["", "-", "+"]), st.integers(0, 99_999)),
    st.sampled_from(["0", "0.0", "-0", "", ".", "NaN", "inf", "1e400", "1\n", " 1", "1_0", "٣", "9223372036854775807"]),
    st.text(max_size=6),
)
decimals = seldom(odd_decimals, legal_decimals)
odd_stamps = st.one_of(
    st.integers(1_230_767_999_998, 1_230_768_000_001),
    st.integers(T * 1000, T * 1000 + 999),
    st.integers(T * 10**6, T * 10**6 + 999_999),
    st.sampled_from([0, -T, 4_102_444_799_999, 4_102_444_800_000, 4_102_444_799_999_999_999, 2**63, 10**40]),
)
stamps = seldom(odd_stamps, st.just(T))
odd_ids = st.sampled_from([-1, 10**17, 10**18, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**31, 10**60])
odd_spans = st.sampled_from([-1, 2**31 - 2, 2**31 - 1, -(2**31) - 1, -(2**31) - 2])
ids = seldom(odd_ids, st.integers(0, 10**11))
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), decimals),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def texts(draw: Any, value: str) -> str:
    """A JSON string of ``value``, some characters escaped."""
    if draw(st.integers(0, 15)) == 15:
        return "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in value).join('""')
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def numbers(draw: Any, value: str) -> str:
    """A decimal as a JSON string or, where it is one, as a JSON number."""
    return value if draw(st.integers(0, 9)) == 9 else str(draw(texts(value)))


@st.composite
def objects(draw: Any, members: list[tuple[str, str]]) -> str:
    """A JSON object of raw values, perhaps shuffled, spaced, with a member missing or repeated."""
    if draw(st.booleans()):
        members = draw(st.permutations(members))
    if draw(st.integers(0, 15)) == 15:
        members = members + [draw(st.sampled_from(members))]
    if draw(st.integers(0, 15)) == 15:
        del members[draw(st.integers(0, len(members) - 1))]
    space: list[str] = [draw(spaces) for _ in range(4)]
    items = [f"{space[0]}{draw(texts(key))}{space[1]}:{space[2]}{value}" for key, value in members]
    return "{" + ",".join(items) + space[3] + "}"


@st.composite
def frames(draw: Any) -> bytes:
    """A frame that is or nearly is a trade."""
    kind = draw(st.sampled_from(["trade", "aggTrade"]))
    first = draw(ids)
    last = first + draw(
        seldom(st.sampled_from([-1, 2**31 - 2, 2**31 - 1, -(2**31) - 1, -(2**31) - 2]), st.integers(0, 5))
    )
    members = [("e", draw(texts(kind))), ("E", str(T)), ("s", draw(texts(draw(symbols))))]
    members += [("t", str(first))] if kind == "trade" else [("f", str(first)), ("l", str(last)), ("a", "7")]
    members += [("p", draw(numbers(draw(decimals)))), ("q", draw(numbers(draw(decimals))))]
    members += [("T", str(draw(stamps))), ("m", draw(st.sampled_from(["true", "false"])))]
    if draw(st.booleans()):
        members += [("X", draw(st.sampled_from(['"MARKET"', '""', '"NA"', '"\\u004eA"', "null", "0", "[]"])))]
    if draw(st.integers(0, 4)) == 4:
        key = draw(st.sampled_from(["M", "ps", "new", "E", *(key for key, _ in members)]))
        members += [(key, json.dumps(draw(junk), allow_nan=True))]
    body = draw(objects(members))
    if draw(st.booleans()):
        stream = draw(
            st.sampled_from([f"x@{kind}"] * 20 + ["x@trade", "x@news", "x@depth", "", "币@trade", "\\u0040@trade"])
        )
        body = draw(objects([("stream", f'"{stream}"'), ("data", body)]))
    return f"{draw(spaces)}{body}{draw(spaces)}".encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: Any) -> bytes:
    """A frame with a piece cut out, replaced or inserted."""
    frame: bytes = draw(st.one_of(st.sampled_from(SHAPES), frames()))
    start = draw(st.integers(0, len(frame)))
    end = start + draw(st.integers(0, 5))
    piece: bytes = draw(
        st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b"\\", b"}", b"{", b"[", b",", b"\xe5", b"\\ud83d"]))
    )
    return frame[:start] + piece + frame[end:]


@patient
@given(batch=st.lists(frames(), max_size=5))
def test_trades_of_any_layout(native: Any, batch: list[bytes]) -> None:
    assert_same(native, [frame.replace(b"\n", b" ") for frame in batch])


@patient
@given(batch=st.lists(damaged(), min_size=1, max_size=4))
def test_damaged_frames(native: Any, batch: list[bytes]) -> None:
    assert_same(native, [frame.replace(b"\n", b" ") for frame in batch])


@given(frame=st.one_of(st.binary(max_size=40), junk.map(lambda value: json.dumps(value).encode())))
def test_anything(native: Any, frame: bytes) -> None:
    assert_same(native, [frame.replace(b"\n", b" ")])


@given(
    block=st.lists(st.sampled_from([b"1", b"12 ", b" ", b"\n", b"\r", b"x", b"{}", SHAPES[0], b"9" * 19, b"0" * 20]))
)
def test_any_lines(native: Any, block: list[bytes]) -> None:
    joined = b"".join(block)
    assert flat(native.Decoder().lines(joined)) == flat(_codec.Decoder().lines(joined))


priced = st.lists(st.tuples(legal_decimals, legal_decimals, st.booleans()), min_size=1, max_size=6)
given_scales = st.none() | st.tuples(st.integers(0, 10), st.integers(0, 38))


@given(calls=st.lists(st.tuples(given_scales, priced), min_size=1, max_size=4))
def test_scales_over_many_calls(native: Any, calls: list[Any]) -> None:
    """Remembered, widened and set scales agree; every value equals its text."""
    ours, theirs = native.Decoder(3, 2), _codec.Decoder(3, 2)
    for scales, values in calls:
        if scales is not None:
            ours.set_scale("ABCUSDT", *scales)
            theirs.set_scale("ABCUSDT", *scales)
        bodies = [
            trade(p=p, q=q, t=i) if raw_kind else agg(p=p, q=q, f=i, l=i) for i, (p, q, raw_kind) in enumerate(values)
        ]
        answer = flat(ours.frames([combined(body) for body in bodies], 1))
        assert answer == flat(theirs.frames([combined(body) for body in bodies], 1))
        for (_, _, _, price_scale, size_scale), columns in answer[0]:
            for id, price, size in zip(columns["trade_id"], columns["price"], columns["size"], strict=True):
                assert Decimal(price) == Decimal(values[id][0]).scaleb(price_scale)
                assert Decimal(size) == Decimal(values[id][1]).scaleb(size_scale)


@pytest.mark.parametrize("frame", SHAPES, ids=range(len(SHAPES)))
def test_truncated_at_every_byte(native: Any, frame: bytes) -> None:
    for end in range(len(frame)):
        # A copy of its own, so that a read past the end leaves the buffer.
        part = bytes(bytearray(frame[:end]))
        assert flat(native.Decoder().frames([part], 1)) == flat(_codec.Decoder().frames([part], 1)), part
        line = b"1 " + part.replace(b"\n", b"")
        assert flat(native.Decoder().lines(line)) == flat(_codec.Decoder().lines(line)), part


@pytest.mark.parametrize("depth", [63, 64, 65, 2_000, 300_000])
@pytest.mark.parametrize("pair", [b"[]", b'{"a":}'], ids=["arrays", "objects"])
def test_nesting(native: Any, depth: int, pair: bytes) -> None:
    opening, closing = pair[:-1], pair[-1:]
    nested = opening * depth + b"1" + closing * depth
    for frame in (nested, opening * depth, raw(trade(x=0)).replace(b'"x":0', b'"x":' + nested)):
        assert_same(native, [frame])


def test_every_pair_of_surrogates(native: Any) -> None:
    halves = ["\\ud83d", "\\ude00", "\\u0041", "é", "\\\\", "\\n", ""]
    for first in halves:
        for second in halves:
            for third in halves:
                assert_same(native, [raw(trade()).replace(b"ABC", (first + second + third).encode())])


def test_columns_stay_when_the_rest_is_gone(native: Any) -> None:
    """Columns are views of one block; each keeps the block alive."""
    decoder = native.Decoder()
    prices = [decoder.frames([combined(trade(p=str(i)))] * 50, 1).groups[0].price for i in range(1, 200)]
    del decoder
    assert [column.tolist() for column in prices] == [[i * 10**8] * 50 for i in range(1, 200)]
    group = native.Decoder().frames([combined(without(trade(), "M"))], 1).groups[0]
    assert group.price is group.price and group.price.flags.writeable
