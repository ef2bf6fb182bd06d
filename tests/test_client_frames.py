"""Frames of polars, pandas and Arrow hold what the server says; the example runs as a script and in a kernel."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tapewick.formats.text import CANDLE_COLUMNS, TRADE_COLUMNS
from tapewick.timeframe import SECOND
from tests.conformance import environments
from tests.e2e.server import Server
from tests.gateways.rig import BTC, batch, running

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "how-to" / "python-client.md"
EXAMPLE = ROOT / "examples" / "live_frame.py"
TIMES = ("open_time", "ts_event", "ts_recv")

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the environment


async def ask(url: str) -> dict[str, Any]:
    """What the libraries hold, from an interpreter that has them."""
    interpreter = await asyncio.to_thread(environments.python, "notebook")
    child = await asyncio.create_subprocess_exec(
        interpreter,
        environments.LOCKS / "with_frames.py",
        url,
        BTC,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    async with asyncio.timeout(300):
        out, said = await child.communicate()
    assert child.returncode == 0, said.decode()[-4000:]
    told: dict[str, Any] = json.loads(out)
    return told


def columns(rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    """The server's JSON rows as columns; times in ns."""
    whole = [{"first_id": row.get("trade_id"), "count": 1, **row} for row in rows]
    return {name: [row[name] * 1_000_000 if name in TIMES else row[name] for row in whole] for name in names}


def plain(values: list[Any], *, decimal: bool) -> list[Any]:
    """Decimal texts as numbers: a frame's column shows all digits of its scale."""
    return [Decimal(value) if decimal and value is not None else value for value in values]


async def test_frames_of_three_libraries_hold_the_same_exact_values(tmp_path: Path) -> None:
    async with running(tmp_path / "data", ids=(BTC,)) as rig:
        await rig.tell(1, 1000)
        later = batch(1001, 1000)
        later.ts_event += 180 * SECOND  # minutes without trades lie between
        await rig.bus.publish("trades", later)
        await rig.bus.settled("trades")
        told = await ask(rig.gateway.url)
        bars = (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&fill=null"))["candles"]
        trades = (await rig.get(f"/v1/trades?instrument={BTC}"))["trades"]
    assert any(row["open"] is None for row in bars), "nothing shows how a missing price looks"
    truths = (("candles", bars, CANDLE_COLUMNS), ("trades", trades, TRADE_COLUMNS), ("live", trades, TRADE_COLUMNS))
    for name, rows, names in truths:
        truth, answer = columns(rows, names), told[name]
        decimals = answer["floats"].keys()
        assert len(decimals) in (2, 9)
        for library in ("polars", "pandas", "arrow"):
            assert answer[library].keys() == truth.keys()
            for column in names:
                own = plain(answer[library][column], decimal=column in decimals)
                assert own == plain(truth[column], decimal=column in decimals), (name, library, column)
        for column in decimals:
            nearest = [None if text is None else float(text) for text in truth[column]]
            assert answer["floats"][column] == nearest
    types = told["candles"]["types"]
    assert (
        types["polars"]["close"] == "Decimal(precision=38, scale=2)" and types["arrow"]["volume"] == "decimal128(38, 3)"
    )
    assert types["polars"]["open_time"] == "Datetime(time_unit='ns', time_zone='UTC')"
    assert (types["pandas"]["open_time"], types["pandas"]["complete"]) == ("datetime64[ns, UTC]", "boolean")
    assert types["pandas"]["close"] == "object" and types["arrow"]["open_time"] == "timestamp[ns, tz=UTC]"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running demo."""
    with Server("demo", "--port", "0", "--no-open", "--data", tmp_path_factory.mktemp("demo") / "D") as server:
        server.ready()
        server.wait_for(lambda: server.get(f"/v1/coverage/{BTC}")["trades"])
        yield server.url


def run(*words: str | Path, **env: str) -> str:
    """What a program of the environment printed."""
    told = os.environ | {"PYTHONPATH": str(ROOT / "src")} | env
    done = subprocess.run(
        [environments.python("notebook"), *words], capture_output=True, text=True, timeout=300, env=told
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_is_twenty_lines() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 20


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_the_example_runs_as_a_script(demo: str, library: str) -> None:
    printed = run(EXAMPLE, TAPEWICK_URL=demo, FRAMES=library)
    assert "complete:" in printed and printed.count("open_time") >= 4


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_the_example_runs_cell_by_cell_in_a_kernel(demo: str, library: str, tmp_path: Path) -> None:
    folders = {"IPYTHONDIR": str(tmp_path / "i"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "r")}
    printed = run(environments.LOCKS / "with_kernel.py", EXAMPLE, TAPEWICK_URL=demo, FRAMES=library, **folders)
    assert "True loop" in printed and "4 cells" in printed and printed.count("open_time") >= 4


def test_what_the_documentation_shows_runs(demo: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    run("-c", blocks[0].replace("http://127.0.0.1:8080", demo))
    for block in blocks[1:]:  # those go on for ever
        compile(block, GUIDE, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_without_polars_a_frame_is_one_of_pandas(demo: str) -> None:
    code = (
        "import sys, tapewick; sys.modules['polars'] = None; tape = tapewick.connect(sys.argv[1]); "
        "print(type(tape.trades('sim:BTCUSDT', limit=5).frame()))"
    )
    assert re.search(r"pandas.*DataFrame", run("-c", code, demo))
