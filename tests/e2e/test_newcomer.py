"""What README and tutorial tell a newcomer to type, typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.e2e.server import Server

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text("utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8080"


def test_the_questions_of_the_readme_are_answered(tmp_path: Path) -> None:
    paths = re.findall(rf"curl '{ADDRESS}(/[^']+)'", README)
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    demo = ("demo", "--no-open", "--data", tmp_path / "D", "--port")
    with ExitStack() as stack:
        server = stack.enter_context(Server(*demo, "0"))
        server.ready()
        server.wait_for(lambda: server.get("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=5")["candles"])
        assert len(paths) >= 4
        for path in paths:  # each as soon as it can be answered
            server.wait_for(partial(server.get, path))
        program = (sys.executable, "-c", script.replace(ADDRESS, server.url))
        reader = stack.enter_context(Server(program=program))
        reader.line(r"complete: (True|False)$")
        reader.line(r"^snapshot \[Decimal")
        reader.line(r"^event \[Decimal")

        server.stop()  # the stream tells so itself, and the program goes on
        stack.enter_context(Server(*demo, server.url.rpartition(":")[2])).ready()
        before = len(reader.lines)
        reader.wait_for(lambda: [line for line in reader.lines[before:] if line.startswith("event [Decimal")])
        assert reader.process.poll() is None, reader.lines


def test_the_tutorial_ends_with_a_candle_that_is_proven(tmp_path: Path) -> None:
    (block,) = re.findall(r"```\n(printf.*?)```", TUTORIAL, re.DOTALL)
    script = block.replace(".venv/bin/tapewick", f"{sys.executable} -m tapewick")
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["complete"] for line in done.stdout.splitlines()] == [False, True, False]
    assert "3 trades" in done.stderr and "3 duplicates" in done.stderr
