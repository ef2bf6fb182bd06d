"""The native WebSocket protocol at ``/v1/ws``: subscribe, snapshot, live, resume.

One JSON object per text frame. Data frames hold nothing of one client's own, so one encoding
serves every subscriber; what is a client's own travels in control frames. ``push.md`` is the
contract: names of frames and close codes are its.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Annotated, Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, WSUpgradeResponse
from picows import WSUpgradeResponseWithListener as Accepted
from ulid import ULID

from tapewick.channel import Channel
from tapewick.errors import ApiError, ModelError, NotFound
from tapewick.framing import ws_text
from tapewick.gateways import _wishes
from tapewick.gateways._bridge import Answer, Door, foreign, refuse
from tapewick.hub import Admitted, Hub
from tapewick.market import Market
from tapewick.outbox import Outbox

__all__ = ["PATH", "SUBPROTOCOL", "Session", "door"]

PATH = "/v1/ws"
SUBPROTOCOL = "tapewick.v1.json"
LINGER = 2.0  # seconds a closed peer has to answer before it is cut

Id = int | Annotated[str, msgspec.Meta(max_length=64)] | None


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    channels: Annotated[list[_wishes.Wanted], msgspec.Meta(min_length=1, max_length=100)]
    id: Id = None


class Named(msgspec.Struct, forbid_unknown_fields=True):
    ch: Annotated[str, msgspec.Meta(max_length=128)]


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    channels: Annotated[list[Named], msgspec.Meta(min_length=1, max_length=1024)]
    id: Id = None


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    id: Id = None


class List(msgspec.Struct, tag_field="op", tag="list", forbid_unknown_fields=True):
    id: Id = None


class _AnyId(msgspec.Struct):
    id: Id = None


_decode = msgspec.json.Decoder(Subscribe | Unsubscribe | Ping | List).decode
_decode_id = msgspec.json.Decoder(_AnyId).decode


class Bucket:
    """A token bucket: ``rate`` per second, at most ``burst`` saved up."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, float(burst), now

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Session(WSListener):
    """One client."""

    def __init__(self, hub: Hub, now_ms: Callable[[], int]) -> None:
        self._hub, self._now_ms, self._limits = hub, now_ms, hub.limits
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._outbox: Outbox | None = None
        self._closing = False
        self._seen = self._loop.time()
        self._bucket = Bucket(self._limits.in_per_s, self._limits.in_burst, self._seen)
        self._parts: bytearray | None = None
        self._beat: asyncio.TimerHandle | None = None

    # -- connection --------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._outbox = Outbox(
            transport.underlying_transport,
            ws_text,
            self._limits,
            lambda: self.close(4008, "slow_consumer"),
            lambda: self.close(1011, "internal error"),
        )
        self._hub.enter(self._outbox)
        limits = self._limits
        self._outbox.control(
            {
                "type": "welcome",
                "session": str(ULID()),
                "server_ts": self._now_ms(),
                "heartbeat_s": limits.heartbeat_s,
                "limits": {"subs": limits.subscriptions, "in_per_s": limits.in_per_s, "frame": limits.frame_bytes},
            }
        )
        self._beat = self._loop.call_later(limits.heartbeat_s, self._heartbeat)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._outbox is not None:
            self._hub.drop(self._outbox)

    def pause_writing(self) -> None:
        if self._outbox is not None:
            self._outbox.pause()

    def resume_writing(self) -> None:
        if self._outbox is not None:
            self._outbox.resume()

    def going_away(self) -> None:
        """The server stops."""
        self.close(1001, "server shutdown")

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and accept nothing more; cut the peer if it does not answer."""
        transport = self._transport
        if self._closing or transport is None:
            return
        self._closing = True
        if self._outbox is not None:
            self._hub.drop(self._outbox)
        transport.send_close(code, reason)  # type: ignore[arg-type]
        self._loop.call_later(LINGER, transport.disconnect, False)

    def _heartbeat(self) -> None:
        if self._closing or self._transport is None or self._outbox is None:
            return
        if self._loop.time() - self._seen > self._limits.pong_s:
            self.close(4010, "no pong")
            return
        self._outbox.raw(b"\x89\x00")
        self._beat = self._loop.call_later(self._limits.heartbeat_s, self._heartbeat)

    # -- frames in ---------------------------------------------------------------------------

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._seen = self._loop.time()
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            if not self._closing:
                self._closing = True
                transport.send_close(frame.get_close_code() or 1000)  # 0: the peer gave none
            transport.disconnect()
        elif self._closing or kind == WSMsgType.PONG or self._outbox is None:
            return
        elif not self._bucket.take(self._seen):
            self.close(4029, f"over {self._limits.in_per_s:g} messages per second")
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(1002, "no extension was negotiated")
        elif kind == WSMsgType.PING:
            payload = frame.get_payload_as_bytes()
            self._outbox.raw(b"\x8a%c" % len(payload) + payload)
        elif kind == WSMsgType.BINARY:
            self.close(1003, "text frames only")
        else:
            self._take_part(frame)

    def _take_part(self, frame: WSFrame) -> None:
        """Join fragments; their sum has the bound of one frame."""
        if (frame.msg_type == WSMsgType.CONTINUATION) != (self._parts is not None):
            self.close(1002, "fragments out of order")
            return
        payload = frame.get_payload_as_bytes()
        if self._parts is None and frame.fin:
            self._take(payload)
            return
        parts = self._parts = self._parts or bytearray()
        parts += payload
        if len(parts) > self._limits.frame_bytes:
            self.close(1009, f"over {self._limits.frame_bytes} bytes")
        elif frame.fin:
            self._parts = None
            self._take(bytes(parts))

    def _take(self, text: bytes) -> None:
        assert self._outbox is not None
        try:
            text.decode()
        except UnicodeDecodeError:
            self.close(1007, "not UTF-8")
            return
        try:
            op = _decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            self._refuse(_id_of(text), f"{error}"[:200])
            return
        if isinstance(op, Ping):
            self._outbox.control({"type": "pong", "id": op.id, "server_ts": self._now_ms()})
        elif not self._outbox.work(lambda: self._do(op), asked=True):
            self.close(4029, "too many requests wait")

    def _refuse(self, id: int | str | None, why: str) -> None:
        assert self._outbox is not None
        self._outbox.control({"type": "error", "id": id, "code": "bad_request", "msg": why})

    # -- operations --------------------------------------------------------------------------

    async def _do(self, op: Subscribe | Unsubscribe | List) -> None:
        outbox = self._outbox
        assert outbox is not None
        if isinstance(op, Subscribe):
            await self._subscribe(outbox, op)
        elif isinstance(op, Unsubscribe):
            gone = [self._hub.unfollow(outbox, _canonical(channel.ch)) for channel in op.channels]
            outbox.control({"type": "unsubscribed", "id": op.id, "count": sum(gone)})
        else:
            names = [{"ch": name} for name in outbox.channels]
            outbox.control({"type": "list", "id": op.id, "channels": names})

    async def _subscribe(self, outbox: Outbox, op: Subscribe) -> None:
        admitted: list[Admitted] = []
        errors: list[dict[str, object]] = []
        for wanted in op.channels:
            try:
                request = _wishes.request(wanted)
                names = {*outbox.channels, *(one.request.channel.name for one in admitted), request.channel.name}
                if len(names) > self._limits.subscriptions:
                    errors.append(_error(wanted.ch, 4413, f"over {self._limits.subscriptions} subscriptions"))
                    continue
                admitted.append(await self._hub.admit(request))
            except NotFound as error:
                errors.append(_error(wanted.ch, 4404, str(error)))
            except (ApiError, ModelError) as error:
                errors.append(_error(wanted.ch, 4400, str(error)))
        reply: dict[str, Any] = {"type": "subscribed", "id": op.id, "channels": [_wishes.told(one) for one in admitted]}
        outbox.control({**reply, "errors": errors} if errors else reply)
        for one in admitted:
            if not outbox.closed:
                await self._hub.follow(outbox, one)


def _id_of(text: bytes) -> int | str | None:
    """The id of a request that is otherwise wrong, if it has a good one."""
    try:
        return _decode_id(text).id
    except (msgspec.DecodeError, RecursionError):
        return None


def _canonical(name: str) -> str:
    try:
        return Channel.parse(name).name
    except (ApiError, ModelError):
        return name  # never subscribed to: nothing to stop


def _error(channel: str, code: int, why: str) -> dict[str, object]:
    return {"ch": channel, "code": code, "msg": why}


def door(market: Market, hub: Hub, allowed_origins: Collection[str]) -> Door:
    """Who may come in: the path must be ours, a browser's page of our own or an allowed origin."""

    def answer(request: WSUpgradeRequest) -> Answer:
        path = request.path.decode("latin-1").partition("?")[0]
        if path != PATH:
            return refuse(404, f"no WebSocket at {path[:80]}; connect to {PATH}")
        origin = request.headers.get("Origin")
        if foreign(origin, request.headers.get("Host"), allowed_origins):
            return refuse(403, f"origin {str(origin)[:80]} is not allowed; add it to server.allowed_origins")
        session = Session(hub, lambda: market.now() // 1_000_000)
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        extra = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if SUBPROTOCOL in offered else None
        return Accepted(WSUpgradeResponse.create_101_response(extra), session)

    return answer
