"""Importing invented kline files: JSON and CSV forms, empty bars, odd close times, refusals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tapewick.engine.candles import roll_up_tree, sums
from tapewick.errors import BadPayload
from tapewick.model import Candles, Origin, State
from tapewick.sources._files import Rejects
from tapewick.sources.kline_files import read_klines
from tapewick.timeframe import BY_NAME

HOUR = 3_600_000
T0 = 1_700_006_400_000  # ms, a whole day


def bar(
    n: int, price: str = "10.5", trades: int = 3, close_time: int | None = None, step: int = HOUR, factor: int = 1
) -> list[str | int]:
    opened = (T0 + n * step) * factor
    closed = close_time or opened + step * factor - 1
    return [opened, price, price, price, price, "7.25", closed, "76.125", trades, "2", "21", "0"]


def stored(tmp_path: Path, text: str, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


BARS = [bar(n) for n in range(4)]
CSV = "".join(",".join(map(str, row)) + "\n" for row in BARS)
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)


@pytest.mark.parametrize(
    "text",
    [
        lines(*BARS), json.dumps(BARS), json.dumps(BARS, indent=1), lines(BARS[:2], BARS[2:]), CSV, HEADER + CSV,
        HEADER + CSV.replace("\n", "\r\n"), CSV.rstrip("\n"), lines(*(row[:11] for row in BARS)),
    ],
    ids=["lines", "array", "indented", "windows", "csv", "header", "crlf", "no newline", "eleven fields"],
)  # fmt: skip
def test_every_form_gives_the_same_rows(tmp_path: Path, text: str) -> None:
    rows = read_klines([stored(tmp_path, text)], "1h")
    assert rows["open_time"].tolist() == [(T0 + n * HOUR) * 10**6 for n in range(4)]
    assert rows["open"].tolist() == rows["close"].tolist() == [1_050_000_000] * 4
    assert sums(rows, "volume") == [725_000_000] * 4
    assert sums(rows, "quote_volume") == [76_125 * 10**13] * 4
    assert sums(rows, "taker_buy_volume") == [200_000_000] * 4
    assert sums(rows, "taker_buy_quote_volume") == [21 * 10**16] * 4
    assert set(rows["trades"].tolist()) == {3}
    assert_imported(rows)


def assert_imported(rows: Candles) -> None:
    """What every imported row has: it proves nothing and says so."""
    assert set(rows["origin"].tolist()) == {Origin.IMPORT}
    assert set(rows["state"].tolist()) == {State.CLOSED}
    assert set(rows["complete"].tolist()) == {-1}
    assert set(rows["first_id"].tolist()) == set(rows["last_id"].tolist()) == {-1}
    assert set(rows["tf"].tolist()) == {BY_NAME["1h"].index}


def test_microseconds_are_detected(tmp_path: Path) -> None:
    path = stored(tmp_path, lines(*(bar(n, factor=1000) for n in range(3))))
    assert read_klines([path], "1h")["open_time"].tolist() == [(T0 + n * HOUR) * 10**6 for n in range(3)]


def test_a_bar_without_trades_has_no_prices(tmp_path: Path) -> None:
    empty = bar(1, "9999", 0)
    empty[5] = empty[7] = empty[9] = empty[10] = "0"
    rows = read_klines([stored(tmp_path, lines(bar(0), empty, bar(2)))], "1h")
    assert rows["trades"].tolist() == [3, 0, 3]
    assert [rows[name][1] for name in ("open", "high", "low", "close")] == [0] * 4


def test_irregular_close_times_do_not_matter(tmp_path: Path) -> None:
    path = stored(tmp_path, lines(bar(0), bar(1, close_time=T0 + HOUR), bar(2), bar(3)))
    assert len(read_klines([path], "1h")) == 4


def test_files_are_sorted_and_the_last_of_equal_rows_counts(tmp_path: Path) -> None:
    late = stored(tmp_path, lines(bar(2, "3"), bar(3, "3")), "late")
    early = stored(tmp_path, lines(bar(0, "1"), bar(1, "1"), bar(2, "1")), "early")
    rows = read_klines([late, early], "1h")
    assert rows["open_time"].tolist() == [(T0 + n * HOUR) * 10**6 for n in range(4)]
    assert (rows["close"] // 10**8).tolist() == [1, 1, 1, 3]


@pytest.mark.parametrize("tf", ["15m", "30m", "2h", "1d"])
def test_bars_of_another_length_are_refused(tmp_path: Path, tf: str) -> None:
    step = 24 * HOUR if tf != "1d" else HOUR
    path = stored(tmp_path, lines(*(bar(n, step=step) for n in range(1))))
    with pytest.raises(BadPayload, match=f"not those of {tf} bars; name their timeframe: --tf"):
        read_klines([path], tf)


def odd(field: int, value: str | int) -> list[str | int]:
    row = bar(0)
    row[field] = value
    return row


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (odd(0, T0 + 60_000), "is not the start of a 1h candle"), (odd(0, 5), "is not the start"),
        (odd(1, "x"), "'x' is not a decimal"), (odd(1, "NaN"), "is not a decimal"), (odd(2, "1"), "contradict"),
        (odd(3, "-1"), "contradict"), (odd(5, "-1"), "volumes"), (odd(9, "8"), "volumes"), (odd(8, -1), "volumes"),
        (odd(4, "10.123456789"), "has 9 decimals"), (odd(5, "1e31"), "128 bits"), ([1, 2, 3], "3 fields"),
        ({"t": 1}, "0 fields"), (odd(8, "many"), "invalid literal"),
    ],
)  # fmt: skip
def test_rows_that_are_no_candle_are_named_or_counted(tmp_path: Path, row: object, reason: str) -> None:
    path = stored(tmp_path, lines(bar(1), [row] if isinstance(row, dict) else row, bar(2)))
    with pytest.raises(BadPayload, match=f"{path}:2: .*{reason}"):
        read_klines([path], "1h")
    rejects = Rejects()
    assert len(read_klines([path], "1h", rejects=rejects)) == 2
    assert rejects.counts == {"bad_candle": 1}
    assert rejects.examples == [f"{path}:2: bad_candle"]


@pytest.mark.parametrize("text", ["", "\n", HEADER, "hello\n", '{"code":-1121,"msg":"Invalid symbol."}', "[{]"])
def test_files_without_klines_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadPayload, match=f"{tmp_path}/file.* expected rows of open_time"):
        read_klines([stored(tmp_path, text)], "1h")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(CSV.encode())[:-9])
    with pytest.raises(BadPayload, match="gzip data cut short"):
        read_klines([path], "1h")


def test_other_scales(tmp_path: Path) -> None:
    rows = read_klines([stored(tmp_path, lines(bar(0)))], "1h", price_scale=1, size_scale=2)
    assert (rows["open"][0], sums(rows, "volume"), sums(rows, "quote_volume")) == (105, [725], [76_125])


def test_a_month_of_quote_volume_exceeds_64_bits(tmp_path: Path) -> None:
    row = bar(0)
    row[7] = "230976895658.80542100"
    rows = read_klines([stored(tmp_path, lines(row))], "1h")
    assert sums(rows, "quote_volume") == [23_097_689_565_880_542_100 * 10**8]


def test_imported_rows_roll_up_as_imports(tmp_path: Path) -> None:
    rows = read_klines([stored(tmp_path, lines(*(bar(n, str(n + 1)) for n in range(24))))], "1h")
    tree = roll_up_tree(rows, BY_NAME["1h"])
    day = tree[tree["tf"] == BY_NAME["1d"].index]
    assert (day["open"][0], day["close"][0]) == (10**8, 24 * 10**8)
    assert sums(day, "volume") == [24 * 725_000_000]
    assert set(tree["origin"].tolist()) == {Origin.IMPORT}
    assert set(np.unique(tree["complete"]).tolist()) == {-1}
    counts = {
        tf: int((tree["tf"] == BY_NAME[tf].index).sum()) for tf in ("2h", "3h", "4h", "6h", "8h", "12h", "1d", "1w")
    }
    assert counts == {"2h": 12, "3h": 8, "4h": 6, "6h": 4, "8h": 3, "12h": 2, "1d": 1, "1w": 0}
