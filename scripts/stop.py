"""End the server that `make run` started, and only that one: its pid is checked against its command line."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

PID = Path(__file__).resolve().parent.parent / "logs" / "run.pid"


def main() -> int:
    """0 when nothing runs any more."""
    try:
        pid = int(PID.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    if b"tapewick" not in words:
        return 0
    os.kill(pid, signal.SIGTERM)
    for _ in range(150):
        if not Path(f"/proc/{pid}").exists():
            PID.unlink(missing_ok=True)
            return 0
        time.sleep(0.1)
    print(f"tapewick: process {pid} has not ended within 15 s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
