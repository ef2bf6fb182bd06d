"""What the Binance surface is made of: zones, names, symbols, numbers, weights."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tapewick.decimals import format_mantissa
from tapewick.gateways._binance_names import parsed
from tapewick.gateways._binance_query import INTERVALS, Query
from tapewick.gateways._binance_rows import printer
from tapewick.gateways._binance_stats import total
from tapewick.gateways._binance_symbols import chosen
from tapewick.gateways._binance_weights import Meter
from tapewick.model import CANDLE
from tapewick.timeframe import HOUR, MINUTE, SECOND
from tests.gateways.rig import BTC, STEP, T0, batch, instrument, running

OFFSETS = {
    "3": 3 * HOUR,
    "-7": -7 * HOUR,
    "+5:30": 5 * HOUR + 30 * MINUTE,
    "05:45": 5 * HOUR + 45 * MINUTE,
    "0:05": 5 * MINUTE,
}
SPREAD = 977 * SECOND  # between two trades: all zones' boundaries are met


def opened(text: str, ns: int, zone: int) -> int:
    """The local bucket of an interval, by the calendar."""
    when = dt.datetime.fromtimestamp((ns + zone) // SECOND, dt.UTC)
    day = when.replace(hour=0, minute=0, second=0)
    if text == "1M":
        start = day.replace(day=1)
    elif text == "1w":
        start = day - dt.timedelta(days=day.weekday())
    else:
        length = {"1h": HOUR, "4h": 4 * HOUR, "1d": 24 * HOUR}[text] // SECOND
        seconds = int((when - day).total_seconds())
        start = day + dt.timedelta(seconds=seconds - seconds % length)
    return int(start.timestamp()) * SECOND - zone


async def test_bars_of_any_zone_are_the_fold_of_their_trades(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        own = batch(1, 1000)
        own.ts_event = T0 + own.trade_id * SPREAD
        rig.clock.set(int(own.ts_event[-1]) + HOUR)
        await rig.bus.publish("trades", own)
        await rig.bus.settled("trades")
        for zone, offset in OFFSETS.items():
            for interval in ("1h", "4h", "1d", "1w", "1M"):
                path = f"/api/v3/klines?symbol=BTCUSDT&interval={interval}&timeZone={zone}&limit=1000"
                rows = await rig.get(path)
                opens = np.array([opened(interval, ts, offset) for ts in own.ts_event.tolist()])
                truth: dict[int, list[Any]] = {}
                for start in sorted(set(opens.tolist())):
                    part = own.select(np.flatnonzero(opens == start))
                    prices = [int(part.price[0]), int(part.price.max()), int(part.price.min()), int(part.price[-1])]
                    texts = [format_mantissa(p, 2, pad=True) for p in prices]
                    truth[start // 1_000_000] = [*texts, format_mantissa(int(part.size.sum()), 3, pad=True), len(part)]
                assert {row[0]: [*row[1:6], row[8]] for row in rows} == truth, (zone, interval)
                assert all(a[6] + 1 == b[0] for a, b in zip(rows, rows[1:], strict=False))
                first, *_ = await rig.get(path + "&startTime=0")
                assert first == rows[0]
                middle = rows[len(rows) // 2][0]
                assert (await rig.get(f"{path}&endTime={middle}"))[-1][0] == middle
                assert (await rig.get(f"{path}&startTime={middle}"))[0][0] == middle


async def test_quiet_local_days_are_flat(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        own = batch(1, 2)
        own.ts_event = np.array([T0 + STEP, T0 + 5 * 24 * HOUR])
        rig.clock.set(T0 + 6 * 24 * HOUR)
        await rig.bus.publish("trades", own)
        await rig.bus.settled("trades")
        rows = await rig.get("/api/v3/klines?symbol=BTCUSDT&interval=1d&timeZone=1")
        assert [row[8] for row in rows] == [1, 0, 0, 0, 0, 1]
        assert {row[k] for row in rows[1:-1] for k in (1, 2, 3, 4)} == {rows[0][4]}


def test_zones() -> None:
    texts = {"0": 0, "-12:00": -12 * HOUR, "+14:00": 14 * HOUR, " 8": 8 * HOUR, "-1:30": -90 * MINUTE}
    assert {text: Query({"timeZone": text}).zone() for text in texts} == texts


def test_the_venues_intervals() -> None:
    wanted = "1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M".split()
    assert list(INTERVALS) == wanted
    assert all(parsed(f"btcusdt@kline_{name}") for name in wanted)


def test_stream_names() -> None:
    known = (
        "btcusdt@trade btcusdt@aggTrade btcusdt@kline_1d@+08:00 btcusdt@depth btcusdt@depth@100ms btcusdt@depth@1000ms "
        "btcusdt@depth5 btcusdt@depth10@100ms btcusdt@depth20 btcusdt@bookTicker btcusdt@miniTicker !miniTicker@arr "
        "btcusdt@ticker btcusdt@ticker_1h !ticker_4h@arr btcusdt@ticker_1d btcusdt@avgPrice 币安人生usdt@trade"
    ).split()
    assert [name for name in known if parsed(name) is None] == []
    silent = "btcusdt btcusdt@ @trade BTCUSDT@trade btcusdt@kline_2m btcusdt@depth7 !ticker@arr !x@arr x@blockTrade"
    assert [name for name in silent.split() if parsed(name) is not None] == []


def test_whose_instrument_a_symbol_is() -> None:
    both = [instrument("sim:BTCUSDT"), instrument("binance:BTCUSDT"), instrument("okx:BTCUSDT")]
    assert chosen(both) == {"BTCUSDT": "binance:BTCUSDT"}
    assert chosen([both[0], both[2]]) == {"BTCUSDT": "sim:BTCUSDT"}
    assert chosen([both[2]]) == {"BTCUSDT": "okx:BTCUSDT"}
    assert chosen([both[2], instrument("kraken:BTCUSDT")]) == {}, "two strangers: the setting must name one"
    assert chosen(both, venue="okx") == {"BTCUSDT": "okx:BTCUSDT"}
    assert chosen(both, venue="kraken") == {}
    hook = instrument("hook:XYZ", id_kind="unique")
    oracle = instrument("chainlink:ETH/USD")
    assert chosen([hook, oracle]) == {}
    assert chosen([hook, oracle], oracles=True) == {"ETHUSD": "chainlink:ETH/USD"}
    assert BTC == "sim:BTCUSDT"


@given(st.integers(-(2**63), 2**63), st.integers(0, 18))
def test_numbers_are_padded_and_exact(mantissa: int, scale: int) -> None:
    assert printer(scale)(mantissa) == format_mantissa(mantissa, scale, pad=True)


@given(st.lists(st.integers(0, 2**100), max_size=20))
def test_wide_sums_are_exact(values: list[int]) -> None:
    rows = np.zeros(len(values), CANDLE)
    rows["volume_lo"] = np.array([value & (2**64 - 1) for value in values], np.uint64)
    rows["volume_hi"] = [value >> 64 for value in values]
    assert total(rows, "volume") == sum(values)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 40), st.integers(0, 40)), max_size=30))
def test_no_minute_holds_more_weight_than_allowed(requests: list[tuple[str, int, int]]) -> None:
    now, limit = [0], 100
    meter = Meter(limit, lambda: now[0] * SECOND)
    spent: dict[tuple[str, int], int] = {}
    for peer, weight, pause in requests:
        now[0] += pause
        answer = meter.spend(peer, weight)
        key = (peer, now[0] // 60)
        if answer.wait is None:
            spent[key] = spent.get(key, 0) + weight
            assert answer.used >= spent[key]
        else:
            assert answer.wait == 60 - now[0] % 60
    assert all(used <= limit for used in spent.values())
