"""What the tests of whole processes share."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e.browser import Browser, part

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def browser() -> Browser:
    """A real Chromium and what drives it."""
    beside = Path(sys.executable).with_name("node")
    named = os.environ.get("TAPEWICK_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    driver = ROOT / "web" / "node_modules" / "playwright-core"
    part("playwright-core", str(driver) if driver.exists() else None, "make setup")
    node = part("Node", shutil.which("node") or (str(beside) if beside.exists() else None), "make setup")
    return Browser(node, part("Chromium", named, "apt-get install chromium"))
