"""Name every test group that cannot run for want of a program; with CI=true that is a failure."""

from __future__ import annotations

import os
import sys

from tapewick.parts import PARTS, find


def main() -> int:
    """Print a line per absent part; 1 if there is one and CI is true."""
    absent = [part for part in PARTS if find(part) is None]
    for part in absent:
        print(f"not run: {part.purpose} ({part.program} is not installed: apt-get install {part.package})")
    if not os.environ.get("TAPEWICK_TESTDATA"):
        print("not run: recorded-data tests (TAPEWICK_TESTDATA is not set)")
    return 1 if absent and os.environ.get("CI", "").lower() in ("1", "true") else 0


if __name__ == "__main__":
    sys.exit(main())
