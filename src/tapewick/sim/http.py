"""The simulated venue's port: HTTP/1.1 with keep-alive, WebSocket upgrades handed to picows.

Small on purpose: GET only, no request bodies. What a venue under fault does to an answer (late, cut
off, damaged) is part of ``Reply``. The picows protocol class and its arguments are not documented API.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, TypeAlias, cast

from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]

__all__ = ["Connection", "Door", "Reply", "Request", "refusal"]

HEAD_BYTES = 65_536  # URLs with a thousand stream names
FRAME_BYTES = 1 << 20
GZIP_FROM = 512

_quiet = logging.getLogger("tapewick.picows")
_quiet.setLevel(logging.CRITICAL + 1)


class Request(NamedTuple):
    """A GET request; header names are lower case."""

    target: str
    headers: Mapping[str, str]


class Reply(NamedTuple):
    """An answer. ``cut``: after so many bytes of the encoded body the connection is cut. ``broken``: the
    encoded body is sent shortened, as if that were all. ``delay``: real seconds before it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    cut: int | None = None
    broken: bool = False
    delay: float = 0.0


Upgrade: TypeAlias = Callable[[WSUpgradeRequest], WSListener | WSUpgradeResponseWithListener]


class Door(NamedTuple):
    """What a connection asks: ``upgrade`` for sockets, ``answer`` for anything else."""

    upgrade: Upgrade
    answer: Callable[[Request], Awaitable[Reply]]


def refusal(reply: Reply) -> WSUpgradeResponseWithListener:
    """``reply`` as picows' answer instead of an upgrade."""
    response = WSUpgradeResponse.create_error_response(HTTPStatus(reply.status), reply.body, dict(reply.headers))
    return WSUpgradeResponseWithListener(response, None)


class _Upgraded(WSProtocol):  # type: ignore[misc]
    """A connection from its upgrade request on; ``closed`` is called at its end."""

    def __init__(self, door: Door, closed: Callable[[], None]) -> None:
        super().__init__(
            None,  # host and port: client side only
            None,  # path: client side only
            False,  # is_client_side
            door.upgrade,
            _quiet,
            True,  # disconnect on an exception in the listener
            5.0,  # handshake timeout
            False,  # pings are the venue's own
            20.0,
            20.0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pongs are the venue's own
            FRAME_BYTES,
            None,  # extra headers: client side only
            2048,
        )
        self._closed = closed

    def take(self, transport: asyncio.Transport, head: bytes) -> None:
        """Go on with ``transport``, of which ``head`` has been read already."""
        self.connection_made(transport)
        view = memoryview(head)
        while view:
            room = self.get_buffer(-1)
            size = min(len(room), len(view))
            room[:size] = view[:size]
            view = view[size:]
            self.buffer_updated(size)

    def connection_lost(self, error: Exception | None) -> None:
        self._closed()
        super().connection_lost(error)


class Connection(asyncio.Protocol):
    """One connection; requests are answered one after the other. ``all`` is where open ones are kept."""

    def __init__(self, door: Door, all: set[asyncio.Transport]) -> None:
        self._door = door
        self._all = all
        self._head = b""
        self._work: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # not every loop's transports inherit from it
        self._all.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._all.discard(self._transport)
        if self._work is not None:
            self._work.cancel()

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._work is None or self._work.done():
            self._next()
        elif len(self._head) > HEAD_BYTES:
            self._transport.abort()

    def _next(self) -> None:
        """Take the next request off what was read, if it is whole."""
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(head) > HEAD_BYTES:
                self._transport.abort()
            return
        lines = head.decode("latin-1").split("\r\n")
        method, _, target = lines[0].partition(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if headers.get("upgrade", "").lower() == "websocket":
            self._upgrade()
            return
        self._head = rest
        request = Request(target.partition(" ")[0], headers)
        close = headers.get("connection", "").lower() == "close" or headers.get("content-length", "0") != "0"
        self._work = asyncio.create_task(self._serve(request, method, close=close or method != "GET"))

    def _upgrade(self) -> None:
        # picows takes only the one word where browsers send a list.
        lines = self._head.split(b"\r\n")
        for at, line in enumerate(lines):
            if line[:11].lower() == b"connection:":
                lines[at] = b"Connection: upgrade"
        upgraded = _Upgraded(self._door, lambda: self._all.discard(self._transport))
        self._transport.set_protocol(upgraded)
        upgraded.take(self._transport, b"\r\n".join(lines))

    async def _serve(self, request: Request, method: str, *, close: bool) -> None:
        if method == "GET":
            try:
                reply = await self._door.answer(request)
            except Exception as error:
                reply = Reply(500, b'{"code":-1000,"msg":"An unknown error occurred."}')
                self._send(reply, request, close=True)
                raise RuntimeError(f"the simulated venue failed on {request.target}") from error
        else:
            reply = Reply(405, b"")
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if not self._transport.is_closing():
            self._send(reply, request, close=close)
        self._work = None
        if self._head and not self._transport.is_closing():
            self._next()

    def _send(self, reply: Reply, request: Request, *, close: bool) -> None:
        headers = {"Content-Type": "application/json;charset=UTF-8", **reply.headers}
        body = reply.body
        if len(body) >= GZIP_FROM and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1, mtime=0)
        if reply.broken:
            body = body[: len(body) // 2]
        close = close or reply.cut is not None
        headers |= {"Content-Length": str(len(body)), "Connection": "close" if close else "keep-alive"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        phrase = HTTPStatus(reply.status).phrase if reply.status in HTTPStatus._value2member_map_ else "Unknown"
        self._transport.write(f"HTTP/1.1 {reply.status} {phrase}\r\n{head}\r\n".encode("latin-1") + body[: reply.cut])
        if close:
            self._transport.close()
