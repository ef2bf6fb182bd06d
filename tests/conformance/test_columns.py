"""Arrow streams and Parquet files of ours, read by pyarrow in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tapewick.engine.candles import SUMS
from tapewick.formats import Format, candle_layout, trade_layout, writer
from tapewick.model import CandleBatch, TradeBatch
from tests.conformance import environments
from tests.formats.tables import OWN, candles, trades

READER = environments.LOCKS / "with_pyarrow.py"
TIMES = ("open_time", "ts_event", "ts_recv")
DECIMALS = ("open", "high", "low", "close", "vwap", "price", "size", *SUMS)

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the client


def read(path: Path) -> dict[str, Any]:
    done = subprocess.run([environments.python("pyarrow"), READER, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def same(told: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a row of columns says what the JSON row says, decimals compared as numbers."""
    row = {"first_id": row.get("trade_id"), "count": 1, **row} if "trade_id" in row else row
    assert told.keys() == row.keys()
    for name, value in row.items():
        own = told[name] // 1_000_000 if name in TIMES else told[name]
        if name in DECIMALS and value is not None and own is not None:
            own, value = Decimal(own), Decimal(value)
        if own != value:
            return False
    return True


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_pyarrow_reads_the_same_rows(tmp_path: Path, format: Format) -> None:
    for layout, batches in (
        (candle_layout(OWN, 2, 5, {"position": "e:7"}), [candles(40), candles(3)]),
        (trade_layout(OWN, 2, 5, {"position": "e:7"}), [trades(1000), trades(10, first=1001, large=True)]),
        (trade_layout(OWN, 2, 5, {"position": "e:7"}), []),
    ):
        parts: list[CandleBatch | TradeBatch] = [*batches]  # type: ignore[list-item]
        made, lines = writer(format, layout), writer("jsonl", layout)
        path = tmp_path / "table"
        path.write_bytes(made.head() + b"".join(map(made.part, parts)) + made.end())
        told = read(path)
        expected = [json.loads(line) for part in parts for line in lines.part(part).splitlines()]
        assert len(told["rows"]) == len(expected)
        assert all(map(same, told["rows"], expected))
        assert told["facts"]["position"] == "e:7"
        for field in layout.fields:
            wanted = {"decimal": f"decimal128(38, {field.scale})", "time": "timestamp[ns, tz=UTC]", "bool": "bool"}
            assert told["types"][field.name] == wanted.get(field.kind, "int64" if field.kind == "int" else "string")
        assert told["nullable"] == [field.name for field in layout.fields if field.nullable]
