"""Both implementations of the engine, for tests that must hold for either."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from tapewick.engine import _reference

IMPLEMENTATIONS: dict[str, Any] = {"reference": _reference.TapeCore}
if find_spec("tapewick.engine._native") is not None:
    from tapewick.engine import _native

    IMPLEMENTATIONS["native"] = _native.TapeCore


@pytest.fixture(scope="session", params=["native", "reference"])
def implementation(request: pytest.FixtureRequest) -> Any:
    """The class ``TapeCore`` of one implementation."""
    if request.param not in IMPLEMENTATIONS:
        pytest.skip("the native engine was not built here")
    return IMPLEMENTATIONS[request.param]


@pytest.fixture(scope="session")
def both() -> tuple[Any, Any]:
    """``TapeCore`` of the native and of the reference implementation."""
    if "native" not in IMPLEMENTATIONS:
        pytest.skip("the native engine was not built here")
    return IMPLEMENTATIONS["native"], IMPLEMENTATIONS["reference"]
