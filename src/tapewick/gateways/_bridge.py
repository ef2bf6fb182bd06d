"""WebSocket upgrades on the HTTP port, handed to picows without ASGI in between.

uvicorn gives an upgraded connection to whatever its ``ws`` setting makes. ``Bridge`` is that: a
picows protocol fed with the handshake uvicorn has already parsed. ``picows.picows.WSProtocol`` and
its arguments are not documented API (hence ``picows<3``); a contract test holds this file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, Protocol, runtime_checkable

from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from tapewick.errors import Forbidden, TooManyRequests, Unauthorized
from tapewick.gateways._address import FORWARDED
from tapewick.gateways._auth import Guard, carried, offered
from tapewick.gateways._connection import Entrance
from tapewick.gateways._problem import MEDIA_TYPE, body
from tapewick.gateways._quota import Quota, Slot

__all__ = ["Bridge", "Door", "foreign", "guarded", "refuse"]

logger = logging.getLogger("picows.tapewick")
logger.setLevel(logging.CRITICAL)  # picows tells of every connection, and of every frame a client gets wrong

_quiet: Any = logging.LoggerAdapter(logger, {})  # of a plain logger picows makes one for each connection

Answer = WSListener | WSUpgradeResponseWithListener
Door = Callable[[WSUpgradeRequest], Answer]
"""Decides on an upgrade: a listener, a 101 response with one, or ``refuse(...)``."""


@runtime_checkable
class Goodbye(Protocol):
    """A listener that can tell its peer why the server goes away."""

    def going_away(self) -> None: ...


def refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> WSUpgradeResponseWithListener:
    """An answer instead of an upgrade, with a problem body."""
    extra = {"Content-Type": MEDIA_TYPE, **(headers or {})}
    response = WSUpgradeResponse.create_error_response(HTTPStatus(status), body(status, detail), extra)
    return WSUpgradeResponseWithListener(response, None)


def foreign(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a browser's page from elsewhere asks, and not from an allowed origin."""
    return origin is not None and origin not in allowed and origin.partition("://")[2] != host


def guarded(door: Door, guard: Guard) -> Door:
    """``door`` for those whose headers carry a token ``guard`` knows."""

    def answer(request: WSUpgradeRequest) -> Answer:
        try:
            guard.check(carried(request.headers.get))
        except (Unauthorized, Forbidden) as error:
            return refuse(error.status, str(error), {"WWW-Authenticate": "Bearer"})
        return door(request)

    return answer


class Bridge(WSProtocol):  # type: ignore[misc]
    """One upgraded connection. ``door`` sees the request before anything is accepted; ``quota``: how many an
    address may have; ``entrance``: of the port."""

    def __init__(
        self,
        door: Door,
        quota: Quota,
        entrance: Entrance,
        frame_bytes: int,
        drain: float,
        *,
        config: Any,
        server_state: Any,
        app_state: Any,
    ) -> None:
        self._door, self._quota, self._entrance = door, quota, entrance
        self._slot: Slot | None = None
        super().__init__(
            None,  # host and port: client side only
            None,  # path: client side only
            False,  # is_client_side
            self._answer,
            _quiet,
            True,  # disconnect on an exception in the listener
            5.0,  # handshake timeout
            False,  # pings are the listener's own
            20.0,
            20.0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pongs are the listener's own
            frame_bytes,
            None,  # extra headers: client side only
            2048,  # initial read buffer; it grows
        )
        self._connections, self._drain = server_state.connections, drain
        self._tcp: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._tcp = transport
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        if self._slot is not None:
            self._slot.end()
        super().connection_lost(error)

    def _answer(self, request: WSUpgradeRequest) -> Answer:
        """Behind what RFC 6455 wants of the handshake and picows does not check, the door's."""
        assert self._tcp is not None
        if request.headers.get("Sec-WebSocket-Version") != "13":
            return refuse(426, "this server speaks WebSocket version 13", {"Sec-WebSocket-Version": "13"})
        peer = self._tcp.get_extra_info("peername") or ("",)
        address = self._entrance.addresses.of(str(peer[0]), request.headers.getall(FORWARDED, []))
        names = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
        token = carried(request.headers.get) or offered([name.strip() for name in names.split(",")])
        try:
            self._entrance.limiter.take(address, token)
            self._slot = self._quota.slot(address)
        except TooManyRequests as error:
            return refuse(error.status, str(error), {"Retry-After": str(error.retry_after)})
        # picows wants exactly "upgrade"; browsers send a list, which uvicorn has checked.
        request.headers["Connection"] = "upgrade"
        return self._door(request)

    def data_received(self, data: bytes) -> None:
        """Feed bytes that uvicorn has read: the handshake, and what came with it."""
        view = memoryview(data)
        while view:
            room = self.get_buffer(-1)
            size = min(len(room), len(view))
            room[:size] = view[:size]
            view = view[size:]
            self.buffer_updated(size)
        for head in (self.transport.request, self.transport.response):  # picows keeps them as long as the connection
            if head is not None:
                head.headers.clear()

    def shutdown(self) -> None:
        """uvicorn is stopping: say goodbye, flush, and cut whoever does not read."""
        assert self._tcp is not None
        if isinstance(self.listener, Goodbye):
            self.listener.going_away()
        self._tcp.close()
        asyncio.get_running_loop().call_later(self._drain, self._tcp.abort)
