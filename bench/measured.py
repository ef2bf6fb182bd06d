"""Tapewick's command line in a process of its own, and what it cost.

It runs on the interpreter ``make setup`` made where there is one, for the peers' environment carries
packages that would be loaded too. The child reports its own peak: the system's figure for a child
also holds what its parent held when it was started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
OWN = ROOT / ".venv" / "bin" / "python"
PYTHON = str(OWN) if OWN.exists() else sys.executable

__all__ = ["Cost", "PYTHON", "child_environment", "resident_mb", "run"]


class Cost(NamedTuple):
    """Seconds from start to exit and of CPU over all threads, peak resident MB, and what was printed."""

    wall: float
    cpu: float
    peak_mb: float
    output: str


def child_environment(**more: str) -> dict[str, str]:
    """This environment with tapewick's sources importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **more}


def run(words: Sequence[str]) -> Cost:
    """``tapewick WORDS``; raises ``CalledProcessError`` when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [PYTHON, __file__, *words], env=child_environment(), capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - started
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    cost = json.loads(done.stderr.splitlines()[-1])
    return Cost(wall, cost["cpu"], cost["peak_mb"], done.stdout)


def resident_mb(pid: int | str = "self", field: str = "VmRSS") -> float:
    """Resident memory of a process: now (``VmRSS``) or at its peak (``VmHWM``)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"process {pid} tells no {field}")


def _child() -> int:
    from tapewick.cli import main

    code = main(sys.argv[1:])
    cost = {"cpu": time.process_time(), "peak_mb": resident_mb(field="VmHWM")}
    sys.stdout.flush()
    sys.stderr.write("\n" + json.dumps(cost) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(_child())
