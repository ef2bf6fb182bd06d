"""End what `make run` started, and only that: each pid is checked against its command line."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

LOGS = Path(__file__).resolve().parent.parent / "logs"


def main() -> int:
    """0 when nothing runs any more."""
    codes = [end(int(note.stem.removeprefix("run-")), note) for note in LOGS.glob("run-*.pid")]
    return max(codes, default=0)


def end(pid: int, note: Path) -> int:
    """Ask the server ``pid`` to end and wait for it; 0 when it has."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        words = b""
    if b"tapewick" in words:
        os.kill(pid, signal.SIGTERM)
        for _ in range(150):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.1)
        else:
            print(f"tapewick: process {pid} has not ended within 15 s", file=sys.stderr)
            return 1
    note.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
