"""Files of the other kind of records are refused before one of them is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tapewick.errors import ConfigError
from tapewick.pipeline import feed
from tapewick.settings import Data, Settings
from tapewick.sources.trade_files import TradeFileSource
from tapewick.stores.duckdb import DuckDBStore
from tests.commands.tapes import tapewick

BTC = "binance:BTCUSDT"
T0 = 1_767_225_600_000
RAW, AGGREGATES = "binance-trades-csv", "binance-aggtrades-json"


def file_of(folder: Path, format: str) -> Path:
    """Trades 1 to 5 as single trades, or 1 to 7 as two aggregates."""
    path = folder / format
    if format == RAW:
        path.write_text("".join(f"{id},100.00,1.0,100.0,{T0},False,True\n" for id in range(1, 6)))
    else:
        rows = ({"a": f, "p": "100.00", "q": f"{n - f + 1}.0", "f": f, "l": n, "T": T0, "m": False} for f, n in AGGS)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


AGGS = ((1, 2), (3, 7))


@pytest.mark.parametrize(("first", "second"), [(RAW, AGGREGATES), (AGGREGATES, RAW)])
async def test_the_other_kind_is_refused_and_the_tape_stays(tmp_path: Path, first: str, second: str) -> None:
    settings = Settings(data=Data(str(tmp_path / "d")))
    for _ in range(2):
        await feed(settings, TradeFileSource([file_of(tmp_path, first)], format=first, instrument=BTC))
    with pytest.raises(ConfigError, match=first):
        await feed(settings, TradeFileSource([file_of(tmp_path, second)], format=second, instrument=BTC))
    async with DuckDBStore(tmp_path / "d") as store:
        rows, _ = await store.candles(BTC, 1)
        assert rows["trades"].tolist() == ([5] if first == RAW else [7])


async def test_import_says_what_to_do_instead(tmp_path: Path) -> None:
    for format, code in ((RAW, 0), (AGGREGATES, 2)):
        path = file_of(tmp_path, format)
        told = await tapewick("import", path, "--format", format, "--instrument", BTC, "--data", "d", cwd=tmp_path)
        assert told.code == code, told
    assert "holds single trades" in told.err and f"--format {RAW}" in told.err
