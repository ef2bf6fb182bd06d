"""Lock files must install from any mirror: none may name a registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def complaints() -> list[str]:
    """What is wrong with the lock files, one line each."""
    found = []
    if "://" in (ROOT / "requirements.lock").read_text():
        found.append("requirements.lock holds an address: export it again without index URLs")
    found += [
        f"{lock.relative_to(ROOT)} holds addresses: keep omit-lockfile-registry-resolved in .npmrc"
        for lock in ROOT.glob("*/package-lock.json")
        if '"resolved"' in lock.read_text()
    ]
    tracked = subprocess.run(["git", "ls-files", "uv.lock"], cwd=ROOT, capture_output=True, text=True)
    if tracked.stdout.strip():
        found.append("uv.lock is tracked: it names a registry, requirements.lock replaces it")
    return found


if __name__ == "__main__":
    for line in complaints():
        print(f"tapewick: {line}", file=sys.stderr)
    sys.exit(bool(complaints()))
