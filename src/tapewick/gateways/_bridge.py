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

import httptools
from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tapewick.errors import Forbidden, TooManyRequests, Unauthorized
from tapewick.gateways._auth import Guard, carried
from tapewick.gateways._problem import MEDIA_TYPE, body
from tapewick.gateways._quota import Quota, Slot

__all__ = ["CONNECTION", "Bridge", "Door", "HttpProtocol", "Stream", "foreign", "guarded", "refuse"]

logger = logging.getLogger("picows.tapewick")
logger.setLevel(logging.CRITICAL)  # picows tells of every connection, and of every frame a client gets wrong

_quiet: Any = logging.LoggerAdapter(logger, {})  # of a plain logger picows makes one for each connection

HEAD_BYTES = 16_384  # of one request's line and headers; picows has the same bound
CONNECTION = "tapewick.connection"  # in a request's scope["state"]: its HttpProtocol
HEAD_SECONDS = 10.0  # a connection that has not sent a whole request head by then is closed

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


class Stream(Protocol):
    """An answer that is written to the transport beside ASGI."""

    def pause(self) -> None:
        """The transport's buffer passed its mark."""

    def resume(self) -> None:
        """The transport's buffer has drained."""

    def lost(self) -> None:
        """The peer is gone."""

    def going_away(self) -> None:
        """The server stops."""


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
    address may have."""

    def __init__(
        self,
        door: Door,
        quota: Quota,
        frame_bytes: int,
        drain: float,
        *,
        config: Any,
        server_state: Any,
        app_state: Any,
    ) -> None:
        self._door, self._quota = door, quota
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
        try:
            self._slot = self._quota.slot(str(peer[0]))
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


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on the request head, and no byte lost after an upgrade."""

    stream: Stream | None = None
    stopping = False
    _head_left = HEAD_BYTES
    _deadline: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)
        if self.stream is not None:
            self.stream.lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.stream is not None:
            self.stream.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stream is not None:
            self.stream.resume()

    def shutdown(self) -> None:
        self.stopping = True
        super().shutdown()
        if self.stream is not None:
            self.stream.going_away()

    def unchunked(self) -> bool:
        """Whether the running request's answer must not be chunked (HTTP/1.0); it then ends with the connection."""
        if self._running.scope["http_version"] != "1.0":
            return False
        self._running.chunked_encoding, self._running.keep_alive = False, False
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self
        self._head_left = HEAD_BYTES
        self._start_deadline()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        self._stop_deadline()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._stop_deadline()
                self.handle_websocket_upgrade()
                if rest := data[upgrade.args[0] :]:  # a first frame that came with the handshake
                    self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]
        except httptools.HttpParserError:
            self.send_400_response("not a valid HTTP request")

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, and close."""
        status, detail = 400, msg
        if self._head_left <= 0:
            status, detail = 431, f"a request head is bounded to {HEAD_BYTES} bytes"
        content = body(status, detail)
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nconnection: close\r\ncontent-type: {MEDIA_TYPE}\r\n"
        extra = "".join(f"{k.decode()}: {v.decode()}\r\n" for k, v in self.server_state.default_headers)
        self.transport.write(f"{head}{extra}content-length: {len(content)}\r\n\r\n".encode() + content)
        self.transport.close()

    def _count(self, size: int) -> None:
        self._head_left -= size
        if self._head_left <= 0:
            raise ValueError("request head too large")  # the parser stops and reports a callback error

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
