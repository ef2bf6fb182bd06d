"""Every benchmark once, tiny: what it would time is correct, and it runs at all. Nothing is timed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
PEERS = {"decode": "cryptofeed"}
"""Which cannot even be checked without their peer."""
IN_C = ("fanout", "flushes", "idle_clients", "slow_clients")
NAMES = [
    "book",
    "buses",
    "candles",
    "commits",
    "decode",
    "engines",
    "fanout",
    "flushes",
    "full_path",
    "grpc_stream",
    "history",
    "idle_clients",
    "ingest",
    "latency",
    "record",
    "repair",
    "repair_live",
    "restart",
    "slow_clients",
]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_its_output_is_right(name: str) -> None:
    if name in ("book", "candles"):
        pytest.importorskip("tapewick.engine._native", reason="the native engine is not built")
    if name in IN_C and not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("its bound or its clients are in C and there is no compiler: apt-get install gcc")
    if name == "grpc_stream":
        pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'tapewick[grpc]'")
    if name in PEERS and find_spec(PEERS[name]) is None:
        pytest.skip(f"{PEERS[name]} is not installed: it comes with `make bench`")
    before = sorted((BENCH / "results").glob("*"))
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--tiny"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted((BENCH / "results").glob("*")) == before, "a tiny run is no result"


def test_every_benchmark_is_checked() -> None:
    supporting = {"harness", "measured", "pages", "postgres"}
    assert sorted({path.stem for path in BENCH.glob("*.py")} - supporting) == NAMES
    assert all(f"`{name}.py`" in (BENCH / "README.md").read_text() for name in [*NAMES, *sorted(supporting)])
