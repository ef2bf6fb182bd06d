"""The port of a process without clients: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from litestar import Litestar

from tapewick.clock import Clock
from tapewick.gateways import _operation, _problem
from tapewick.gateways._address import Addresses
from tapewick.gateways._auth import Guard, route_guard
from tapewick.gateways._connection import Entrance
from tapewick.gateways._limiter import Limiter
from tapewick.gateways._port import Port, Tls
from tapewick.gateways._quota import Quota

__all__ = ["StatusGateway"]

CONNECTIONS = 64  # one address may have open
DRAIN = 1.0


class StatusGateway:
    """``/health/live``, ``/health/ready`` and ``/metrics`` while its context is open; ``url`` tells where.

    ``trouble`` tells why the process is not ready, None while it is. Raises ``ConfigError``.
    """

    def __init__(
        self, trouble: Callable[[], str | None], guard: Guard, clock: Clock, *, host: str, port: int, tls: Tls
    ) -> None:
        self._trouble, self._guard = trouble, guard
        places = Quota(CONNECTIONS, what="connections")
        entrance = Entrance(Addresses(()), places, Limiter(0, guard, clock.now))
        self._port = Port(host, port, tls=tls, drain=DRAIN, entrance=entrance)
        self.url = ""

    async def __aenter__(self) -> Self:
        app = Litestar(
            [*_operation.readiness(self._trouble), _operation.prometheus()],
            exception_handlers=_problem.HANDLERS,
            guards=[route_guard(self._guard)],
            openapi_config=None,
            logging_config=None,
        )
        await self._guard.start()
        try:
            await self._port.open(app)
        except BaseException:
            await self._guard.stop()
            raise
        self.url = self._port.url
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._port.close()
        await self._guard.stop()
