"""One HTTP connection of the port: how much it may send, how slowly, and whose it is.

uvicorn's protocol, with what a public port needs besides: bounds on heads, slow bodies and readers that take nothing,
a place per connection of an address, and a transport that server-sent events are written to beside ASGI.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tapewick import metrics
from tapewick.errors import TooManyRequests
from tapewick.gateways._address import FORWARDED, Addresses
from tapewick.gateways._head import Fault, fault
from tapewick.gateways._limiter import Limiter
from tapewick.gateways._problem import MEDIA_TYPE, body
from tapewick.gateways._quota import Quota, Slot

__all__ = ["CONNECTION", "Entrance", "HttpProtocol", "Stream"]

HEAD_BYTES = 16_384  # of one request's line and headers; picows has the same bound
CONNECTION = "tapewick.connection"  # in a request's scope["state"]: its HttpProtocol
HEAD_SECONDS = 10.0  # a connection that has not sent a whole request head by then is closed
BODY_SECONDS = 10.0  # a body may take that long, and longer while it comes at
BODY_RATE = 8192  # bytes per second
WRITE_SECONDS = 60.0  # a client that takes nothing of an answer for so long is cut

_FORWARDED = FORWARDED.encode()


class Entrance(NamedTuple):
    """What every connection of a port passes: whose it is, how many an address may have, how often it may ask."""

    addresses: Addresses
    quota: Quota
    limiter: Limiter


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


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on connections, request heads and slow peers, and no byte lost after an
    upgrade."""

    stream: Stream | None = None
    stopping = False
    _head_left = HEAD_BYTES
    _slot: Slot | None = None
    _deadline: asyncio.TimerHandle | None = None
    _body_deadline: asyncio.TimerHandle | None = None
    _body_bytes, _body_since = 0, 0.0
    _write_deadline: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle
    _fault: Fault | None = None
    _trailing = False
    _deaf = False  # what comes after a request that was refused belongs to nothing

    def __init__(self, entrance: Entrance, *rest: Any, **more: Any) -> None:
        super().__init__(*rest, **more)
        self._entrance = entrance

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        if not self._entrance.addresses.trusts(peer):
            try:
                self._slot = self._entrance.quota.slot(self._entrance.addresses.of(peer, ()))
            except TooManyRequests as error:
                metrics.limited.labels("connections").inc()
                self._refuse(429, str(error), f"retry-after: {error.retry_after}\r\n")
                return
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._stop_body_deadline()
        self._stop_write_deadline()
        self._leave()
        super().connection_lost(exc)
        if self.stream is not None:
            self.stream.lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.stream is not None:
            self.stream.pause()
        elif self._write_deadline is None:
            self._write_deadline = self.loop.call_later(WRITE_SECONDS, self._give_up)

    def resume_writing(self) -> None:
        self._stop_write_deadline()
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
        self._head_left, self._trailing = HEAD_BYTES, False
        self._start_deadline()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._trailing:  # a field behind the body was seen by none of the checks of the head
            super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        upgrades = self.parser.should_upgrade()
        self._fault = fault(self.parser.get_http_version(), self.url, self.headers, upgrades=upgrades)
        if self._fault is not None:
            raise ValueError(self._fault.detail)  # the parser stops and reports a callback error
        self._trailing = True
        self._stop_deadline()
        self._body_bytes, self._body_since = 0, self.loop.time()
        if self.client is not None:
            told = [value.decode("latin-1") for name, value in self.headers if name == _FORWARDED]
            self.scope["client"] = self._entrance.addresses.of(self.client[0], told), self.client[1]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        self._stop_body_deadline()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self._deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]  # a first frame that came with the handshake, or the next request
            if not self._should_upgrade():
                if rest:
                    self.data_received(rest)
            elif self._answering():
                self._refuse_in_turn(400, "a connection is upgraded after its earlier answers, not before")
            else:
                self._stop_deadline()
                self._leave()
                self.handle_websocket_upgrade()
                if rest:
                    self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]
        except httptools.HttpParserError:
            self.send_400_response("not a valid HTTP request")
        else:
            if self._body_deadline is None and self._awaits_body():
                self._body_deadline = self.loop.call_later(BODY_SECONDS, self._look_at_body)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, and close."""
        if self._head_left <= 0:
            self._refuse_in_turn(431, f"a request head is bounded to {HEAD_BYTES} bytes")
        else:
            self._refuse_in_turn(*(self._fault or Fault(400, msg)))

    def _answering(self) -> bool:
        """Whether a request that came before has not got its whole answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse_in_turn(self, status: int, detail: str) -> None:
        """Refuse the request that is being read, and close: never before the answers of those that came earlier,
        whose sender would take the refusal for one of them."""
        self._deaf = True
        self._stop_deadline()
        self._stop_body_deadline()
        if not self._answering():
            self._refuse(status, detail)
            return
        last = self.cycle
        if last.more_body:  # it is the request being read itself
            if last is self._running:
                self._cut_off(status, detail)
                return
            self.pipeline.popleft()  # the newest is on the left
            last = self.pipeline[0][0] if self.pipeline else self._running
        last.keep_alive = False
        if last.response_complete:
            self.transport.close()

    def _cut_off(self, status: int, detail: str) -> None:
        """End the request that is being answered while its body comes."""
        if self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(status, detail)

    def _refuse(self, status: int, detail: str, more: str = "") -> None:
        """Answer beside ASGI, and close."""
        content = body(status, detail)
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nconnection: close\r\ncontent-type: {MEDIA_TYPE}\r\n"
        extra = "".join(f"{k.decode()}: {v.decode()}\r\n" for k, v in self.server_state.default_headers)
        self.transport.write(f"{head}{more}{extra}content-length: {len(content)}\r\n\r\n".encode() + content)
        self.transport.close()

    def _leave(self) -> None:
        """Free the address's place: the connection is gone, or a push connection from now on."""
        if self._slot is not None:
            self._slot.end()
            self._slot = None

    def _count(self, size: int) -> None:
        self._head_left -= size
        if self._head_left <= 0:
            raise ValueError("request head too large")  # the parser stops and reports a callback error

    # -- slow peers --------------------------------------------------------------------------

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _awaits_body(self) -> bool:
        cycle = self.cycle
        return cycle is not None and cycle.more_body  # also behind an answer that was given early

    def _look_at_body(self) -> None:
        """Wait on while a body comes at a fair pace, else answer 408."""
        self._body_deadline = None
        if not self._awaits_body() or self.transport.is_closing():
            return
        left = BODY_SECONDS + self._body_bytes / BODY_RATE - (self.loop.time() - self._body_since)
        if left > 0:
            self._body_deadline = self.loop.call_later(left, self._look_at_body)
            return
        metrics.limited.labels("slow body").inc()
        self._refuse_in_turn(408, f"the body came at less than {BODY_RATE} bytes a second")

    def _stop_body_deadline(self) -> None:
        if self._body_deadline is not None:
            self._body_deadline.cancel()
            self._body_deadline = None

    def _give_up(self) -> None:
        """The peer takes nothing of its answer; what it holds here others need."""
        self._write_deadline = None
        if self.stream is None:
            metrics.limited.labels("slow reader").inc()
            self.transport.abort()

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
