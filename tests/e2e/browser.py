"""Runs a browser script and believes its result."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.parts.absent import absent

__all__ = ["Browser", "part"]

HERE = Path(__file__).parent


def part(name: str, found: str | None, install: str) -> str:
    """The path of a real part; without it the test is skipped, or fails where CI is set."""
    if found:
        return found
    absent(f"{name} is not installed: {install}")


class Browser(NamedTuple):
    """Where Node and Chromium are."""

    node: str
    chromium: str

    def drive(self, script: str, *args: str | Path, within: Sequence[str] = ()) -> None:
        """Run ``script`` of this folder, as the last words of the command ``within``; every check of it must hold."""
        done = subprocess.run(
            [*within, self.node, str(HERE / script), *map(str, args)],
            capture_output=True,
            text=True,
            env=os.environ | {"TAPEWICK_TEST_CHROMIUM": self.chromium, "TAPEWICK_TEST_WAIT_MS": "60000"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout)
        assert result["ok"] and not result["errors"] and not result["foreign"], result
