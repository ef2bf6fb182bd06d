"""Parquet files, read by DuckDB: every value equals the JSON row."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tapewick.errors import ModelError
from tapewick.formats import candle_layout, trade_layout, writer
from tapewick.formats.table import Layout
from tapewick.model import CandleBatch, Instrument, TradeBatch
from tests.formats.tables import OWN, candles, trades

UNIQUE = Instrument(id="hook:XYZ", venue="hook", symbol="XYZ", price_scale=2, size_scale=5, id_kind="unique")


def written(path: Path, layout: Layout, *parts: CandleBatch | TradeBatch) -> Path:
    made = writer("parquet", layout)
    path.write_bytes(made.head() + b"".join(map(made.part, parts)) + made.end())
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """The file's rows as the JSON rows spell them."""
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT * FROM read_parquet('{path}')")
        names = [column[0] for column in found.description or ()]
        times = [name for name in names if name in ("open_time", "ts_event", "ts_recv")]
        asked = ", ".join(f"epoch_ns({name}) // 1000000 AS {name}" if name in times else name for name in names)
        values = connection.execute(f"SELECT {asked} FROM read_parquet('{path}')").fetchall()
    return [dict(zip(names, map(_plain, row), strict=True)) for row in values]


def _plain(value: object) -> object:
    if not isinstance(value, Decimal):
        return value
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def json_rows(layout: Layout, batch: CandleBatch | TradeBatch) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in writer("jsonl", layout).part(batch).splitlines()]
    for row in told:
        if "trade_id" in row:
            row.setdefault("first_id", row["trade_id"])
            row.setdefault("count", 1)
    return told


def test_candles_are_exact(tmp_path: Path) -> None:
    layout, first, second = candle_layout(OWN, 2, 5, {"position": "e:7"}), candles(40), candles(3)
    path = written(tmp_path / "c.parquet", layout, first, second)
    assert rows(path) == json_rows(layout, first) + json_rows(layout, second)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("own", [OWN, UNIQUE])
def test_trades_are_exact(tmp_path: Path, own: Instrument, large: bool) -> None:
    layout, made = trade_layout(own, 2, 5, {}), trades(1000, large=large)
    made.instrument = own.id
    path = written(tmp_path / "t.parquet", layout, made)
    assert rows(path) == json_rows(layout, made)


def test_types_and_facts_are_declared(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", trade_layout(OWN, 2, 5, {"position": "e:9"}), trades(5))
    with duckdb.connect() as connection:
        types = dict(connection.execute(f"SELECT name, logical_type FROM parquet_schema('{path}')").fetchall())
        facts = connection.execute(f"SELECT key, value FROM parquet_kv_metadata('{path}')").fetchall()
        kinds = connection.execute(f"SELECT typeof(price), typeof(ts_event) FROM '{path}' LIMIT 1").fetchone()
    assert "DECIMAL" in types["price"].upper()
    assert facts == [(b"position", b"e:9")]
    assert kinds == ("DECIMAL(38,2)", "TIMESTAMPTZ_NS")


def test_a_file_without_rows_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", trade_layout(OWN, 2, 5, {}))
    assert rows(path) == []


def test_many_row_groups(tmp_path: Path) -> None:
    parts = [trades(100, first=1 + 100 * i) for i in range(50)]
    path = written(tmp_path / "t.parquet", trade_layout(OWN, 2, 5, {}), *parts)
    assert [row["seq"] for row in rows(path)] == list(range(1, 5001))


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_scales_that_change_are_refused(format: Any) -> None:
    made, batch = writer(format, trade_layout(OWN, 2, 5, {})), trades(1)
    batch.price_scale = 3
    with pytest.raises(ModelError, match="export it again"):
        made.part(batch)
