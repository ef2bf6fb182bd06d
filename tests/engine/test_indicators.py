"""Derived values against plain Decimal arithmetic written from their definitions."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal, localcontext

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tapewick.engine.candles import put_sums
from tapewick.engine.indicators import EXTRA, ema, rolling, series, sma, ticker, vwap, warm_up
from tapewick.model import CANDLE, Candles, Head, Instrument, State
from tapewick.timeframe import MINUTE

BTC = Instrument(id="sim:BTCUSDT", venue="sim", symbol="BTCUSDT", price_scale=2, size_scale=3)
HEAD = Head(
    instrument=BTC.id, epoch="E", seq=7, pos=3, watermark=0, price_scale=BTC.price_scale, size_scale=BTC.size_scale
)


def rows(closes: list[int], *, empty: tuple[int, ...] = ()) -> Candles:
    """Minutes that close at ``closes``; those at the indices ``empty`` are filled ones without trades."""
    out = np.zeros(len(closes), CANDLE)
    out["tf"], out["state"] = 1, State.CLOSED
    out["open_time"] = np.arange(len(closes)) * MINUTE
    out["last_ts"] = out["open_time"] + MINUTE - 1
    for name in ("open", "high", "low", "close"):
        out[name] = closes
    out["trades"] = 1
    put_sums(out, "volume", [2] * len(closes))
    put_sums(out, "quote_volume", [2 * close for close in closes])
    out["trades"][list(empty)] = 0
    return out


def down(value: Decimal, digits: int) -> int:
    return int(value.scaleb(digits).to_integral_value(ROUND_DOWN))


def plain_ema(closes: list[int], n: int) -> int | None:
    """The last value, step by step with the stated digits."""
    if len(closes) < n:
        return None
    window = [Decimal(close) for close in closes[-8 * n :]]
    with localcontext() as context:
        context.prec = 80
        state = Decimal(down(sum(window[:n], Decimal(0)) / n, 8)).scaleb(-8)
        for close in window[n:]:
            state = Decimal(down((2 * close + (n - 1) * state) / (n + 1), 8)).scaleb(-8)
        return down(state, EXTRA)


@given(st.lists(st.integers(1, 10**7), max_size=40), st.integers(1, 12))
def test_sma_is_the_truncated_mean_of_the_last_closes(closes: list[int], n: int) -> None:
    expected = [
        None if i + 1 < n else down(Decimal(sum(closes[i + 1 - n : i + 1])) / n, EXTRA) for i in range(len(closes))
    ]
    assert sma(rows(closes), n) == expected


@given(st.lists(st.integers(1, 10**7), max_size=60), st.integers(1, 4))
def test_ema_looks_at_a_fixed_window_only(closes: list[int], n: int) -> None:
    assert ema(rows(closes), n) == [plain_ema(closes[: i + 1], n) for i in range(len(closes))]


def test_ema_of_prices_near_int64_is_exact() -> None:
    closes = [2**62 + i * 12_345_678_901 for i in range(40)]
    assert ema(rows(closes), 3) == [plain_ema(closes[: i + 1], 3) for i in range(40)]


def test_filled_rows_repeat_the_value_before_them() -> None:
    filled = rows([100, 999, 200, 999], empty=(1, 3))
    assert sma(filled, 1) == [1_000_000, 1_000_000, 2_000_000, 2_000_000]
    assert sma(rows([5, 100], empty=(0,)), 1) == [None, 1_000_000]


def test_warm_up_is_all_a_value_depends_on() -> None:
    closes = [10**14 + i * 7 % 31 * 10**13 for i in range(200)]
    for name, n in (("sma", 9), ("ema", 9), ("vwap", 0)):
        whole = series(rows(closes), name, n)
        need = warm_up(name, n)
        assert series(rows(closes)[-need - 1 :], name, n)[-1] == whole[-1]
        if need:
            assert series(rows(closes)[-need:], name, n)[-1] != whole[-1]


def test_vwap_is_null_without_volume() -> None:
    some = rows([150, 250])
    put_sums(some, "volume", [2, 0])
    put_sums(some, "quote_volume", [301, 0])
    assert vwap(some) == [1_505_000, None]


def test_rolling_sums_pass_64_bits() -> None:
    some = rows([100, 90, 120])
    put_sums(some, "quote_volume", [2**90, 2**90, 5])
    found = rolling(some)
    assert found is not None
    assert (found.open, found.high, found.low, found.last) == (100, 120, 90, 120)
    assert found.quote_volume == 2**91 + 5
    assert rolling(rows([1], empty=(0,))) is None


def test_ticker_of_a_day() -> None:
    closes = [10_000] * 10 + [20_000] * 1440 + [15_000]
    told = ticker(BTC, rows(closes), HEAD)
    assert told["last"] == "150"
    assert told["open_24h"] == "200", "the window begins 24 h before the newest trade, on a whole minute"
    assert (told["change_24h"], told["change_pct_24h"]) == ("-50", "-25.00")
    assert (told["high_24h"], told["low_24h"], told["trades_24h"]) == ("200", "150", 1441)
    assert told["session_high"] == "200", "the session is the UTC day of the newest trade"
    assert told["sma10"] == "195"
    assert told["ts"] == (1450 * MINUTE + MINUTE - 1) // 1_000_000
    assert told["position"] == "E:7"


def test_ticker_before_the_first_trade() -> None:
    told = ticker(BTC, rows([]), HEAD)
    assert told["last"] is None and told["change_pct_24h"] is None and told["ts"] is None and told["trades_24h"] == 0
