"""Exact-decimal JSON rows of both codecs against an oracle made of ``json`` and ``Decimal``."""

from __future__ import annotations

import decimal
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.errors import BadRequest, ModelError
from tapewick.model import CANDLE, Candles, TradeBatch, empty_candles
from tapewick.timeframe import NAMES

from .codecs import codec

EXACT = decimal.Context(prec=200, rounding=decimal.ROUND_DOWN, Emin=-999, Emax=999)
SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
INT64 = st.one_of(st.integers(0, 10**12), st.sampled_from([0, 1, 10, 2**63 - 1, 10**18, 9_000_000]))
SUM = st.one_of(
    st.integers(0, 10**12),
    st.integers(0, 2**127 - 1),
    st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**64, 10**19, 10**38, 2**114, 2**126, 2**127 - 1]),
)
NAMES_TO_ESCAPE = ["binance:BTCUSDT", 'a"b\\c/', "币安:人生", "\x00\x01\b\f\n\r\t\x1f\x7f\u2028😀", ""]


@pytest.fixture(params=["python", "native"])
def module(request: pytest.FixtureRequest) -> Any:
    return codec(request.param)


def plain(value: Decimal) -> str:
    """Decimal text without exponent, trailing zeros or minus zero."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def scaled(mantissa: int, scale: int) -> str:
    return plain(Decimal(mantissa).scaleb(-scale, EXACT))


def candle(**fields: int) -> Candles:
    """One row; sums are given whole."""
    rows = np.zeros(1, CANDLE)
    for name, value in fields.items():
        if name in SUMS:
            rows[name + "_lo"], rows[name + "_hi"] = value & (2**64 - 1), value >> 64
        else:
            rows[name] = value
    return rows


def expected_candle(instrument: str, f: dict[str, int], ps: int, ss: int, times: str, text_ids: bool) -> dict[str, Any]:
    """The row as the reader should see it."""
    shown = f["trades"] != 0 or f["filled"] == 1
    id = str if text_ids else int
    vwap = None
    if f["volume"]:
        quotient = EXACT.divide(
            Decimal(f["quote_volume"]).scaleb(-ps - ss, EXACT), Decimal(f["volume"]).scaleb(-ss, EXACT)
        )
        vwap = plain(quotient.quantize(Decimal(1).scaleb(-ps - 4), context=EXACT))
    row: dict[str, Any] = {
        "instrument": instrument,
        "tf": NAMES[f["tf"]],
        "open_time": str(f["open_time"]) if times == "ns" else f["open_time"] // 10**6,
    }
    row |= {name: scaled(f[name], ps) if shown else None for name in ("open", "high", "low", "close")}
    row |= {name: scaled(f[name], ps + ss if "quote" in name else ss) for name in SUMS}
    row |= {"trades": f["trades"], "first_id": id(f["first_id"]), "last_id": id(f["last_id"]), "vwap": vwap}
    row |= {"state": ("open", "closed", "final")[f["state"]], "rev": f["rev"]}
    row |= {"complete": {1: True, 0: False, -1: None}[f["complete"]], "last_seq": f["last_seq"], "pos": f["pos"]}
    row |= {"origin": ("tape", "import")[f["origin"]]}
    return row | ({"filled": True} if f["filled"] else {})


fields = st.fixed_dictionaries(
    {
        **dict.fromkeys(("open", "high", "low", "close", "trades", "last_seq", "pos"), INT64),
        **dict.fromkeys(("first_id", "last_id"), st.integers(-1, 2**63 - 1)),
        **dict.fromkeys(SUMS, SUM),
        "open_time": st.integers(-(10**18), 4 * 10**18),
        "rev": st.integers(0, 2**31 - 1),
        "tf": st.integers(0, 17),
        "state": st.integers(0, 2),
        "complete": st.integers(-1, 1),
        "origin": st.integers(0, 1),
        "filled": st.integers(0, 1),
    }
)
options = st.fixed_dictionaries(
    {"times": st.sampled_from(["ms", "ns"]), "lines": st.booleans(), "text_ids": st.booleans()}
)
scales = st.one_of(st.integers(0, 12), st.sampled_from([18, 38]))


@pytest.mark.parametrize("name", ["python", "native"])
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(fields, max_size=4), ps=scales, ss=scales, how=options, instrument=st.sampled_from(NAMES_TO_ESCAPE)
)
def test_candles(name: str, rows: list[dict[str, int]], ps: int, ss: int, how: dict[str, Any], instrument: str) -> None:
    array = np.concatenate([empty_candles(), *(candle(**row) for row in rows)])
    text = codec(name).encode_candles(instrument, array, ps, ss, **how)
    want = [expected_candle(instrument, row, ps, ss, how["times"], how["text_ids"]) for row in rows]
    dumped = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in want]
    whole = "".join(row + "\n" for row in dumped) if how["lines"] else "[" + ",".join(dumped) + "]"
    assert text.decode() == whole


def columns(rows: list[tuple[int, ...]], seq: bool, ps: int, ss: int, instrument: str) -> TradeBatch:
    table = [np.array(column, np.int64) for column in zip(*rows, strict=True)] or [np.empty(0, np.int64)] * 9
    return TradeBatch(
        instrument=instrument,
        trade_id=table[0],
        first_id=table[1],
        count=table[2].astype(np.int32),
        ts_event=table[3],
        ts_recv=table[4],
        price=table[5],
        size=table[6],
        side=table[7].astype(np.int8),
        price_scale=ps,
        size_scale=ss,
        seq=table[8] if seq else None,
    )


ANY64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**12))
trades = st.tuples(
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), ANY64, ANY64, ANY64, ANY64, st.integers(-1, 1), ANY64
)


@pytest.mark.parametrize("name", ["python", "native"])
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(trades, max_size=4),
    seq=st.booleans(),
    ps=scales,
    ss=scales,
    how=options,
    instrument=st.sampled_from(NAMES_TO_ESCAPE),
)
def test_trades(
    name: str, rows: list[tuple[int, ...]], seq: bool, ps: int, ss: int, how: dict[str, Any], instrument: str
) -> None:
    text = codec(name).encode_trades(columns(rows, seq, ps, ss, instrument), **how)
    id: Any = str if how["text_ids"] else int
    dumped = []
    for trade_id, first_id, count, ts_event, ts_recv, price, size, side, number in rows:
        several = {"first_id": id(first_id), "count": count} if count > 1 or first_id != trade_id else {}
        times = {"ts_event": ts_event, "ts_recv": ts_recv}
        row = {
            "instrument": instrument,
            "seq": number if seq else None,
            "trade_id": id(trade_id),
            **several,
            **{key: str(t) if how["times"] == "ns" else t // 10**6 for key, t in times.items()},
            "price": scaled(price, ps),
            "size": scaled(size, ss),
            "side": {-1: "sell", 0: "unknown", 1: "buy"}[side],
        }
        dumped.append(json.dumps(row, separators=(",", ":"), ensure_ascii=False))
    whole = "".join(row + "\n" for row in dumped) if how["lines"] else "[" + ",".join(dumped) + "]"
    assert text.decode() == whole


def test_a_known_candle(module: Any) -> None:
    """Written out by hand: the field order and forms clients rely on."""
    row = candle(
        open_time=1_700_000_040_000_000_000, open=6100, high=6250, low=6050, close=6209, volume=300_000,
        quote_volume=1_840_000_001, taker_buy_volume=100_001, taker_buy_quote_volume=620_000_000, trades=12,
        first_id=500, last_id=511, last_seq=99, pos=7, tf=1, state=2, complete=1, rev=2,
    )  # fmt: skip
    assert module.encode_candles("sim:ABCUSDT", row, 2, 5) == (
        b'[{"instrument":"sim:ABCUSDT","tf":"1m","open_time":1700000040000,"open":"61","high":"62.5","low":"60.5",'
        b'"close":"62.09","volume":"3","quote_volume":"184.0000001","taker_buy_volume":"1.00001",'
        b'"taker_buy_quote_volume":"62","trades":12,"first_id":500,"last_id":511,"vwap":"61.333333","state":"final",'
        b'"rev":2,"complete":true,"last_seq":99,"pos":7,"origin":"tape"}]'
    )


def test_rows_need_not_lie_together(module: Any) -> None:
    rows = np.concatenate([candle(open_time=i * 10**6, volume=i) for i in range(10)])
    rows.flags.writeable = False
    assert json.loads(module.encode_candles("x", rows[::-3], 0, 0)) == json.loads(
        module.encode_candles("x", rows[[9, 6, 3, 0]], 0, 0)
    )


def test_many_rows(module: Any) -> None:
    rows = np.repeat(candle(open=2**63 - 1, trades=1, quote_volume=2**127 - 1, volume=1), 3000)
    long = "x" * 5000
    answer = module.encode_candles(long, rows, 8, 8, lines=True).splitlines()
    assert len(answer) == 3000 and set(map(len, answer)) == {len(answer[0])}
    batch = columns([(1, 1, 1, 0, 0, 1, 1, 1, 1)] * 3000, True, 8, 8, long)
    assert len(json.loads(module.encode_trades(batch))) == 3000


@pytest.mark.parametrize(("field", "value"), [("tf", 18), ("tf", -1), ("state", 3), ("state", -1), ("origin", 2)])
def test_values_without_a_name(module: Any, field: str, value: int) -> None:
    with pytest.raises(ModelError, match=f"candle row 0 holds no legal value in '{field}'"):
        module.encode_candles("x", candle(**{field: value}), 0, 0)


def test_refused_arguments(module: Any) -> None:
    batch = columns([(1, 1, 1, 0, 0, 1, 1, 1, 1)], True, 0, 0, "x")
    with pytest.raises(BadRequest, match="'ms' or 'ns'"):
        module.encode_candles("x", empty_candles(), 0, 0, times="s")
    with pytest.raises(BadRequest, match="'ms' or 'ns'"):
        module.encode_trades(batch, times="us")
    with pytest.raises(ModelError, match="between 0 and 38"):
        module.encode_candles("x", empty_candles(), 39, 0)
    with pytest.raises(TypeError, match="CANDLE"):
        module.encode_candles("x", np.zeros(3), 0, 0)
    with pytest.raises(UnicodeEncodeError):
        module.encode_candles("\ud800", empty_candles(), 0, 0)
    batch.size = batch.size[:0]
    with pytest.raises(ModelError, match="column 'size' has 0 rows, not 1"):
        module.encode_trades(batch)
