"""Virtual environments for foreign client libraries: each its own, pinned and hash-checked, made once."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = Path(__file__).resolve().parent / "clients"

NAMES = tuple(sorted(lock.stem for lock in LOCKS.glob("*.txt")))
"""The clients there are locks for. A lock is made from ``NAME.in`` by ``uv pip compile --generate-hashes``."""


def python(name: str) -> Path:
    """The interpreter of the client's environment, which is made where it is absent or its lock has changed.

    Processes that ask at the same time wait for the one that makes it. Raises ``AssertionError`` when it
    cannot be installed: a missing client fails its tests, on a machine without network as well.
    """
    lock = LOCKS / f"{name}.txt"
    folder = ROOT / ".cache" / "clients" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    stamp, wanted = folder / ".ready", hashlib.sha256(lock.read_bytes()).hexdigest()
    with open(folder.with_suffix(".lock"), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(folder, lock)
            stamp.write_text(wanted)
    return folder / "bin" / "python"


def _install(folder: Path, lock: Path) -> None:
    uv = ROOT / ".venv" / "bin" / "uv"
    create: list[str | Path] = [uv, "venv", "-q", "--clear", "--python", sys.executable, folder]
    install: list[str | Path] = [
        uv,
        "pip",
        "sync",
        "-q",
        "--require-hashes",
        "--python",
        folder / "bin" / "python",
        lock,
    ]
    for command in (create, install):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise AssertionError(
                f"the client environment {folder.name} cannot be installed from {lock}: the package index must be "
                f"reachable once, later runs reuse {folder}\n{done.stdout}"
            )
