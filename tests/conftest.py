"""Fixtures every test may use."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from httpx2 import _config as httpx2_config
from hypothesis import settings

pytest_plugins = ["tests.parts.told", "tests.parts.postgres"]

# No deadlines: how long an example takes says more about the machine than about the code.
settings.register_profile("tapewick", deadline=None, print_blob=True)
settings.load_profile("tapewick")

# The same goes for the five seconds an HTTP client of a test would wait by default; our own clients set theirs.
for part in ("connect", "read", "write", "pool"):
    setattr(httpx2_config.DEFAULT_TIMEOUT_CONFIG, part, 60.0)


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """A command run in this process says where logs go: to a file that pytest closes after the test."""
    before = structlog.get_config() if structlog.is_configured() else None
    yield
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]


@pytest.fixture(scope="session")
def testdata() -> Path:
    """The folder of recorded market data, its checksums checked once.

    Unset: the test is skipped. Set, but absent, incomplete or changed: the test fails.
    """
    named = os.environ.get("TAPEWICK_TESTDATA")
    if not named:
        pytest.skip("TAPEWICK_TESTDATA is not set")
    root = Path(named)
    sums = root / "SHA256SUMS"
    if not sums.is_file():
        pytest.fail(f"TAPEWICK_TESTDATA={named} holds no SHA256SUMS")
    for line in sums.read_text().splitlines():
        expected, _, name = line.partition("  ")
        path = root / name.lstrip("*")
        if not path.is_file():
            pytest.fail(f"{path} is missing")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            pytest.fail(f"{path} was changed: its checksum differs")
    return root
