"""File sources on recorded data: every line accounted for, every trade once, the venue's own candles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick.decimals import parse_mantissa, truncated_ratio
from tapewick.engine import _codec
from tapewick.engine.candles import SUMS, fill, fold, nests, put_sums, roll_up, roll_up_tree, sums
from tapewick.model import I64, Candles, Event, Instrument, TradeBatch
from tapewick.sources import _recordings
from tapewick.sources._files import read_text
from tapewick.sources.kline_files import read_klines
from tapewick.sources.replay import ReplaySource
from tapewick.sources.trade_files import TradeFileSource
from tapewick.timeframe import BY_NAME, SECOND

pytestmark = pytest.mark.realdata

MINUTE = 60 * SECOND
WS = "binance-ws-2024-08"


@pytest.fixture(params=["as installed", "reference"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode with the installed engine and again with the reference."""
    if request.param == "reference":
        monkeypatch.setattr(_recordings, "Decoder", _codec.Decoder)


async def replayed(*files: Path) -> tuple[ReplaySource, list[Event]]:
    source = ReplaySource(files, speed=None)
    events = [event async for event in source.events()]
    assert source.lines == source.trades + source.others.total() + source.rejects.total()
    assert not source.rejects
    assert source.bytes_read == source.bytes_total
    return source, events


async def imported(path: Path, format: str, instrument: str) -> TradeBatch:
    source = TradeFileSource([path], format=format, instrument=instrument)
    events = [event async for event in source.events()]
    assert isinstance(events[0], Instrument)
    assert not source.rejects
    return tape(events, instrument)


def tape(events: list[Event], instrument: str) -> TradeBatch:
    """All trades of one instrument in one batch, with every cover."""
    batches = [event for event in events if isinstance(event, TradeBatch) and event.instrument == instrument]
    assert {(batch.price_scale, batch.size_scale) for batch in batches if len(batch)} == {(8, 8)}
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side")
    }
    covers = tuple(pair for batch in batches for pair in batch.covers or ())
    return TradeBatch(instrument=instrument, price_scale=8, size_scale=8, covers=covers, **columns)


def contiguous(ids: I64, first: int, last: int) -> bool:
    return list(ids.tolist()) == list(range(first, last + 1))


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("name", "lines", "depth", "ticker", "trades", "snapshots", "instrument"),
    [
        ("spot_btcusdt_20240808", 41_249, 3_451, 28_040, 9_757, 1, "binance:BTCUSDT"),
        ("spot_btcusdt_20240809", 58_325, 3_044, 45_134, 10_147, 0, "binance:BTCUSDT"),
        ("usdm_btcusdt_20240808", 93_954, 6_551, 66_089, 21_313, 1, "binance-usdm:BTCUSDT"),
        ("cm_btcusd_perp_20240808", 48_270, 26_847, 19_136, 2_286, 1, "binance-coinm:BTCUSD_PERP"),
        ("cm_btcusd_perp_20240809", 50_116, 17_948, 29_219, 2_949, 0, "binance-coinm:BTCUSD_PERP"),
    ],
)
async def test_recorder_lines_are_all_accounted_for(
    testdata: Path, name: str, lines: int, depth: int, ticker: int, trades: int, snapshots: int, instrument: str
) -> None:
    source, events = await replayed(testdata / WS / f"{name}.gz")
    assert (source.lines, source.trades) == (lines, trades)
    assert source.others == Counter(depthUpdate=depth, bookTicker=ticker) + Counter(snapshot=snapshots)
    assert len(tape(events, instrument)) == trades


CAPTURES = {
    "BINANCE.ws.1.0": (267, 2, {"connect": 1, "depthUpdate": 177, "bookTicker": 84, "kline": 2, "blank": 1}),
    "BINANCE_FUTURES.ws.1.0": (1_536, 91, {"connect": 1, "depthUpdate": 764, "bookTicker": 613, "kline": 67}),
    "BINANCE.0": (2, 0, {"http": 1, "configuration": 1}),
    "BINANCE.http.0.0": (5, 0, {"http": 4, "blank": 1}),
    "BINANCE_FUTURES.http.0.0": (5, 0, {"http": 4, "blank": 1}),
}
STRANGERS = {
    "COINBASE.ws.28.0": (
        9_952,
        {"connect": 1, "sent": 3, "blank": 2},
        {"subscriptions": 3, "snapshot": 10, "l2update": 9_719, "ticker": 107, "match": 97, "last_match": 10},
    ),
    "KRAKEN.ws.48.0": (
        53,
        {"connect": 1, "sent": 1, "blank": 2},
        {"systemStatus": 1, "subscriptionStatus": 10, "heartbeat": 30, "trade": 8},
    ),
    "KRAKEN.ws.49.0": (
        64,
        {"connect": 1, "sent": 1, "blank": 2},
        {"systemStatus": 1, "subscriptionStatus": 10, "heartbeat": 31, "ticker": 18},
    ),
    "KRAKEN.ws.50.0": (
        4_325,
        {"connect": 1, "sent": 1, "blank": 2},
        {"systemStatus": 1, "subscriptionStatus": 10, "heartbeat": 31, "book-1000": 4_279},
    ),
}


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("name", CAPTURES)
async def test_captures_are_all_accounted_for(testdata: Path, name: str) -> None:
    lines, trades, others = CAPTURES[name]
    source, events = await replayed(testdata / "ws-captures" / f"{name}.gz")
    assert (source.lines, source.trades, source.others) == (lines, trades, others)
    venue = "binance-usdm" if "FUTURES" in name else "binance"
    assert {e.venue for e in events if isinstance(e, Instrument)} == ({venue} if trades else set())
    assert all(e.granularity == "agg" for e in events if isinstance(e, Instrument))


@pytest.mark.parametrize("name", STRANGERS)
async def test_frames_of_other_venues_are_counted(testdata: Path, name: str) -> None:
    lines, others, frames = STRANGERS[name]
    source, events = await replayed(testdata / "ws-captures" / f"{name}.gz")
    unknown = {f"unknown venue frame: {kind}": count for kind, count in frames.items()}
    assert (source.lines, source.others, events) == (lines, {**others, **unknown}, [])


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0, 1)], ids=["in order", "reversed", "doubled"])
async def test_the_spot_pair_is_one_tape(testdata: Path, order: Sequence[int]) -> None:
    files = [testdata / WS / f"spot_btcusdt_2024080{8 + n}.gz" for n in order]
    _, events = await replayed(*files)
    trades = tape(events, "binance:BTCUSDT")
    assert len(trades) == 19_904 * len(order) // 2
    ids, first = np.unique(trades.trade_id, return_index=True)
    assert contiguous(ids, 3_735_683_259, 3_735_703_162)
    trades = trades.select(np.sort(first))
    assert contiguous(trades.trade_id, 3_735_683_259, 3_735_703_162)
    assert (np.diff(trades.ts_event) >= 0).all()
    midnight = 1_723_161_600 * SECOND
    before, after = trades.price[trades.ts_event < midnight], trades.price[trades.ts_event >= midnight]
    assert (before[-1], after[0]) == (parse_mantissa("61685.99", 8), parse_mantissa("61686.00", 8))
    minutes = fold(trades, BY_NAME["1m"])
    last = minutes[minutes["open_time"] == midnight - MINUTE]
    assert sums(last, "quote_volume") == [parse_mantissa("2000509.286525", 9) * 10**7]
    assert (last["trades"][0], last["first_id"][0], last["last_id"][0]) == (1312, 3_735_691_685, 3_735_692_996)


async def test_interleaved_markets_are_three_tapes(testdata: Path) -> None:
    names = (
        "cm_btcusd_perp_20240809", "spot_btcusdt_20240809", "usdm_btcusdt_20240808", "spot_btcusdt_20240808",
        "cm_btcusd_perp_20240808",
    )  # fmt: skip
    source, events = await replayed(*(testdata / WS / f"{name}.gz" for name in names))
    assert source.lines == 291_914
    assert contiguous(tape(events, "binance:BTCUSDT").trade_id, 3_735_683_259, 3_735_703_162)
    assert contiguous(tape(events, "binance-usdm:BTCUSDT").trade_id, 5_266_583_935, 5_266_605_247)
    assert contiguous(tape(events, "binance-coinm:BTCUSD_PERP").trade_id, 849_714_402, 849_719_636)
    clocks = [event.clock for event in events if isinstance(event, TradeBatch)]
    assert clocks == sorted(clocks)


@pytest.mark.parametrize(
    ("name", "frames", "comparable"),
    [
        ("BINANCE_FUTURES.ws.1.0", 67, {"CTKUSDT": 9, "SUSHIUSDT": 5, "KEEPUSDT": 1}),
        ("BINANCE.ws.1.0", 2, {"LRCBTC": 1}),
    ],
)
async def test_running_candles_equal_the_venues_stream(
    testdata: Path, name: str, frames: int, comparable: dict[str, int]
) -> None:
    path = testdata / "ws-captures" / f"{name}.gz"
    _, events = await replayed(path)
    tapes = {event.symbol: tape(events, event.id) for event in events if isinstance(event, Instrument)}
    bodies = [line.partition(b": ")[2] for line in read_text(path).split(b"\n") if b'"e":"kline"' in line]
    assert len(bodies) == frames
    compared: Counter[str] = Counter()
    for bar in (json.loads(body)["data"]["k"] for body in bodies):
        trades = tapes[bar["s"]]
        ids = np.flatnonzero((trades.first_id >= bar["f"]) & (trades.trade_id <= bar["L"]))
        if not len(ids) or trades.first_id[ids[0]] != bar["f"] or trades.trade_id[ids[-1]] != bar["L"]:
            continue  # some of its trades lie before the recording
        compared[bar["s"]] += 1
        (row,) = made = fold(trades.select(ids), BY_NAME["1m"])
        assert row["open_time"] == bar["t"] * 1_000_000
        prices = [int(row[field]) for field in ("open", "high", "low", "close")]
        assert prices == [parse_mantissa(bar[key], 8) for key in "ohlc"]
        assert int(row["trades"]) == bar["n"]
        for field, key, scale in zip(SUMS, "vqVQ", (8, 16, 8, 16), strict=True):
            assert total(made, field, scale) == Decimal(bar[key])
    assert compared == comparable


def total(rows: Candles, name: str, scale: int) -> Decimal:
    return Decimal(sum(sums(rows, name))).scaleb(-scale)


def price(value: int) -> Decimal:
    return Decimal(int(value)).scaleb(-8)


async def test_aggregates_of_2019(testdata: Path) -> None:
    path = testdata / "trades-binance" / "XRPETH-aggTrades-2019-10-11_13.json.gz"
    trades = await imported(path, "binance-aggtrades-json", "binance:XRPETH")
    assert len(trades) == 12_477
    assert (int(trades.first_id[0]), int(trades.trade_id[-1])) == (15_373_518, 15_388_189)
    assert int(trades.count.sum()) == 14_672
    assert (trades.first_id[1:] == trades.trade_id[:-1] + 1).all()
    assert (np.diff(trades.ts_event) >= 0).all()
    minutes = fold(trades, BY_NAME["1m"])
    assert len(minutes) == 2_469
    assert (minutes["open_time"][-1] - minutes["open_time"][0]) // MINUTE + 1 == 3_560
    assert total(minutes, "volume", 8) == Decimal(5_545_735)
    assert total(minutes, "quote_volume", 16) == Decimal("8182.56026789")
    assert [
        price(v) for v in (minutes["open"][0], minutes["high"].max(), minutes["low"].min(), minutes["close"][-1])
    ] == [Decimal(v) for v in ("0.00141342", "0.00154262", "0.00139676", "0.00152787")]


async def test_microsecond_trades(testdata: Path) -> None:
    path = testdata / "trades-binance" / "TRXUSDT-spot-trades-2025-03-04.csv.gz"
    trades = await imported(path, "binance-trades-csv", "binance:TRXUSDT")
    assert contiguous(trades.trade_id, 348_656_870, 348_666_869)
    assert int((trades.side == -1).sum()) == 4_605
    minutes = fold(trades, BY_NAME["1m"])
    assert (len(minutes), minutes["open_time"][0] // MINUTE) == (48, 29_017_440)
    assert total(minutes, "volume", 8) == Decimal("45996895.9")
    assert total(minutes, "quote_volume", 16) == Decimal("10666021.10336")
    assert [
        price(v) for v in (minutes["open"][0], minutes["high"].max(), minutes["low"].min(), minutes["close"][-1])
    ] == [Decimal(v) for v in ("0.2312", "0.2329", "0.2304", "0.2327")]


async def test_a_futures_id_without_a_trade(testdata: Path) -> None:
    path = testdata / "trades-binance" / "TRXUSDT-usdm-trades-2025-03-04.csv.gz"
    trades = await imported(path, "binance-trades-csv", "binance-usdm:TRXUSDT")
    assert trades.covers == ((548_331_095, 548_331_095),)
    assert contiguous(np.sort(np.append(trades.trade_id, 548_331_095)), 548_321_769, 548_331_768)
    minutes = fold(trades, BY_NAME["1m"])
    assert (len(minutes), int(minutes["trades"].sum())) == (17, 9_999)
    assert (price(minutes["low"].min()), price(minutes["high"].max())) == (Decimal("0.23013"), Decimal("0.23247"))
    assert total(minutes, "volume", 8) == Decimal("15437677.0")
    assert total(minutes, "quote_volume", 16) == Decimal("3573150.58485")


async def test_kraken_minutes_equal_the_venues_own(testdata: Path) -> None:
    folder = testdata / "kraken-trades-ohlc"
    trades = await imported(folder / "XBTUSDT_http_trades.json.gz", "kraken-trades", "kraken:XBTUSDT")
    assert contiguous(trades.trade_id, 10_218_208, 10_219_207)
    minutes = fold(trades, BY_NAME["1m"])
    ours = set((minutes["open_time"] // SECOND).tolist())
    first, last = 1_762_795_440, 1_762_819_920
    truth = json.loads(read_text(folder / "XBTUSDT_http_ohlc.json.gz"))["result"]["XBTUSDT"]
    bars = {bar[0]: bar for bar in truth if first <= bar[0] <= last}
    assert len(bars) == 409
    traded = {time: bar for time, bar in bars.items() if bar[7]}
    assert {time for time in ours if first <= time <= last} == set(traded)
    assert len(traded) == 272
    for time, (_, o, h, low, c, vwap, volume, count) in traded.items():
        row = minutes[minutes["open_time"] == time * SECOND]
        prices = [int(row[name][0]) for name in ("open", "high", "low", "close")]
        assert prices == [parse_mantissa(text, 8) for text in (o, h, low, c)]
        assert (sums(row, "volume"), int(row["trades"][0])) == ([parse_mantissa(volume, 8)], count)
        # quote volume has 16 digits, volume 8: the ratio at 1 digit is that of quote / 10^8.
        ratio = truncated_ratio(sums(row, "quote_volume")[0], sums(row, "volume")[0] * 10**8, 1)
        assert ratio == parse_mantissa(vwap, 1)
    filled = fill(minutes, BY_NAME["1m"], first * SECOND, (last + 60) * SECOND, "prev")
    flat = filled[filled["filled"] == 1]
    assert len(flat) == 137
    for row in flat:
        _, o, h, low, c, vwap, volume, count = bars[int(row["open_time"]) // SECOND]
        assert {parse_mantissa(text, 8) for text in (o, h, low, c)} == {int(row["close"])}
        assert (Decimal(volume), vwap, count) == (Decimal(0), "0.0", 0)


NINE = ("open", "high", "low", "close", "trades", *(f"{name}_{word}" for name in SUMS for word in ("lo", "hi")))
ROLLED = {
    "15m": {
        "30m": 23_336, "1h": 11_668, "2h": 5_834, "4h": 2_917, "6h": 1_944, "8h": 1_458, "12h": 972, "1d": 486,
        "3d": 161, "1w": 69, "1M": 15,
    },
    "1h": {
        "2h": 18_961, "4h": 9_481, "6h": 6_320, "8h": 4_740, "12h": 3_160, "1d": 1_580, "3d": 526, "1w": 225, "1M": 51,
    },
    "2h": {"4h": 19_051, "6h": 12_705, "8h": 9_530, "12h": 6_354, "1d": 3_177, "3d": 1_058, "1w": 453, "1M": 103},
    "1d": {"3d": 1_059, "1w": 453, "1M": 103},
}  # fmt: skip
EMPTY = {("1h", "2h"): 1, ("2h", "4h"): 1}
OUTAGE = 1_679_659_200_000 * 1_000_000


@pytest.fixture(scope="module")
def klines(testdata: Path) -> dict[str, Candles]:
    """The venue's own bars per timeframe."""
    folder = testdata / "klines-binance-spot"
    names = {tf: "1mo" if tf == "1M" else tf for tf in ("15m", "1h", *ROLLED["15m"])}
    return {tf: read_klines([folder / f"BTCUSDT-{name}.jsonl.gz"], tf) for tf, name in names.items()}


def differing(made: Candles, truth: Candles) -> list[int]:
    """Open times where two arrays of the same buckets differ in any of the nine values."""
    assert made["open_time"].tolist() == truth["open_time"].tolist()
    differs = np.zeros(len(made), np.bool_)
    for name in NINE:
        differs |= made[name] != truth[name]
    return made["open_time"][differs].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("source", ROLLED)
def test_the_venues_bars_add_up(klines: dict[str, Candles], source: str) -> None:
    tree = roll_up_tree(klines[source], BY_NAME[source])
    for tf, count in ROLLED[source].items():
        made = tree[tree["tf"] == BY_NAME[tf].index]
        assert len(made) == count
        truth = klines[tf]
        truth = truth[(truth["open_time"] >= made["open_time"][0]) & (truth["open_time"] <= made["open_time"][-1])]
        assert int((truth["trades"] == 0).sum()) == EMPTY.get((source, tf), 0)
        assert differing(made, truth[truth["trades"] > 0]) == []
    assert {tf for tf in klines if nests(BY_NAME[source], BY_NAME[tf])} == set(ROLLED[source])


@pytest.mark.parametrize(
    ("source", "tf", "broken"),
    [
        *((source, tf, [OUTAGE]) for source, tf in (("1h", "4h"), ("1h", "6h"), ("1h", "12h"))),
        *((source, tf, [OUTAGE]) for source, tf in (("2h", "4h"), ("2h", "6h"), ("2h", "12h"))),
        ("1h", "1d", []), ("2h", "1d", []), ("1h", "8h", []),
    ],
)  # fmt: skip
def test_letting_the_outage_bar_count_breaks_exactly_one_bar(
    klines: dict[str, Candles], source: str, tf: str, broken: list[int]
) -> None:
    rows = klines[source].copy()
    # The venue's file carries this price in the bar without trades; the import drops it.
    outage = rows["open_time"] == OUTAGE
    assert rows["trades"][outage].tolist() == [0]
    for name in ("open", "high", "low", "close"):
        rows[name][outage] = parse_mantissa("28080.00", 8)
    rows["trades"][outage] = 1
    made = roll_up(rows, BY_NAME[tf])
    made["trades"][made["open_time"] == BY_NAME[tf].length * (OUTAGE // BY_NAME[tf].length)] -= 1
    span = (made["open_time"] >= made["open_time"][1]) & (made["open_time"] <= made["open_time"][-2])
    made = made[span & (made["trades"] > 0)]
    truth = klines[tf]
    inside = (truth["open_time"] >= made["open_time"][0]) & (truth["open_time"] <= made["open_time"][-1])
    assert differing(made, truth[inside & (truth["trades"] > 0)]) == broken


def test_what_klines_look_like(klines: dict[str, Candles]) -> None:
    day = 86_400 * SECOND
    assert set((klines["3d"]["open_time"] % (3 * day)).tolist()) == {day}
    gaps = {}
    for tf, rows in klines.items():
        if tf != "1M":
            gaps[tf] = int((np.diff(rows["open_time"]) != BY_NAME[tf].length).sum())
    assert {tf: count for tf, count in gaps.items() if count} == {
        "1h": 1, "2h": 18, "4h": 8, "6h": 3, "8h": 1, "12h": 1,
    }  # fmt: skip
    fifteen = klines["15m"]
    assert int((fifteen["open"][1:] != fifteen["close"][:-1]).sum()) == 22_123
    largest = max(sums(klines["1M"], "quote_volume"))
    assert Decimal(largest).scaleb(-16) == Decimal("230976895658.80542100")
    probe = klines["1M"][:1].copy()
    put_sums(probe, "quote_volume", [largest])
    assert sums(probe, "quote_volume") == [largest]


@pytest.mark.parametrize(
    ("name", "rows", "empty"),
    [("FILUSDT-1m-2023-04", 43_200, 0), ("FILUSDT-1m-2023-05", 44_640, 6), ("LINKUSDT-1m-2026-02", 40_320, 0)],
)
def test_archive_klines_with_a_header(testdata: Path, name: str, rows: int, empty: int) -> None:
    candles = read_klines([testdata / "klines-binance-usdm-1m" / f"{name}.csv.gz"], "1m")
    assert len(candles) == rows
    assert (np.diff(candles["open_time"]) == MINUTE).all()
    none = candles[candles["trades"] == 0]
    assert len(none) == empty
    assert not none["close"].any()
    if empty:
        assert none["open_time"][0] == 1_684_594_140_000 * 1_000_000
