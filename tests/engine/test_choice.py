"""Which engine runs, and what is said about it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tapewick.engine
from tapewick.engine import _choose
from tapewick.errors import ConfigError


@pytest.mark.parametrize(
    ("forced", "built", "expected"),
    [
        ("", True, ("native", "")),
        ("", False, ("reference", "no compiler at install time")),
        ("reference", True, ("reference", "forced by TAPEWICK_ENGINE")),
        ("native", True, ("native", "")),
    ],
)
def test_choice(forced: str, built: bool, expected: tuple[str, str]) -> None:
    assert _choose(forced, built) == expected


@pytest.mark.parametrize(("forced", "built", "remedy"), [("native", False, "install a C"), ("fast", True, "unset")])
def test_impossible_choice(forced: str, built: bool, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        _choose(forced, built)


def test_forced_reference_has_the_same_names() -> None:
    """A process that forces the reference gets every public name from Python modules."""
    names = tapewick.engine.__all__
    code = f"import tapewick.engine as e; print(e.ENGINE, *(getattr(getattr(e, n), '__module__', '') for n in {names}))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TAPEWICK_ENGINE": "reference", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith("reference ")
    assert "_native" not in found.stdout
