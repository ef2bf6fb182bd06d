"""Decoding raw frames: what is read, counted and refused, in both codecs."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick.errors import ModelError

from .codecs import T, agg, codec, combined, flat, futures, raw, trade, without

NS = T * 1_000_000
MIB = 1 << 20


@pytest.fixture(params=["python", "native"])
def module(request: pytest.FixtureRequest) -> Any:
    return codec(request.param)


@pytest.fixture
def decoder(module: Any) -> Any:
    return module.Decoder()


def only(decoded: Any) -> Any:
    """The one group of a decode call without others or rejects."""
    assert decoded.others == {} and decoded.rejects == {}
    (group,) = decoded.groups
    return group


def test_spot_trade(decoder: Any) -> None:
    group = only(decoder.frames([combined(trade()), combined(trade(t=1001, m=False))], 7))
    assert (group.symbol, group.kind, group.futures) == ("ABCUSDT", "trade", False)
    assert (group.price_scale, group.size_scale) == (8, 8)
    assert group.trade_id.tolist() == group.first_id.tolist() == [1000, 1001]
    assert group.count.tolist() == [1, 1]
    assert group.ts_event.tolist() == [NS, NS]
    assert group.ts_recv.tolist() == [7, 7]
    assert group.price.tolist() == [6_125_000_000] * 2
    assert group.size.tolist() == [50_000_000] * 2
    assert group.side.tolist() == [-1, 1]
    assert group.voids.tolist() == []


def test_aggregate_covers_its_ids(decoder: Any) -> None:
    group = only(decoder.frames([combined(agg())], 0))
    assert (group.kind, group.trade_id[0], group.first_id[0], group.count[0]) == ("aggTrade", 1002, 1000, 3)


def test_futures_trade(decoder: Any) -> None:
    assert only(decoder.frames([combined(futures())], 0)).futures
    assert only(decoder.frames([combined(without(futures(ps="ABC"), "X"))], 0)).futures


@pytest.mark.parametrize("absent", ["", "NA", None])
def test_void_futures_id(decoder: Any, absent: str | None) -> None:
    frames = [combined(futures()), combined(futures(t=1001, X=absent, p="0.0", q="0.0")), combined(futures(t=1002))]
    group = only(decoder.frames(frames, 0))
    assert group.trade_id.tolist() == [1000, 1002]
    assert group.voids.tolist() == [1001]


def test_zero_price_of_a_real_trade_is_passed_on(decoder: Any) -> None:
    group = only(decoder.frames([combined(futures(p="0.0", q="0.0")), combined(trade(p="-1", q="-0.5"))], 0))
    assert group.price.tolist() == [0, -100_000_000]
    assert group.size.tolist() == [0, -50_000_000]
    assert group.voids.tolist() == []


def test_only_void_ids(decoder: Any) -> None:
    group = only(decoder.frames([combined(futures(X="", p="0", q="0"))], 0))
    assert (len(group), group.voids.tolist(), group.price_scale) == (0, [1000], 8)


def test_groups_by_symbol_and_kind_keep_arrival_order(decoder: Any) -> None:
    frames = [combined(b) for b in (trade(), agg(), trade(s="XYZ", t=3), trade(t=999), trade(s="XYZ", t=2))]
    groups = decoder.frames(frames, 0).groups
    assert [(g.symbol, g.kind, g.trade_id.tolist()) for g in groups] == [
        ("ABCUSDT", "trade", [1000, 999]),
        ("ABCUSDT", "aggTrade", [1002]),
        ("XYZ", "trade", [3, 2]),
    ]


def test_receive_time_per_frame(decoder: Any) -> None:
    decoded = decoder.frames([combined(trade()), raw({"id": 1, "result": None})], np.array([5, 9], np.int64))
    assert decoded.groups[0].ts_recv.tolist() == [5]
    assert decoded.last_recv == 9
    assert decoder.frames([], 5).last_recv == 0
    with pytest.raises(ModelError, match="2 receive times for 1 frames"):
        decoder.frames([b"{}"], np.array([5, 9], np.int64))


@pytest.mark.parametrize("frame", ["text", None, 7])
def test_frames_are_bytes(decoder: Any, frame: Any) -> None:
    with pytest.raises(TypeError):
        decoder.frames([frame], 0)
    with pytest.raises(TypeError):
        decoder.lines(frame)


@pytest.mark.parametrize(
    "frame",
    [
        raw(trade()),
        b" " + raw({"data": trade(), "stream": "abcusdt@trade", "new": [1, {"x": None}]}) + b"\r\n\t ",
        raw(dict(reversed(trade().items()))),
        raw(trade(new={"deep": [[], {}]})),
        raw(without(trade(), "E", "M")),
        raw(trade(E="later", M=None)),
        combined(without(trade(), "e"), "abcusdt@trade"),
        combined(trade(), "abcusdt@new"),
        raw(trade()).replace(b":", b" :\n").replace(b",", b"\t, "),
        raw(trade()).replace(b'"p"', b'"\\u0070"').replace(b"ABCUSDT", b"\\u0041BCUSDT"),
        raw(trade()).replace(b'"t":1000', b'"t":1,"t":1000'),
        raw(trade()).replace(b'"61.25000000"', b"61.25000000").replace(b'"0.50000000"', b"5e-1"),
        raw(trade(p="0061.25", q="+.5")),
        raw(trade(p="6125E-2", q="0.05e1")),
    ],
)
def test_any_layout_gives_the_same_trade(module: Any, frame: bytes) -> None:
    assert flat(module.Decoder().frames([frame], 0)) == flat(module.Decoder().frames([combined(trade())], 0))


def test_last_of_repeated_names_counts(decoder: Any) -> None:
    again = combined(trade())[:-1] + b',"stream":"abcusdt@depth"}'
    assert decoder.frames([again], 0).others == {"depthUpdate": 1}


@pytest.mark.parametrize("symbol", ["币安人生USDT", 'A"B\\C', "X" * 64, "\x00A"])
def test_symbols_are_any_text(decoder: Any, symbol: str) -> None:
    assert only(decoder.frames([raw(trade(s=symbol)), raw(trade(s=symbol))], 0)).symbol == symbol


@pytest.mark.parametrize(
    ("stamp", "ns"),
    [
        (T, NS),
        (T * 1000 + 7, NS + 7000),
        (NS + 7, NS + 7),
        (1_230_768_000_000, 1_230_768_000 * 10**9),
        (4_102_444_799_999_999_999, 4_102_444_799_999_999_999),
    ],
)
def test_time_unit_by_magnitude(decoder: Any, stamp: int, ns: int) -> None:
    assert only(decoder.frames([combined(trade(T=stamp))], 0)).ts_event.tolist() == [ns]


OTHERS: list[tuple[bytes, str]] = [
    (combined({"e": "depthUpdate"}, "abcusdt@depth@100ms"), "depthUpdate"),
    (b'{"stream":"abcusdt@depth","data":not even JSON', "depthUpdate"),
    (combined({"lastUpdateId": 1}, "abcusdt@depth20@100ms"), "partialDepth"),
    (combined({"u": 1}, "abcusdt@bookTicker"), "bookTicker"),
    (raw({"u": 1, "s": "A", "b": "1", "B": "1", "a": "2", "A": "1"}), "bookTicker"),
    (raw({"e": "bookTicker", "u": 1}), "bookTicker"),
    (combined({}, "abcusdt@kline_1m@+08:00"), "kline"),
    (combined([], "!miniTicker@arr"), "24hrMiniTicker"),
    (raw({"lastUpdateId": 1, "bids": [], "asks": []}), "snapshot"),
    (raw({"bids": [], "asks": [], "lastUpdateId": 1}), "snapshot"),
    (raw({"result": None, "id": 1}), "control"),
    (raw({"code": 2, "msg": "Invalid request", "id": None}), "control"),
    (raw({"error": {"code": 3}}), "control"),
    (raw({"e": "serverShutdown", "E": T}), "serverShutdown"),
    (combined({"e": "serverShutdown"}, "!serverShutdown"), "serverShutdown"),
    (raw({"e": "outcome", "s": "A"}), "unknown:outcome"),
    (combined({"e": "outcome"}, "abcusdt@news"), "unknown:outcome"),
    (combined({}, "abcusdt@news"), "unknown:abcusdt@news"),
    (combined([], "abcusdt@news"), "unknown:abcusdt@news"),
    (raw({"e": "é" * 40}), "unknown:" + "é" * 32),
    (raw({}), "unknown:"),
    (raw([1]), "unknown:array"),
    (b" null", "unknown:scalar"),
]


@pytest.mark.parametrize(("frame", "kind"), OTHERS)
def test_other_frames_are_counted_by_type(decoder: Any, frame: bytes, kind: str) -> None:
    assert flat(decoder.frames([frame, frame], 3)) == ([], {kind: 2}, {}, 3)


REJECTS: list[tuple[bytes, str]] = [
    (b"", "malformed_json"),
    (b"{", "malformed_json"),
    (b"\xef\xbb\xbf{}", "malformed_json"),
    (combined(trade())[:-1], "malformed_json"),
    (combined(trade()) + b"x", "malformed_json"),
    (raw(trade()).replace(b":true", b":True"), "malformed_json"),
    (raw(trade()).replace(b"1000", b"01000"), "malformed_json"),
    (raw(trade(x=float("nan"))), "malformed_json"),
    (raw(trade()).replace(b"ABC", b"\\ud800ABC"), "malformed_json"),
    (raw(trade()).replace(b"ABC", b"A\nC"), "malformed_json"),
    (b"[" * 100_000, "malformed_json"),
    (raw(trade(x=0)).replace(b'"x":0', b'"x":' + b"[" * 64 + b"]" * 64), "malformed_json"),
    (b'{"a":"\xff"}', "bad_utf8"),
    (raw(trade()).replace(b"ABC", b"\xed\xa0\x80"), "bad_utf8"),
    (combined(trade()).replace(b"ABC", b"\xc0\x80"), "bad_utf8"),
    *((combined(without(trade(), key), "abcusdt@trade"), "missing_field") for key in "stpqTm"),
    *((combined(without(agg(), key), "abcusdt@aggTrade"), "missing_field") for key in "sflpqTm"),
    *((raw(trade(**{key: None})), "wrong_type") for key in "stpqTm"),
    *((raw(trade(t=value)), "wrong_type") for value in ("1000", 1000.0, True, [1000])),
    *((raw(trade(m=value)), "wrong_type") for value in (0, "true")),
    (raw(trade(s="")), "wrong_type"),
    (raw(trade(s="X" * 65)), "wrong_type"),
    (raw(trade(s="é" * 33)), "wrong_type"),
    (raw(trade(e=1)), "wrong_type"),
    (combined(trade(), "abcusdt@aggTrade"), "wrong_type"),
    (combined([trade()], "abcusdt@trade"), "wrong_type"),
    (raw({"stream": 1, "data": trade()}), "wrong_type"),
    *(
        (raw(trade(p=value)), "bad_number")
        for value in (
            "",
            ".",
            "-",
            "NaN",
            "Infinity",
            "1e400",
            "0x10",
            "1,5",
            " 1",
            "1 ",
            "1\n",
            "1e",
            "1e+",
            "1e00001",
        )
    ),
    (raw(trade(p="1" * 39)), "bad_number"),
    (raw(trade(q="١")), "bad_number"),
    (raw(trade()).replace(b'"61.25000000"', b"1e400"), "bad_number"),
    *((raw(trade(T=value)), "bad_time") for value in (0, -T, 1_230_767_999_999, 4_102_444_800_000, 10**30)),
    (raw(trade(t=2**63)), "overflow"),
    (raw(trade(t=-(2**63) - 1)), "overflow"),
    (raw(trade()).replace(b"1000", b"1" * 5000), "overflow"),
    (raw(agg(f=0, l=2**31)), "overflow"),
    (raw(agg(f=-(2**63), l=2**63 - 1)), "overflow"),
    (raw(trade(p="92233720368547758.08", q="92233720368547758.08")), "overflow"),
    (raw(trade(p="1e30")), "overflow"),
    (b'{"e":"trade","x":"' + b"x" * MIB + b'"}', "oversize"),
    (combined({"x": "x" * (10 * MIB)}, "abcusdt@depth"), "oversize"),
]


@pytest.mark.parametrize(("frame", "reason"), REJECTS, ids=lambda value: str(value[:60]))
def test_refused_frames_are_counted_and_the_stream_goes_on(decoder: Any, frame: bytes, reason: str) -> None:
    if reason == "overflow":
        decoder.set_scale("ABCUSDT", 8, 8)
    groups, others, rejects, _ = flat(decoder.frames([frame, combined(trade(t=5))], 0))
    assert (others, rejects) == ({}, {reason: 1})
    assert [columns["trade_id"] for _, columns in groups] == [[5]]


def test_deepest_legal_nesting(decoder: Any) -> None:
    frame = raw(trade(x=0)).replace(b'"x":0', b'"x":' + b"[" * 63 + b'"]"' + b"]" * 63)
    assert len(only(decoder.frames([frame], 0))) == 1


def test_largest_legal_frame(decoder: Any) -> None:
    frame = raw(trade())
    assert len(only(decoder.frames([frame + b" " * (MIB - len(frame))], 0))) == 1
    assert decoder.frames([frame + b" " * (MIB + 1 - len(frame))], 0).rejects == {"oversize": 1}


class TestScales:
    def test_given_scales_are_used(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 2, 5)
        group = only(decoder.frames([combined(trade())], 0))
        assert (group.price_scale, group.size_scale) == (2, 5)
        assert (group.price[0], group.size[0]) == (6125, 50_000)

    def test_a_finer_value_widens_and_is_remembered(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 1, 0)
        frames = [combined(trade(p="1.5", q="2")), combined(agg(p="2", q="1")), combined(trade(p="1.125", q="2.5"))]
        groups = decoder.frames(frames, 0).groups
        assert [(g.price_scale, g.size_scale) for g in groups] == [(3, 1), (3, 1)]
        assert groups[0].price.tolist() == [1500, 1125]
        assert groups[0].size.tolist() == [20, 25]
        assert (groups[1].price.tolist(), groups[1].size.tolist()) == ([2000], [10])
        assert only(decoder.frames([combined(trade(p="7", q="7"))], 0)).price.tolist() == [7000]

    def test_padding_zeros_do_not_widen(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 1, 0)
        group = only(decoder.frames([combined(trade(p="1.50000000000000", q="2.000"))], 0))
        assert (group.price_scale, group.size_scale) == (1, 0)

    @pytest.mark.parametrize(
        ("price", "scale"),
        [
            ("92233720.36854775", 8),
            ("92233720.36854776", 8),
            ("92233720.4", 7),
            ("9.2e12", 3),
            ("1e18", 0),
            ("1e-12", 12),
        ],
    )
    def test_a_new_symbol_keeps_head_room(self, decoder: Any, price: str, scale: int) -> None:
        group = only(decoder.frames([combined(trade(p=price))], 0))
        assert group.price_scale == scale
        assert Decimal(int(group.price[0])).scaleb(-scale) == Decimal(price)

    def test_default_scales(self, module: Any) -> None:
        group = only(module.Decoder(2, 3).frames([combined(trade(p="1", q="1"))], 0))
        assert (group.price_scale, group.size_scale) == (2, 3)

    def test_widening_that_would_overflow_an_earlier_value_refuses_the_later(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 0, 0)
        big = str(2**63 - 1)
        decoded = decoder.frames([combined(trade(p=big)), combined(trade(p="0.1")), combined(trade(t=2, p="3"))], 0)
        assert decoded.rejects == {"overflow": 1}
        assert decoded.groups[0].price.tolist() == [2**63 - 1, 3]
        # In the next call no earlier value stands in the way.
        assert only(decoder.frames([combined(trade(p="0.1"))], 0)).price_scale == 1

    def test_a_refused_frame_leaves_no_trace(self, decoder: Any) -> None:
        decoder.set_scale("ABCUSDT", 0, 0)
        decoded = decoder.frames([combined(trade(p="0.5", q="1e18")), combined(trade(p="0.5", q="9.5e18"))], 0)
        assert decoded.rejects == {"overflow": 1}
        assert (decoded.groups[0].price_scale, decoded.groups[0].size_scale) == (1, 0)

    def test_first_value_of_a_new_symbol_refused(self, decoder: Any) -> None:
        assert decoder.frames([combined(trade(p="1e19"))], 0).rejects == {"overflow": 1}
        assert only(decoder.frames([combined(trade(p="9.2e12"))], 0)).price_scale == 3

    @pytest.mark.parametrize("scales", [(-1, 0), (0, -1), (39, 0), (0, 39)])
    def test_scales_outside_128_bits(self, module: Any, decoder: Any, scales: tuple[int, int]) -> None:
        with pytest.raises(ModelError, match="between 0 and 38"):
            decoder.set_scale("ABCUSDT", *scales)
        with pytest.raises(ModelError, match="between 0 and 38"):
            module.Decoder(*scales)


class TestLines:
    def test_recorder_lines(self, decoder: Any) -> None:
        block = b"11 %s\n12 %s\n\n13 %s\n" % (combined(trade()), OTHERS[0][0], combined(trade(t=1001)))
        groups, others, rejects, last = flat(decoder.lines(block))
        assert groups[0][1]["ts_recv"] == [11, 13]
        assert (others, rejects, last) == ({"depthUpdate": 1, "blank": 1}, {}, 13)

    def test_last_line_without_its_end(self, decoder: Any) -> None:
        assert len(only(decoder.lines(b"11 " + combined(trade())))) == 1
        assert flat(decoder.lines(b"")) == ([], {}, {}, 0)

    @pytest.mark.parametrize("prefix", [b"x ", b" ", b"-1 ", b"1.5 ", b"11", b"1" * 20 + b" ", b"\xd9\xa1 "])
    def test_lines_without_a_receive_time(self, decoder: Any, prefix: bytes) -> None:
        decoded = decoder.lines(prefix + combined(trade()) + b"\n")
        assert (decoded.rejects, decoded.last_recv) == ({"malformed_json": 1}, 0)

    def test_receive_time_beyond_64_bits(self, decoder: Any) -> None:
        assert decoder.lines(b"9223372036854775808 {}\n").rejects == {"bad_time": 1}
        assert decoder.lines(b"9223372036854775807 {}\n").last_recv == 2**63 - 1


COUNTS = {
    "spot_btcusdt_20240808": (9_757, {"depthUpdate": 3_451, "bookTicker": 28_040, "snapshot": 1}),
    "spot_btcusdt_20240809": (10_147, {"depthUpdate": 3_044, "bookTicker": 45_134}),
    "usdm_btcusdt_20240808": (21_313, {"depthUpdate": 6_551, "bookTicker": 66_089, "snapshot": 1}),
    "cm_btcusd_perp_20240808": (2_286, {"depthUpdate": 26_847, "bookTicker": 19_136, "snapshot": 1}),
    "cm_btcusd_perp_20240809": (2_949, {"depthUpdate": 17_948, "bookTicker": 29_219}),
}


@pytest.mark.realdata
class TestRecorded:
    @pytest.fixture
    def decoded(self, module: Any, testdata: Path) -> dict[str, Any]:
        """Each recording decoded by one decoder per market."""
        decoders = {name.split("_")[0]: module.Decoder() for name in COUNTS}
        folder = testdata / "binance-ws-2024-08"
        return {
            name: decoders[name.split("_")[0]].lines(gzip.decompress((folder / f"{name}.gz").read_bytes()))
            for name in COUNTS
        }

    def test_every_line_is_accounted_for(self, decoded: dict[str, Any]) -> None:
        for name, (trades, others) in COUNTS.items():
            assert (len(decoded[name].groups[0]), decoded[name].others) == (trades, others), name
            assert decoded[name].rejects == {} and len(decoded[name].groups) == 1, name

    @pytest.mark.parametrize(
        ("market", "symbol", "first", "last"),
        [
            ("spot", "BTCUSDT", 3735683259, 3735703162),
            ("usdm", "BTCUSDT", 5266583935, 5266605247),
            ("cm", "BTCUSD_PERP", 849714402, 849719636),
        ],
    )
    def test_ids_are_contiguous(self, decoded: dict[str, Any], market: str, symbol: str, first: int, last: int) -> None:
        groups = [decoded[name].groups[0] for name in COUNTS if name.startswith(market)]
        assert {(g.symbol, g.kind, g.futures) for g in groups} == {(symbol, "trade", market != "spot")}
        assert np.concatenate([g.trade_id for g in groups]).tolist() == list(range(first, last + 1))
