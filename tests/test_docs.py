"""Documentation is tested: reference pages are current, nothing is left out of them, links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tapewick.commands import COMMANDS
from tapewick.config import SETTINGS
from tapewick.errors import ConfigError, StoreDamaged
from tests.e2e.browser import part as installed

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_reference_pages_are_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "docs.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_setting_and_command_is_in_the_reference() -> None:
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    commands = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    for setting in SETTINGS:
        assert f"`{setting.key}`" in settings
        assert f"`{setting.env}`" in settings
    for name in COMMANDS:
        assert f"\n## {name}\n" in commands
        assert name in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_decision_notes_are_numbered_short_and_complete() -> None:
    notes = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(note.name[:4]) for note in notes] == list(range(1, len(notes) + 1))
    for note in notes:
        text = note.read_text("utf-8")
        assert len(text.splitlines()) <= 45, note.name
        for part in ("**Context.**", "**Choice.**", "**Measured", "**What would change our mind.**"):
            assert part in text, (note.name, part)


def test_exit_codes_are_documented() -> None:
    table = (ROOT / "docs" / "how-to" / "operate.md").read_text("utf-8")
    for code in (0, 1, 2, 3, 4, 130, 143):
        assert f"| {code} |" in table


@pytest.mark.parametrize("role", ["collect", "engine", "gateway", "scan"])
def test_the_units_for_systemd_are_sound(role: str, tmp_path: Path) -> None:
    """As systemd sees them; and what must not be tried again is what the errors say, by their exit codes."""
    text = (ROOT / "docs" / "how-to" / "systemd.md").read_text("utf-8")
    [unit] = re.findall(r"^```ini\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert f"RestartPreventExitStatus={ConfigError.exit_code} {StoreDamaged.exit_code}\n" in unit
    program = installed("systemd-analyze", shutil.which("systemd-analyze"), "apt-get install systemd")
    file = tmp_path / f"tapewick-{role}@.service"
    file.write_text(unit.replace("/opt/tapewick/bin/tapewick", sys.executable), "utf-8")
    done = subprocess.run([program, "verify", "--man=no", str(file)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_attribution_travels() -> None:
    notice = (ROOT / "NOTICE").read_text("utf-8")
    assert "TradingView Lightweight Charts™" in notice
    assert "Copyright (с) 2025 TradingView, Inc. https://www.tradingview.com/" in notice
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
