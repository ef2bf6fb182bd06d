"""The venue's own monthly bars as the archive publishes them: zipped, beside a checksum, month by month."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from tests.realdata.reading import rows, tapewick
from tests.sources.archive_server import ArchiveServer

pytestmark = pytest.mark.realdata
BARS = {"2023-04": (43_200, 0), "2023-05": (44_640, 6), "2023-06": (43_200, 1)}


def test_three_months_of_futures_bars(testdata: Path, tmp_path: Path) -> None:
    with ArchiveServer() as server:
        for month in BARS:
            text = gzip.decompress((testdata / f"klines-binance-usdm-1m/FILUSDT-1m-{month}.csv.gz").read_bytes())
            server.publish(f"data/futures/um/monthly/klines/FILUSDT/1m/FILUSDT-1m-{month}.zip", text)
        found = json.loads(
            tapewick(
                "import", "--archive", "binance-usdm:FILUSDT", "--kind", "klines", "--tf", "1m", "--json",
                "--from", "2023-04", "--to", "2023-06", "--base", server.url, "--data", tmp_path / "d",
            )
        )  # fmt: skip
    assert [each["outcome"] for each in found["files"]] == ["imported"] * 3
    assert found["bars"] == sum(bars for bars, _ in BARS.values())
    noted = [json.loads(line) for line in (tmp_path / "d" / "imports.jsonl").read_text().split("\n") if line]
    assert len({each["sha256"] for each in noted}) == 3
    assert all(len(each["sha256"]) == len(hashlib.sha256().hexdigest()) for each in noted)
    read = rows(tapewick("candles", "binance-usdm:FILUSDT", "1m", "--data", tmp_path / "d", "--limit", "0", "--json"))
    empty = [row for row in read if row["trades"] == 0]
    assert len(read) - len(empty) == sum(bars - empty for bars, empty in BARS.values())
    assert all(row["origin"] == "import" and row["complete"] is None for row in read)
