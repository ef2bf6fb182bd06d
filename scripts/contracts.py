"""Install what the tests of chains run on, an EVM node and a compiler, as contracts/package-lock.json names them.

A second run with the same lock does nothing. The node exists for Linux on x86-64; elsewhere its tests are not run.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from node import npm

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
STAMP = CONTRACTS / "node_modules" / ".tapewick"
LOG = ROOT / "logs" / "contracts.log"


def main() -> int:
    """0 when the packages are there."""
    lock = hashlib.sha256((CONTRACTS / "package-lock.json").read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == lock:
        return 0
    print("tapewick: installing an EVM node and a compiler for tests", flush=True)
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    if not npm(CONTRACTS, LOG, "ci", "--ignore-scripts"):
        tail = LOG.read_text().splitlines()[-12:]
        why = f"tapewick: they could not be installed; is the package registry reachable? (all of it: {LOG})"
        print("\n".join([*tail, why]), file=sys.stderr)
        return 1
    STAMP.write_text(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
