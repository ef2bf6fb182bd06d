"""One socket client of the simulated venue: its subscriptions, its control messages, its outbox."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

import msgspec
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

__all__ = ["Client", "Exchange", "ws_frame"]

MESSAGES_PER_SECOND = 5
MAX_STREAMS = 1024
MAX_ID_CHARS = 36
OUTBOX_BYTES = 16 << 20  # a client that lags by more is disconnected, as the real venue does


class Exchange(Protocol):
    """What a client needs of its venue. ``speed``: how many times faster than the wall's its clock runs."""

    speed: float

    def subscribe(self, client: Client, streams: list[str]) -> None: ...
    def unsubscribe(self, client: Client, streams: list[str]) -> None: ...
    def forget(self, client: Client) -> None: ...


class _Request(msgspec.Struct):
    method: str
    params: list[Any] = []
    id: int | str | None = None


def ws_frame(payload: bytes, opcode: int = 1) -> bytes:
    """``payload`` as one unmasked WebSocket frame (opcode 1 text, 9 ping)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


class Client(WSListener):
    """``combined``: frames are wrapped with their stream's name; ``unit`` 1000: times are in µs.

    ``mute``: the venue pretends to be gone. ``since``: venue time (ns) of the connection. ``pinged``: pings it sent.
    """

    def __init__(self, venue: Exchange, streams: list[str], *, combined: bool, unit: int = 1, since: int = 0) -> None:
        self._venue = venue
        self._initial = streams
        self._times: deque[float] = deque(maxlen=MESSAGES_PER_SECOND)
        self._outbox: list[bytes] = []
        self._waiting = 0
        self._greedy = False
        self.combined = combined
        self.unit = unit
        self.since = since
        self.mute = False
        self.pinged = 0
        self.streams: dict[str, None] = {}
        self.transport: WSTransport | None = None
        self.answered = asyncio.get_running_loop().time()
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if len(self._initial) > MAX_STREAMS:
            self.close(WSCloseCode.POLICY_VIOLATION, b"Too many streams")
        else:
            self._venue.subscribe(self, self._initial)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.writable.set()
        self._venue.forget(self)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.mute:
            return
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif self._too_fast():
            self.close(WSCloseCode.POLICY_VIOLATION, b"Too many requests")
        elif kind == WSMsgType.PING:
            self.pinged += 1
            self.queue(ws_frame(frame.get_payload_as_bytes(), 10))
            self.flush()
        elif kind == WSMsgType.PONG:
            self.answered = asyncio.get_running_loop().time()
        elif kind == WSMsgType.TEXT:
            self.queue(ws_frame(msgspec.json.encode(self._control(frame.get_payload_as_bytes()))))
            self.flush()
            if self._greedy:
                self.close(WSCloseCode.POLICY_VIOLATION, b"Too many streams")

    def queue(self, frame: bytes) -> None:
        """Add an encoded frame to what the next ``flush`` writes."""
        self._outbox.append(frame)
        self._waiting += len(frame)

    def flush(self) -> None:
        """Write everything queued in one go; a client that does not keep up is dropped."""
        if self.transport is None or not self._outbox:
            return
        if self.backlog() > OUTBOX_BYTES:
            self.abort()
        elif not self.mute:
            self.transport.underlying_transport.write(b"".join(self._outbox))
        self._outbox.clear()
        self._waiting = 0

    def backlog(self) -> int:
        """Bytes not yet taken by the client's socket."""
        assert self.transport is not None
        return self._waiting + self.transport.underlying_transport.get_write_buffer_size()

    def close(self, code: WSCloseCode = WSCloseCode.GOING_AWAY, reason: bytes = b"") -> None:
        """End with a close frame."""
        if self.transport is not None:
            self.transport.send_close(code, reason)
            self.transport.disconnect()

    def abort(self) -> None:
        """End at once, without a close frame."""
        if self.transport is not None:
            self.transport.disconnect(graceful=False)

    def _too_fast(self) -> bool:
        now = asyncio.get_running_loop().time() * self._venue.speed
        full = len(self._times) == MESSAGES_PER_SECOND and now - self._times[0] < 1.0
        self._times.append(now)
        return full

    def _control(self, text: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(text, type=_Request)
        except msgspec.ValidationError as error:
            return {"code": 2, "msg": f"Invalid request: {error}", "id": None}
        except msgspec.DecodeError as error:
            return {"code": 3, "msg": f"Invalid JSON: {error}", "id": None}
        if not _is_id(request.id):
            return {"code": 2, "msg": "Invalid request: id must be an integer, a short string or null", "id": None}
        if not request.method.endswith("_PROPERTY") and not all(isinstance(param, str) for param in request.params):
            return {"code": 2, "msg": "Invalid request: params must be stream names", "id": request.id}
        streams = list(request.params)
        if request.method == "SUBSCRIBE":
            if len(self.streams.keys() | set(streams)) > MAX_STREAMS:
                self._greedy = True
                return {"code": 2, "msg": "Invalid request: too many streams", "id": request.id}
            self._venue.subscribe(self, streams)
        elif request.method == "UNSUBSCRIBE":
            self._venue.unsubscribe(self, streams)
        elif request.method == "LIST_SUBSCRIPTIONS":
            return {"result": list(self.streams), "id": request.id}
        elif request.method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(request)
        else:
            return {"code": 2, "msg": f"Invalid request: unknown method {request.method}", "id": request.id}
        return {"result": None, "id": request.id}

    def _property(self, request: _Request) -> dict[str, Any]:
        if request.params[:1] != ["combined"]:
            return {"code": 0, "msg": "Unknown property", "id": request.id}
        if request.method == "GET_PROPERTY":
            return {"result": self.combined, "id": request.id}
        value = request.params[1] if len(request.params) == 2 else None
        if not isinstance(value, bool):
            return {"code": 1, "msg": "Invalid value type: expected Boolean", "id": request.id}
        self.combined = value
        return {"result": None, "id": request.id}


def _is_id(id: int | str | None) -> bool:
    if isinstance(id, str):
        return len(id) <= MAX_ID_CHARS
    return id is None or -(2**63) <= id < 2**63
