"""One socket of a Binance client: its control messages, its framing, its limits and its pings."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import structlog
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from tapewick.errors import StoreError
from tapewick.framing import ws_text
from tapewick.gateways._binance_fanout import Form
from tapewick.gateways._binance_streams import Streams
from tapewick.hub import Hub
from tapewick.outbox import Outbox

__all__ = ["Rules", "Session"]

log = structlog.get_logger()

LINGER = 2.0  # seconds a closed peer has to answer before it is cut
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
MOST_NAME = 128  # characters of a stream name; longer ones name nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Limits of one socket, the venue's own. Times in seconds.

    ``farewell``: on which sockets ``serverShutdown`` is the last frame before the server closes them.
    """

    messages_per_s: int = 5
    streams: int = 1024
    ping_every: float = 20.0
    pong_within: float = 60.0
    farewell: Literal["off", "raw", "all"] = "raw"


class _Invalid(Exception):
    """A control message that is refused with one of the venue's codes 0 to 3."""

    def __init__(self, code: int, text: str, id: int | str | None = None) -> None:
        super().__init__(text)
        self.code, self.id = code, id


@dataclass(slots=True)
class _Request:
    method: str
    params: list[Any]
    id: int | str | None


class Session(WSListener):
    """One client. ``names``: what its address subscribes to."""

    def __init__(
        self, streams: Streams, hub: Hub, rules: Rules, form: Form, names: Sequence[str], now: Callable[[], int]
    ) -> None:
        self._streams, self._hub, self._rules, self._now = streams, hub, rules, now
        self._limits = replace(hub.limits, notice_s=math.inf)  # the protocol has no frame for a notice
        self._initial = names
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._closing = False
        self._times: deque[float] = deque(maxlen=rules.messages_per_s)
        self._pings: dict[bytes, float] = {}
        self._beat: asyncio.TimerHandle | None = None
        self._parts: bytearray | None = None
        self._names: dict[str, None] = {}
        self.form = form

    # -- connection --------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.outbox = Outbox(
            transport.underlying_transport,
            ws_text,
            self._limits,
            lambda: self.close(1008, "slow consumer"),
            lambda: self.close(1011, "internal error"),
        )
        self._hub.enter(self.outbox)
        self._beat = self._loop.call_later(self._rules.ping_every, self._ping)
        if len(self._initial) > self._rules.streams:
            self.close(1008, f"over {self._rules.streams} streams")
        elif self._initial:
            self.outbox.work(self._subscribe_initial)

    async def _subscribe_initial(self) -> None:
        try:
            for name in self._initial:
                await self._join(name)
        except StoreError as error:
            log.error("a client's streams could not be opened", cause=str(error))
            self.close(1013, "try again")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._drop()

    def pause_writing(self) -> None:
        if self._transport is not None:
            self.outbox.pause()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self.outbox.resume()

    def going_away(self) -> None:
        """The server stops."""
        wanted = {"off": False, "raw": not self.form.combined, "all": True}[self._rules.farewell]
        if wanted and not self._closing and self._transport is not None:
            event = b'{"e":"serverShutdown","E":%d}' % (self._now() // self.form.unit)
            wrapped = b'{"stream":"!serverShutdown","data":%b}' % event
            self.outbox.raw(ws_text(wrapped if self.form.combined else event))
        self.close(1001, "server shutdown")

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and accept nothing more; cut the peer if it does not answer."""
        transport = self._transport
        if self._closing or transport is None:
            return
        self._closing = True
        self._drop()
        transport.send_close(code, reason)  # type: ignore[arg-type]
        self._loop.call_later(LINGER, transport.disconnect, False)

    def _drop(self) -> None:
        if self._transport is None:
            return
        for name in self._names:
            self._streams.leave(self, name)
        self._names.clear()
        self._hub.drop(self.outbox)

    def _ping(self) -> None:
        now = self._loop.time()
        if self._closing or self._transport is None:
            return
        if self._pings and now - next(iter(self._pings.values())) > self._rules.pong_within:
            self.close(1008, "Pong timeout")
            return
        payload = b"%d" % (self._now() // 1_000_000)
        self._pings.setdefault(payload, now)
        self.outbox.raw(b"\x89%c" % len(payload) + payload)
        wait = min(self._rules.ping_every, max(0.0, next(iter(self._pings.values())) + self._rules.pong_within - now))
        self._beat = self._loop.call_later(wait or self._rules.ping_every, self._ping)

    def _answered(self, payload: bytes) -> None:
        """A pong counts if it carries what a ping carried; it answers the pings before that one too."""
        if payload in self._pings:
            for sent in list(self._pings):
                del self._pings[sent]
                if sent == payload:
                    break

    # -- frames in ---------------------------------------------------------------------------------

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            if not self._closing:
                self._closing = True
                transport.send_close(frame.get_close_code() or 1000)  # 0: the peer gave none
            transport.disconnect()
        elif self._closing:
            return
        elif self._too_fast():
            self.close(1008, "Too many requests")
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(1002, "no extension was negotiated")
        elif kind == WSMsgType.PONG:
            self._answered(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PING:
            payload = frame.get_payload_as_bytes()
            self.outbox.raw(b"\x8a%c" % len(payload) + payload)
        elif kind == WSMsgType.BINARY:
            self.close(1003, "text frames only")
        else:
            self._take_part(frame)

    def _too_fast(self) -> bool:
        now = self._loop.time()
        full = len(self._times) == self._rules.messages_per_s and now - self._times[0] < 1.0
        self._times.append(now)
        return full

    def _take_part(self, frame: WSFrame) -> None:
        """Join fragments; their sum has the bound of one frame."""
        if (frame.msg_type == WSMsgType.CONTINUATION) != (self._parts is not None):
            self.close(1002, "fragments out of order")
            return
        parts = self._parts = self._parts if self._parts is not None else bytearray()
        parts += frame.get_payload_as_bytes()
        if len(parts) > self._limits.frame_bytes:
            self.close(1009, f"over {self._limits.frame_bytes} bytes")
        elif frame.fin:
            self._parts = None
            self._take(bytes(parts))

    def _take(self, text: bytes) -> None:
        try:
            request = _request(text)
        except _Invalid as error:
            self._refuse(error)
            return
        if not self.outbox.work(lambda: self._do(request), asked=True):
            self.close(1008, "Too many requests")

    # -- control messages --------------------------------------------------------------------------

    async def _do(self, request: _Request) -> None:
        try:
            result = await self._result(request)
        except _Invalid as error:
            self._refuse(error)
        except StoreError as error:
            log.error("a client's streams could not be opened", cause=str(error))
            self._refuse(_Invalid(2, "Invalid request: streams cannot be opened now; try again", request.id))
        else:
            self.outbox.control({"result": result, "id": request.id})

    def _refuse(self, error: _Invalid) -> None:
        self.outbox.control({"code": error.code, "msg": str(error), "id": error.id})

    async def _result(self, request: _Request) -> object:
        if request.method == "LIST_SUBSCRIPTIONS":
            return list(self._names)
        if request.method.endswith("_PROPERTY"):
            return self._property(request)
        names = _names(request)
        if request.method == "UNSUBSCRIBE":
            for name in names:
                self._names.pop(name, None)
                self._streams.leave(self, name)
        elif len(self._names.keys() | set(names)) > self._rules.streams:
            self.close(1008, f"over {self._rules.streams} streams")
        else:
            for name in names:
                await self._join(name)
        return None

    async def _join(self, name: str) -> None:
        if name in self._names or self._closing:
            return
        self._names[name] = None
        try:
            await self._streams.join(self, name)
        except BaseException:
            self._names.pop(name, None)
            raise
        if self._closing:
            self._streams.leave(self, name)

    def _property(self, request: _Request) -> object:
        name, *values = request.params or [None]
        if name != "combined":
            raise _Invalid(0, f"Unknown property: {str(name)[:40]!r}", request.id)
        if request.method == "GET_PROPERTY":
            return self.form.combined
        if len(values) != 1 or not isinstance(values[0], bool):
            raise _Invalid(1, "Invalid value type: expected Boolean", request.id)
        self.form = self.form._replace(combined=values[0])
        self._streams.reform(self, self._names)
        return None


def _request(text: bytes) -> _Request:
    """A control message. Raises ``_Invalid``."""
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _Invalid(3, f"Invalid JSON: {error}"[:200]) from None
    if not isinstance(message, dict):
        raise _Invalid(2, "Invalid request: expected an object")
    id, method, params = message.get("id"), message.get("method"), message.get("params", [])
    whole = isinstance(id, int) and not isinstance(id, bool) and -(2**63) <= id < 2**63
    if not (id is None or whole or (isinstance(id, str) and len(id) <= 36)):
        raise _Invalid(2, "Invalid request: id must be an int64, a string of at most 36 characters, or null")
    if not isinstance(method, str) or method not in METHODS:
        raise _Invalid(2, f"Invalid request: unknown method, expected one of {', '.join(METHODS)}", id)
    if params is None:
        params = []
    if not isinstance(params, list):
        raise _Invalid(2, "Invalid request: params must be an array", id)
    return _Request(method, params, id)


def _names(request: _Request) -> list[str]:
    """The streams a request names. Raises ``_Invalid``."""
    if not request.params:
        raise _Invalid(2, "Invalid request: params must name at least one stream", request.id)
    for name in request.params:
        if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME:
            raise _Invalid(2, f"Invalid request: a stream name is a string of 1 to {MOST_NAME} characters", request.id)
    return list(dict.fromkeys(request.params))
