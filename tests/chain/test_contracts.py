"""The committed builds are what the sources compile to, with the locked compiler and without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.chain.orders_contract import BUILD
from tests.e2e.browser import part

ROOT = Path(__file__).resolve().parents[2]


def test_builds_are_compiled_from_their_sources() -> None:
    compiler = BUILD.parent / "node_modules" / "solc"
    part("solc", str(compiler) if compiler.is_dir() else None, "python scripts/contracts.py fetches it")
    folder = subprocess.run([sys.executable, "scripts/node.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    words = [f"{folder.stdout.strip()}/node", "contracts/compile.mjs", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
