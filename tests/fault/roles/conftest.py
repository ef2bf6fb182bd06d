"""The bus servers under the roles."""

from __future__ import annotations

import pytest

from tests.buses.rig import NETWORK, BusRig
from tests.parts.kafka import kafka_server  # noqa: F401
from tests.parts.nats import nats_server  # noqa: F401
from tests.parts.redis import redis_server  # noqa: F401


@pytest.fixture(params=NETWORK)
def bus(request: pytest.FixtureRequest) -> BusRig:
    """Each of the network buses in turn."""
    return BusRig(request.param, request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture
def redis_bus(request: pytest.FixtureRequest) -> BusRig:
    """Where the bus makes no difference."""
    return BusRig("redis", request.getfixturevalue("redis_server"))
