"""What failed in the crowd and passes alone is named; what is wrong fails again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "second_look.py"
STARVED = """
from pathlib import Path

def test_starved():
    here = Path(__file__).with_name("seen")
    seen = here.exists()
    here.touch()
    assert seen
"""
WRONG = "\ndef test_wrong():\n    assert 1 == 2\n"


def gate(folder: Path, source: str) -> tuple[int, str]:
    """What the gate ends with and prints for one file of tests."""
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    first = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, check=False, capture_output=True)
    look = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import second_look; from pathlib import Path; "
    look += f"sys.exit(second_look.main({first.returncode}, ['-q'], Path({str(folder)!r})))"
    done = subprocess.run([sys.executable, "-c", look], check=False, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_what_passes_alone_is_named(tmp_path: Path) -> None:
    code, said = gate(tmp_path, STARVED)
    assert code == 0
    assert "FAILED beside others and passed alone" in said
    assert "test_it.py::test_starved" in said


@pytest.mark.parametrize("source", [WRONG, STARVED + WRONG], ids=["wrong", "one of two"])
def test_what_is_wrong_fails_again(tmp_path: Path, source: str) -> None:
    code, said = gate(tmp_path, source)
    assert code == 1
    assert "passed alone" not in said


def test_many_failures_are_no_accident(tmp_path: Path) -> None:
    many = STARVED.replace("test_starved", "test_{n}").replace('"seen"', '"seen{n}"')
    code, said = gate(tmp_path, "".join(many.replace("{n}", str(n)) for n in range(7)))
    assert (code, said) == (1, "")


def test_a_run_that_broke_is_not_run_again(tmp_path: Path) -> None:
    code, said = gate(tmp_path, "import nothing_of_this_name\n")
    assert (code, said) == (2, "")
