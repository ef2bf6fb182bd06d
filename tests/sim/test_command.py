"""The venue by itself, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

pytestmark = pytest.mark.timeout(60)


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its REST address."""
    command = [sys.executable, "-m", "tapewick.sim.venue", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[0]
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_a_script_of_faults_runs_and_tells_its_seed() -> None:
    arguments = ("--faults", "30", "--seed", "7", "--speed", "50", "--fault-kinds", "skip_ids", "duplicate", "void")
    with running(*arguments, "--symbols", "SOLUSDT", "--port", "0") as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == "30 faults, seed 7\n"


def test_a_venue_with_a_past_at_a_time_of_its_own() -> None:
    start = 1_709_164_800_000  # 2024-02-29, a leap day
    with running("--past", "90", "--start", str(start), "--symbols", "BTCUSDT", "--product", "futures") as (_, url):
        with urllib.request.urlopen(f"{url}/fapi/v1/klines?symbol=BTCUSDT&interval=1h") as answer:
            rows = msgspec.json.decode(answer.read())
        assert rows[0][0] == start - 2 * 3_600_000 and rows[0][8] > 0
        with urllib.request.urlopen(f"{url}/fapi/v1/depth?symbol=BTCUSDT&limit=5") as answer:
            assert msgspec.json.decode(answer.read())["E"] >= start
