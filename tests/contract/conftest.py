"""The store of a test: each registered one in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.tapes import (
    STORES,
    Open,
    store_at,
)
from tests.parts.postgres import PostgresServer


@pytest.fixture(params=STORES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Kind and place of the store of this test, empty."""
    if request.param == "duckdb":
        return request.param, str(tmp_path / "data")
    server: PostgresServer = request.getfixturevalue(request.param)
    return request.param, server.database()


@pytest.fixture
def opened(address: tuple[str, str]) -> Open:
    """Makes the store of this test; called again after closing, the same data."""
    return lambda: store_at(*address)
