"""Decoding frames of order books: what is read, kept, counted and refused, in both codecs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from .codecs import T, agg, codec, combined, raw, trade, without
from .depths import depth, flat_books, futures_depth, futures_quote, quote

NS = T * 1_000_000
BIG = str(2**63 - 1)


@pytest.fixture(params=["python", "native"])
def module(request: pytest.FixtureRequest) -> Any:
    return codec(request.param)


@pytest.fixture
def decoder(module: Any) -> Any:
    return module.Decoder(books=True)


def spot(**fields: Any) -> bytes:
    return combined(depth(**fields), "abcusdt@depth@100ms")


def ticker(**fields: Any) -> bytes:
    return combined(quote(**fields), "abcusdt@bookTicker")


def only(decoded: Any) -> Any:
    """The one depth or quote group of a call that found nothing else."""
    assert not decoded.groups and not decoded.others and not decoded.rejects and not decoded.rest
    groups: list[Any] = [*decoded.depth, *decoded.quotes]
    assert len(groups) == 1
    return groups[0]


def test_nobody_asked(module: Any) -> None:
    decoded = module.Decoder().frames([spot(), ticker(), raw(futures_quote()), combined({}, "a@kline_1m")], 0)
    assert decoded.others == {"depthUpdate": 1, "bookTicker": 2, "kline": 1}
    assert decoded.depth == decoded.quotes == decoded.rest == []


def test_spot_depth(decoder: Any) -> None:
    decoder.set_scale("ABCUSDT", 2, 3)
    group = only(decoder.frames([spot(), spot(U=106, u=110, b=[], a=[["61.31", "0"]])], np.array([7, 9])))
    assert (group.symbol, group.price_scale, group.size_scale, len(group)) == ("ABCUSDT", 2, 3, 2)
    assert (group.first_id.tolist(), group.last_id.tolist()) == ([101, 106], [105, 110])
    assert (group.prev_id.tolist(), group.ts_event.tolist(), group.ts_recv.tolist()) == ([-1, -1], [NS, NS], [7, 9])
    assert (group.bid_end.tolist(), group.ask_end.tolist()) == ([2, 3], [3, 4])
    assert group.price.tolist() == [6125, 6120, 6130, 6131]
    assert group.size.tolist() == [500, 0, 7000, 0]


def test_futures_depth_takes_the_transaction_time(decoder: Any) -> None:
    group = only(decoder.frames([combined(futures_depth(), "abcusd_perp@depth@0ms")], 0))
    assert (group.symbol, group.prev_id.tolist(), group.ts_event.tolist()) == ("ABCUSD_PERP", [99], [NS])


def test_quotes(decoder: Any) -> None:
    decoder.set_scale("ABCUSDT", 2, 1)
    frames = [ticker(), combined(futures_quote(), "abcusdt@bookTicker"), ticker(b="0.00", B="0.0")]
    group = only(decoder.frames(frames, 7))
    assert group.update_id.tolist() == [105] * 3
    assert (group.bid.tolist(), group.bid_size.tolist()) == ([6125, 6120, 0], [5, 50, 0])
    assert (group.ask.tolist(), group.ask_size.tolist()) == ([6130] * 3, [70] * 3)
    assert (group.ts_event.tolist(), group.ts_recv.tolist()) == ([0, NS, 0], [7] * 3)


def test_quotes_of_raw_streams(decoder: Any) -> None:
    decoded = decoder.frames([raw(quote()), raw(futures_quote())], 0)
    assert only(decoded).update_id.tolist() == [105, 105]


@pytest.mark.parametrize("stamp", [T, T * 1000 + 7, NS + 7])
def test_time_unit_by_magnitude(decoder: Any, stamp: int) -> None:
    expected = NS + (stamp != T) * (7000 if stamp < NS else 7)
    assert only(decoder.frames([spot(E=stamp)], 0)).ts_event.tolist() == [expected]


SNAPSHOT = {"lastUpdateId": 1, "bids": [], "asks": []}
RAW = [
    (
        combined({"e": "kline", "k": {}}, "a@kline_1m@+08:00"),
        "kline",
        "a@kline_1m@+08:00",
        raw({"e": "kline", "k": {}}),
    ),
    (combined([{}], "!miniTicker@arr"), "24hrMiniTicker", "!miniTicker@arr", b"[{}]"),
    (combined(SNAPSHOT, "币usdt@depth5"), "partialDepth", "币usdt@depth5", raw(SNAPSHOT)),
    (b' { "data" : {"e": 1 } , "stream" : "a@kline_1s" } ', "kline", "a@kline_1s", b'{"e": 1 }'),
    (raw({"e": "24hrMiniTicker", "s": "A"}), "24hrMiniTicker", "", raw({"e": "24hrMiniTicker", "s": "A"})),
    (raw(SNAPSHOT), "snapshot", "", raw(SNAPSHOT)),
    (b" " + raw({"bids": [], "lastUpdateId": 1}) + b"\n", "snapshot", "", raw({"bids": [], "lastUpdateId": 1})),
]


@pytest.mark.parametrize(("frame", "kind", "stream", "body"), RAW)
def test_frames_kept_raw(decoder: Any, frame: bytes, kind: str, stream: str, body: bytes) -> None:
    decoded = decoder.frames([frame], 7)
    assert (decoded.others, decoded.rejects) == ({}, {})
    (rest,) = decoded.rest
    assert (rest.kind, rest.stream, rest.body, rest.ts_recv) == (kind, stream, body, 7)


@pytest.mark.parametrize(
    ("frame", "others"),
    [
        (raw({"e": "serverShutdown", "E": T}), {"serverShutdown": 1}),
        (combined({"e": "serverShutdown"}, "!serverShutdown"), {"serverShutdown": 1}),
        (raw({"result": None, "id": 1}), {"control": 1}),
        (combined({}, "abcusdt@ticker"), {"24hrTicker": 1}),
        (raw({"e": "news"}), {"unknown:news": 1}),
        (raw([]), {"unknown:array": 1}),
    ],
)
def test_the_others_are_counted_as_ever(decoder: Any, frame: bytes, others: dict[str, int]) -> None:
    assert flat_books(decoder.frames([frame], 0)) == ([], others, {}, 0, [], [])


def test_trades_beside_books(decoder: Any) -> None:
    decoded = decoder.frames([spot(), combined(trade()), ticker(), combined(agg()), spot(U=106, u=106)], 0)
    assert [len(group) for group in decoded.groups] == [1, 1]
    assert (len(decoded.depth[0]), len(decoded.quotes[0])) == (2, 1)


REFUSED: list[tuple[bytes, str]] = [
    *((combined(without(depth(), key), "a@depth"), "missing_field") for key in "sUubaE"),
    *((combined(without(quote(), key), "a@bookTicker"), "missing_field") for key in "subBaA"),
    *((spot(**{key: None}), "wrong_type") for key in "sUubaE"),
    (spot(U="101"), "wrong_type"),
    (spot(u=1.5), "wrong_type"),
    (spot(e="trade"), "wrong_type"),
    (spot(pu="1"), "wrong_type"),
    (spot(s=""), "wrong_type"),
    (spot(b={}), "wrong_type"),
    (spot(b=[["1"]]), "wrong_type"),
    (spot(b=[["1", None]]), "wrong_type"),
    (spot(a=["1"]), "wrong_type"),
    (combined([], "abcusdt@depth"), "wrong_type"),
    (ticker(B=None), "wrong_type"),
    (spot(u=2**63), "overflow"),
    (spot(U=-1), "overflow"),
    (spot(pu=-1), "overflow"),
    (ticker(u=-1), "overflow"),
    (spot(b=[["61.2", "x"]]), "bad_number"),
    (spot(b=[["0.00", "1"]]), "bad_number"),
    (spot(b=[["-1", "1"]]), "bad_number"),
    (spot(a=[["1", "-1"]]), "bad_number"),
    (ticker(a="NaN"), "bad_number"),
    (ticker(a="-1"), "bad_number"),
    (spot(E=5), "bad_time"),
    (spot(T=0), "bad_time"),
    (combined(futures_quote(T=1), "a@bookTicker"), "bad_time"),
    (spot()[:-1], "malformed_json"),
    (spot() + b"x", "malformed_json"),
    (spot(b=[["1" * 19, BIG], ["0.1", "1"]]), "overflow"),
    (spot(b=[["1", "1" * 25]]), "overflow"),
]


@pytest.mark.parametrize(("frame", "reason"), REFUSED, ids=lambda value: str(value[:70]))
def test_refused_frames_are_counted_and_leave_no_trace(decoder: Any, frame: bytes, reason: str) -> None:
    good = spot(U=1, u=1)
    decoded = decoder.frames([good, frame, good], 0)
    assert (decoded.rejects, decoded.others) == ({reason: 1}, {})
    assert len(decoded.depth[0]) == 2 and not decoded.quotes
    assert flat_books(decoded)[4] == flat_books(decoder.frames([good, good], 0))[4]


@pytest.mark.parametrize(
    "frame",
    [
        raw(depth()),
        b" " + spot().replace(b":", b" :\n").replace(b",", b" , "),
        combined(dict(reversed(depth().items())), "abcusdt@depth"),
        combined(depth(new=[{"x": None}]), "abcusdt@depth"),
        combined(without(depth(), "e"), "abcusdt@depth"),
        combined(depth(), "abcusdt@new"),
        spot().replace(b'"U":101', b'"U":5,"U":101'),
        spot().replace(b'"61.25000000"', b"6125e-2").replace(b'"7"', b"7"),
        spot(a=[["61.3", "7", [], "more"]]),
        spot().replace(b"ABCUSDT", b"\\u0041BCUSDT"),
    ],
)
def test_any_layout_gives_the_same_book(module: Any, frame: bytes) -> None:
    decoded = [module.Decoder(books=True).frames([each], 0) for each in (frame, spot())]
    assert flat_books(decoded[0]) == flat_books(decoded[1])


class TestScales:
    def test_a_finer_level_widens_what_was_read_and_is_remembered(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 1, 0)
        frames = [spot(b=[["61.2", "5"]], a=[]), spot(b=[], a=[["61.255", "0.5"]])]
        group = only(decoder.frames(frames, 0))
        assert (group.price_scale, group.size_scale) == (3, 1)
        assert (group.price.tolist(), group.size.tolist()) == ([61200, 61255], [50, 5])
        assert only(decoder.frames(frames[:1], 0)).price.tolist() == [61200]

    def test_books_do_not_widen_trades_or_quotes(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 2, 1)
        decoded = decoder.frames([spot(b=[["61.255", "0.123456"]]), ticker(), combined(trade())], 0)
        scales = [(g.price_scale, g.size_scale) for g in (*decoded.depth, *decoded.quotes, *decoded.groups)]
        assert scales == [(3, 6), (2, 1), (2, 1)]

    def test_a_new_symbol_leaves_every_level_room(self, decoder: Any) -> None:
        group = only(decoder.frames([spot(b=[["0.5", "1"], ["0.1", "500000000000"]], a=[])], 0))
        assert group.size_scale < 8
        assert Decimal(int(group.size[1])).scaleb(-group.size_scale) == 500_000_000_000

    def test_widening_that_would_overflow_refuses_the_frame(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 0, 0)
        big = [spot(b=[["1", BIG]], a=[]), spot(b=[["1", "0.5"]], a=[])]
        decoded = decoder.frames(big, 0)
        assert decoded.rejects == {"overflow": 1}
        assert decoded.depth[0].size.tolist() == [2**63 - 1]


class TestSnapshot:
    BODY = {"lastUpdateId": 105, "bids": [["61.25", "0.5"], ["61.2", "1"]], "asks": [["61.3", "7"]]}

    def test_read(self, module: Any) -> None:
        group = module.read_snapshot(raw(self.BODY | {"E": T + 5, "T": T}), 2, 0)
        assert (group.symbol, group.price_scale, group.size_scale) == ("", 2, 1)
        assert (group.last_id.tolist(), group.ts_event.tolist()) == ([105], [NS])
        assert (group.price.tolist(), group.size.tolist()) == ([6125, 6120, 6130], [5, 10, 70])
        assert (group.bid_end.tolist(), group.ask_end.tolist()) == ([2], [3])

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"<html>busy</html>", "malformed_json"),
            (raw(BODY)[:-5], "malformed_json"),
            (b"\xff", "bad_utf8"),
            (raw([]), "wrong_type"),
            (raw({"code": -1121, "msg": "Invalid symbol."}), "missing_field"),
            (raw(BODY | {"lastUpdateId": "105"}), "wrong_type"),
            (raw(BODY | {"bids": [["1"]]}), "wrong_type"),
            (raw(BODY | {"bids": [["0", "1"]]}), "bad_number"),
            (raw(BODY | {"E": 7}), "bad_time"),
            (raw(BODY | {"lastUpdateId": 2**63}), "overflow"),
            (raw(BODY | {"asks": [["1e19", "1"]]}), "overflow"),
        ],
    )
    def test_refused(self, module: Any, body: bytes, reason: str) -> None:
        assert module.read_snapshot(body, 8, 8) == reason
