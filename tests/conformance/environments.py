"""Virtual environments for foreign client libraries: each its own, pinned and hash-checked, made once."""

from __future__ import annotations

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

    Raises ``subprocess.CalledProcessError`` when it cannot be installed: a missing client fails its tests.
    """
    lock = LOCKS / f"{name}.txt"
    folder = ROOT / ".cache" / "clients" / name
    stamp, wanted = folder / ".ready", hashlib.sha256(lock.read_bytes()).hexdigest()
    interpreter = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = ROOT / ".venv" / "bin" / "uv"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        install = [uv, "pip", "sync", "-q", "--require-hashes", "--python", interpreter, lock]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return interpreter
