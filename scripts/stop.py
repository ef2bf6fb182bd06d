"""End what `make run` and `make cluster` started, and only that: each noted pid is checked against its command line.

A cluster is a session of its own, named by its pid: what is left of it ends too, even where the cluster was killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOGS = Path(os.environ.get("TAPEWICK_LOGS") or Path(__file__).resolve().parent.parent / "logs")
PATIENCE = {"run": 15.0, "cluster": 60.0}  # seconds


def main() -> int:
    """0 when nothing runs any more."""
    codes = [end(kind, int(note.stem.removeprefix(f"{kind}-")), note) for kind in PATIENCE for note in noted(kind)]
    return max(codes, default=0)


def noted(kind: str) -> list[Path]:
    """The notes of one kind."""
    return sorted(LOGS.glob(f"{kind}-*.pid"))


def end(kind: str, pid: int, note: Path) -> int:
    """Ask the process ``pid`` to end and wait for it; 0 when it has, and nothing of its session is left."""
    mark = b"tapewick" if kind == "run" else b"cluster.py"
    if mark in _words(pid):
        os.kill(pid, signal.SIGTERM)
        if not _until(lambda: not _alive(pid), PATIENCE[kind]):
            print(f"tapewick: process {pid} has not ended within {PATIENCE[kind]:g} s", file=sys.stderr)
            return 1
    if kind == "cluster" and not swept(pid):
        print(f"tapewick: processes of the cluster {pid} have not ended: {list(_members(pid))}", file=sys.stderr)
        return 1
    note.unlink(missing_ok=True)
    return 0


def swept(session: int) -> bool:
    """End what is left of a session whose leader is gone; whether nothing is."""
    for number, seconds in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        for pid in _members(session):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        if _until(lambda: not list(_members(session)), seconds):
            return True
    return False


def _members(session: int) -> Iterator[int]:
    """Processes of a session, its leader aside; a session's number is not given to anybody else while it has any."""
    for folder in Path("/proc").glob("[0-9]*"):
        found = _stat(int(folder.name))
        if found and found[0] != "Z" and found[3] == str(session) and folder.name != str(session):
            yield int(folder.name)


def _alive(pid: int) -> bool:
    found = _stat(pid)
    return bool(found) and found[0] != "Z"


def _stat(pid: int) -> list[str]:
    """State, parent, group, session, … of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


if __name__ == "__main__":
    sys.exit(main())
