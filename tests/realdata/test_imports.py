"""The venues' own files through the command line, against the venues' own bars."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.realdata.reading import candles, rows, stored_candles, tapewick

pytestmark = pytest.mark.realdata


def test_kraken_minutes_equal_the_exchanges_own(testdata: Path, tmp_path: Path) -> None:
    folder = testdata / "kraken-trades-ohlc"
    tapewick("import", "--format", "kraken-trades", "--instrument", "kraken:XBTUSDT",
             folder / "XBTUSDT_http_trades.json.gz", "--data", tmp_path / "D")  # fmt: skip
    ours = {row["open_time"] // 1000: row for row in rows(candles(tmp_path / "D", "kraken:XBTUSDT", "1m"))}
    with gzip.open(folder / "XBTUSDT_http_ohlc.json.gz", "rt") as file:
        body = json.load(file, parse_float=Decimal)
    theirs = {int(bar[0]): bar for bar in body["result"]["XBTUSDT"]}
    outcome: Counter[str] = Counter()
    for minute in range(1_762_795_440, 1_762_819_920 + 60, 60):
        bar, row = theirs[minute], ours.get(minute)
        if bar[7] == 0:
            outcome["empty equal" if row is None else "empty differs"] += 1
            continue
        assert row is not None
        got = [Decimal(row[k]) for k in ("open", "high", "low", "close", "volume")] + [row["trades"]]
        same = got == [Decimal(bar[i]) for i in (1, 2, 3, 4, 6)] + [bar[7]]
        vwap = (Decimal(row["vwap"]) * 10).to_integral_value("ROUND_DOWN") / 10 == Decimal(bar[5])
        outcome["equal" if same and vwap else "differs"] += 1
    assert outcome == {"equal": 272, "empty equal": 137}
    (coverage,) = rows(tapewick("coverage", "kraken:XBTUSDT", "--data", tmp_path / "D", "--json"))
    assert (coverage["ranges"], coverage["gaps"]) == ([[10_218_208, 10_219_207]], [])


@pytest.mark.parametrize("source", ["15m", "1h"])
def test_every_coarser_binance_bar_is_the_roll_up(source: str, testdata: Path, tmp_path: Path) -> None:
    folder = testdata / "klines-binance-spot"
    tapewick("import", "--format", "binance-klines", "--tf", source, "--instrument", "binance:BTCUSDT",
             folder / f"BTCUSDT-{source}.jsonl.gz", "--data", tmp_path / "D")  # fmt: skip
    first, last = _span(folder / f"BTCUSDT-{source}.jsonl.gz")
    stored = stored_candles(tmp_path / "D", "binance:BTCUSDT")
    compared = {}
    for tf in ("30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"):
        bars = _bars(folder / f"BTCUSDT-{'1mo' if tf == '1M' else tf}.jsonl.gz")
        ours = {row["open_time"]: row for row in rows(stored[tf])}
        if tf == source or (source == "1h" and tf == "30m"):
            continue
        inside = [(bar, end) for bar, end in bars if first <= bar[0] and end <= last]
        assert inside, tf
        wrong = [bar[0] for bar, _ in inside if not _equal(bar, ours.get(bar[0]))]
        assert wrong == [], f"{source}→{tf}: {len(wrong)} of {len(inside)} differ, first {wrong[:3]}"
        compared[tf] = len(inside)
        assert all(row["origin"] == "import" and row["complete"] is not True for row in ours.values())
    expected = {
        "15m": {"30m": 23_336, "1h": 11_668, "2h": 5_834, "4h": 2_917, "6h": 1_944, "8h": 1_458, "12h": 972, "1d": 486,
                "3d": 161, "1w": 69, "1M": 15},
        "1h": {"2h": 18_962, "4h": 9_481, "6h": 6_320, "8h": 4_740, "12h": 3_160, "1d": 1_580, "3d": 526, "1w": 225,
               "1M": 51},
    }  # fmt: skip
    assert compared == expected[source]


def _bars(path: Path) -> list[tuple[list[Any], int]]:
    """(bar, open time of the next bar as it should be) of a kline file."""
    with gzip.open(path, "rt") as lines:
        bars = [json.loads(line) for line in lines]
    return [(bar, _end(path, bar[0])) for bar in bars]


def _end(path: Path, open_time: int) -> int:
    name = path.name.split("-")[1].split(".")[0]
    if name == "1mo":
        day = dt.datetime.fromtimestamp(open_time / 1000, dt.UTC)
        following = dt.datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=dt.UTC)
        return int(following.timestamp()) * 1000
    return open_time + int(name[:-1]) * {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}[name[-1]]


def _span(path: Path) -> tuple[int, int]:
    bars = _bars(path)
    return bars[0][0][0], bars[-1][1]


def _equal(bar: list[Any], row: dict[str, Any] | None) -> bool:
    """The nine values; a bar without trades must be absent, or empty, on our side."""
    if bar[8] == 0:
        return row is None or row["trades"] == 0
    if row is None:
        return False
    fields = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
    theirs = [Decimal(bar[i]) for i in (1, 2, 3, 4, 5, 7, 9, 10)]
    return [Decimal(row[f]) for f in fields] == theirs and row["trades"] == bar[8]
