"""The page in a real Chromium, against the real demo: it draws, moves, switches, and stays on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server import Server

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def part(name: str, found: str | None, install: str) -> str:
    """The path of a real part; without it the test is skipped, or fails where CI is set."""
    if found:
        return found
    message = f"{name} is not installed: {install}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def node() -> str:
    beside = Path(sys.executable).with_name("node")
    return part("Node", shutil.which("node") or (str(beside) if beside.exists() else None), "make setup")


@pytest.fixture(scope="module")
def chromium() -> str:
    named = os.environ.get("TAPEWICK_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    return part("Chromium", named, "apt-get install chromium")


@pytest.fixture(scope="module", autouse=True)
def modules() -> str:
    folder = ROOT / "web" / "node_modules" / "playwright-core"
    return part("playwright-core", str(folder) if folder.exists() else None, "make setup")


def drive(script: str, node: str, chromium: str, *args: str | Path) -> None:
    done = subprocess.run(
        [node, str(HERE / script), *map(str, args)],
        capture_output=True,
        text=True,
        env=os.environ | {"TAPEWICK_TEST_CHROMIUM": chromium, "TAPEWICK_TEST_WAIT_MS": "60000"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and not result["errors"] and not result["foreign"], result


def test_the_page_draws_the_demo(node: str, chromium: str, tmp_path: Path) -> None:
    with Server("demo", "--port", "0", "--no-open", "--data", tmp_path / "D") as server:
        drive("browser.mjs", node, chromium, server.ready(), tmp_path / "shots")
    assert {p.name for p in (tmp_path / "shots").iterdir()} >= {"desktop-dark.png", "desktop-light.png"}


def test_the_page_pages_reconnects_and_navigates(node: str, chromium: str, tmp_path: Path) -> None:
    drive("mocked.mjs", node, chromium, tmp_path / "shots")
