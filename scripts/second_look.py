"""Run what failed beside other tests once more, alone, and say so.

The suite starts hundreds of servers and processes on two cores. A few tests that failed in that crowd are run again one
at a time: what is wrong fails again, what was starved passes and is named, so that it can be mended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAILED = Path(".pytest_cache/v/cache/lastfailed")
FEW = 6
"""More failures than this are no accident."""
TESTS_FAILED = 1
"""pytest's exit code; any other is not about single tests."""


def main(code: int, arguments: list[str], root: Path = ROOT) -> int:
    """The exit code of the gate, after a run of pytest in ``root`` with ``arguments`` that ended with ``code``."""
    if code != TESTS_FAILED or not (root / FAILED).is_file():
        return code
    names = sorted(json.loads((root / FAILED).read_text()))
    if not 0 < len(names) <= FEW:
        return code
    print(f"\nsecond look: {len(names)} failed beside others; each is run alone now", flush=True)
    again = subprocess.run([sys.executable, "-m", "pytest", *arguments, *names], cwd=root, check=False).returncode
    if again == 0:
        print("second look: these FAILED beside others and passed alone; they depend on the machine's load:")
        print("\n".join(f"  {name}" for name in names))
    return again


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
