"""The native WebSocket protocol at ``/v1/ws``: subscribe, snapshot, live, resume.

One JSON object per text frame. Data frames hold nothing of one client's own, so one encoding
serves every subscriber; what is a client's own travels in control frames. ``push.md`` is the
contract: names of frames and close codes are its.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, WSUpgradeResponse
from picows import WSUpgradeResponseWithListener as Accepted
from ulid import ULID

from tapewick.channel import Channel, Since, parse_position
from tapewick.errors import ApiError, BadRequest, ModelError, NotFound
from tapewick.gateways._bridge import Answer, Door, refuse
from tapewick.hub import Admitted, Hub, Request
from tapewick.market import Market
from tapewick.outbox import Outbox

__all__ = ["PATH", "SUBPROTOCOL", "Session", "door", "ws_text"]

PATH = "/v1/ws"
SUBPROTOCOL = "tapewick.v1.json"
LINGER = 2.0  # seconds a closed peer has to answer before it is cut
MAX_SNAPSHOT = 1000
DEFAULT_SNAPSHOT = {"trade": 100, "candle": 2}
DEFAULT_LEVELS = {"book": 20, "book_top": 20}

Id = int | Annotated[str, msgspec.Meta(max_length=64)] | None


class SinceTime(msgspec.Struct, forbid_unknown_fields=True):
    ts: Annotated[int, msgspec.Meta(ge=0, le=9_223_372_036_854)]


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    ch: Annotated[str, msgspec.Meta(max_length=128)]
    snapshot: Annotated[int, msgspec.Meta(ge=0, le=MAX_SNAPSHOT)] | None = None
    since: str | int | SinceTime | None = None
    backfill: Literal["all", "skip"] | None = None
    levels: Literal[5, 10, 20, 50, 100, 500] | None = None


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    channels: Annotated[list[Wanted], msgspec.Meta(min_length=1, max_length=100)]
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


def ws_text(payload: bytes) -> bytes:
    """A whole, unmasked text frame."""
    size = len(payload)
    if size < 126:
        return b"\x81%c" % size + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


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
                request = _request(wanted)
                names = {*outbox.channels, *(one.request.channel.name for one in admitted), request.channel.name}
                if len(names) > self._limits.subscriptions:
                    errors.append(_error(wanted.ch, 4413, f"over {self._limits.subscriptions} subscriptions"))
                    continue
                admitted.append(await self._hub.admit(request))
            except NotFound as error:
                errors.append(_error(wanted.ch, 4404, str(error)))
            except (ApiError, ModelError) as error:
                errors.append(_error(wanted.ch, 4400, str(error)))
        reply: dict[str, Any] = {"type": "subscribed", "id": op.id, "channels": [_told(one) for one in admitted]}
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


def _request(wanted: Wanted) -> Request:
    """The wish, with the defaults of its kind. Raises ``BadRequest`` for an option its kind does not have."""
    channel = Channel.parse(wanted.ch)
    takes = {"snapshot", "since"} if channel.durable else set()
    takes |= {"backfill"} if channel.kind == "trade" else set()
    takes |= {"levels"} if channel.kind in DEFAULT_LEVELS else set()
    for name in ("snapshot", "since", "backfill", "levels"):
        if getattr(wanted, name) is not None and name not in takes:
            options = ", ".join(sorted(takes)) or "none"
            raise BadRequest(f"{channel.kind} channels have no option {name}; theirs: {options}", field=name)
    if not channel.durable:
        return Request(channel, levels=wanted.levels or DEFAULT_LEVELS.get(channel.kind, 0))
    snapshot = DEFAULT_SNAPSHOT[channel.kind] if wanted.snapshot is None else wanted.snapshot
    since, skip = wanted.since, wanted.backfill == "skip"
    if isinstance(since, SinceTime):
        return Request(channel, MAX_SNAPSHOT, start=since.ts * 1_000_000, skip=skip)
    if isinstance(since, int):
        if not 0 <= since < 2**63:
            raise BadRequest("since must be a position: epoch:offset, or an offset", field="since")
        return Request(channel, snapshot, Since(None, since), skip=skip)
    return Request(channel, snapshot, None if since is None else parse_position(since), skip=skip)


def _told(admitted: Admitted) -> dict[str, object]:
    channel = admitted.request.channel
    if not channel.durable:
        levels = {"levels": admitted.request.levels} if admitted.request.levels else {}
        return {"ch": channel.name, "recovered": False, **levels}
    told: dict[str, object] = {"ch": channel.name, "pos": admitted.pos, "recovered": admitted.recovered}
    return told if admitted.replayed is None else {**told, "replayed": admitted.replayed}


def _error(channel: str, code: int, why: str) -> dict[str, object]:
    return {"ch": channel, "code": code, "msg": why}


def door(market: Market, hub: Hub, allowed_origins: Collection[str]) -> Door:
    """Who may come in: the path must be ours, a browser's page of our own or an allowed origin."""

    def answer(request: WSUpgradeRequest) -> Answer:
        path = request.path.decode("latin-1").partition("?")[0]
        if path != PATH:
            return refuse(404, f"no WebSocket at {path[:80]}; connect to {PATH}")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in allowed_origins:
            if origin.partition("://")[2] != request.headers.get("Host"):
                return refuse(403, f"origin {origin[:80]} is not allowed; add it to server.allowed_origins")
        session = Session(hub, lambda: market.now() // 1_000_000)
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        extra = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if SUBPROTOCOL in offered else None
        return Accepted(WSUpgradeResponse.create_101_response(extra), session)

    return answer
