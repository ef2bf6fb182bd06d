"""The native WebSocket protocol at ``/v1/ws``: subscribe, snapshot, live, resume.

Requests are JSON objects; data frames are JSON texts or protobuf messages. They hold nothing of one client's own,
so one encoding serves every subscriber; what is a client's own travels in control frames. Names of frames and close
codes are those of ``docs/reference/websocket.md``, the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, WSUpgradeResponse
from picows import WSUpgradeResponseWithListener as Accepted
from ulid import ULID

from tapewick.channel import Channel
from tapewick.deflate import accepted
from tapewick.errors import ApiError, BadRequest, Forbidden, ModelError, NotFound, TooManyRequests, Unauthorized
from tapewick.framing import Frame, ws_binary, ws_binary_deflated, ws_text, ws_text_deflated
from tapewick.gateways import _wishes
from tapewick.gateways._auth import Guard, carried, offered
from tapewick.gateways._bridge import Answer, Door, foreign, refuse
from tapewick.gateways._quota import Slot
from tapewick.gateways._stream_inbound import Inbound, Wrong
from tapewick.gateways._stream_requests import Auth, Id, List, Malformed, Ping, Subscribe, Unsubscribe, parse
from tapewick.hub import Admitted, Hub
from tapewick.market import Market
from tapewick.outbox import Outbox
from tapewick.proto_frames import control
from tapewick.readers import Request

__all__ = ["PATH", "SUBPROTOCOLS", "Session", "Terms", "door"]

PATH = "/v1/ws"
SUBPROTOCOLS = {"tapewick.v1.json": False, "tapewick.v1.proto": True}  # and whether frames are protobuf
LINGER = 2.0  # seconds a closed peer has to answer before it is cut
AUTH_SECONDS = 5.0  # a client that must show a token, and did not in the handshake, has to by then


class Terms(NamedTuple):
    """What a handshake agreed on: protobuf frames, compression; and the token it carried."""

    proto: bool = False
    deflate: bool = False
    token: str | None = None

    @property
    def framing(self) -> Frame:
        if self.proto:
            return ws_binary_deflated if self.deflate else ws_binary
        return ws_text_deflated if self.deflate else ws_text


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
    """One client. Nothing is told to it before ``guard`` admits its token."""

    def __init__(self, hub: Hub, guard: Guard, terms: Terms, now_ms: Callable[[], int]) -> None:
        self._hub, self._guard, self._terms, self._now_ms, self._limits = hub, guard, terms, now_ms, hub.limits
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._outbox: Outbox | None = None
        self._closing = self._admitted = False
        self._session = str(ULID())
        self._seen = self._loop.time()
        self._bucket = Bucket(self._limits.in_per_s, self._limits.in_burst, self._seen)
        self._inbound = Inbound(self._limits.frame_bytes, inflates=terms.deflate)
        self._seat: Slot | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None

    # -- connection --------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._outbox = Outbox(
            transport.underlying_transport,
            self._terms.framing,
            self._limits,
            lambda: self.close(4008, "slow_consumer"),
            lambda: self.close(1011, "internal error"),
            unavailable=lambda: self.close(1013, "the store does not answer"),
            encode=control if self._terms.proto else msgspec.json.encode,
        )
        self._hub.enter(self._outbox)
        self._beat = self._loop.call_later(self._limits.heartbeat_s, self._heartbeat)
        if self._terms.token is not None or self._guard.open:
            self._admit(self._terms.token)
        else:
            late = f"no token within {AUTH_SECONDS:g} s"
            self._late = self._loop.call_later(AUTH_SECONDS, lambda: self.close(4401, late))

    def _admit(self, token: str | None, id: Id = None) -> None:
        """Welcome the bearer of a good token, also as the answer to its request; close on any other."""
        assert self._outbox is not None
        try:
            grant = self._guard.check(token)
            self._seat = self._seat or self._guard.seat(grant)
        except (Unauthorized, Forbidden) as error:
            self.close(4401, str(error))
            return
        except TooManyRequests as error:
            self.close(4029, str(error))
            return
        self._admitted = True
        if self._late is not None:
            self._late.cancel()
        limits = self._limits
        self._outbox.control(
            {
                "type": "welcome",
                **({} if id is None else {"id": id}),
                "session": self._session,
                "server_ts": self._now_ms(),
                "heartbeat_s": limits.heartbeat_s,
                "limits": {"subs": limits.subscriptions, "in_per_s": limits.in_per_s, "frame": limits.frame_bytes},
            }
        )

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for timer in (self._beat, self._late):
            if timer is not None:
                timer.cancel()
        if self._seat is not None:
            self._seat.end()
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
            if self._outbox is not None:
                self._hub.drop(self._outbox)  # nothing may follow a close frame
            transport.disconnect()
        elif self._closing or kind == WSMsgType.PONG or self._outbox is None:
            return
        elif not self._bucket.take(self._seen):
            self.close(4029, f"over {self._limits.in_per_s:g} messages per second")
        elif kind == WSMsgType.PING:
            payload = frame.get_payload_as_bytes()
            self._outbox.raw(b"\x8a%c" % len(payload) + payload)
        else:
            self._take(self._outbox, frame)

    def _take(self, outbox: Outbox, frame: WSFrame) -> None:
        try:
            message = self._inbound.take(frame)
            if message is not None:
                self._ask(outbox, message)
        except Wrong as error:
            self.close(error.code, str(error))
        except Malformed as error:
            if self._admitted:
                outbox.control({"type": "error", "id": error.id, "code": "bad_request", "msg": str(error)})
            else:
                self.close(4401, "the first message must be auth")

    def _ask(self, outbox: Outbox, message: bytes) -> None:
        """Do what a message asks, after what was asked before. Raises ``Malformed``."""
        op = parse(message)
        if isinstance(op, Auth):
            self._admit(op.token, op.id)
        elif not self._admitted:
            self.close(4401, "the first message must be auth")
        elif isinstance(op, Ping):
            outbox.control({"type": "pong", "id": op.id, "server_ts": self._now_ms()})
        elif not outbox.work(lambda: self._do(outbox, op), asked=True):
            self.close(4029, "too many requests wait")

    # -- operations --------------------------------------------------------------------------

    async def _do(self, outbox: Outbox, op: Subscribe | Unsubscribe | List) -> None:
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
                one = await self._hub.admit(self._request(outbox, wanted, admitted))
            except _TooMany as error:
                errors.append(_error(wanted.ch, 4413, str(error)))
            except NotFound as error:
                errors.append(_error(wanted.ch, 4404, str(error)))
            except (ApiError, ModelError) as error:
                errors.append(_error(wanted.ch, 4400, str(error)))
            else:
                if wanted.strict and one.gap is not None:
                    self.close(4009, f"{one.request.channel.name[:80]}: {one.gap['reason']}")
                    return
                admitted.append(one)
        reply: dict[str, Any] = {"type": "subscribed", "id": op.id, "channels": [_wishes.told(one) for one in admitted]}
        outbox.control({**reply, "errors": errors} if errors else reply)
        if len(op.channels) == 1 and not outbox.channels and [error["code"] for error in errors] == [4404]:
            self.close(4404, "unknown channel")
        for one in admitted:
            if not outbox.closed:
                await self._hub.follow(outbox, one)

    def _request(self, outbox: Outbox, wanted: _wishes.Wanted, admitted: Collection[Admitted]) -> Request:
        """The wish, if there is room for it. Raises ``ApiError``, ``ModelError``."""
        request = _wishes.request(wanted, proto=self._terms.proto)
        names = {*outbox.channels, *(one.request.channel.name for one in admitted), request.channel.name}
        if len(names) > self._limits.subscriptions:
            raise _TooMany(f"over {self._limits.subscriptions} subscriptions")
        return request


class _TooMany(BadRequest):
    """A channel more than a connection may follow."""


def _canonical(name: str) -> str:
    try:
        return Channel.parse(name).name
    except (ApiError, ModelError):
        return name  # never subscribed to: nothing to stop


def _error(channel: str, code: int, why: str) -> dict[str, object]:
    return {"ch": channel, "code": code, "msg": why}


def door(market: Market, hub: Hub, allowed_origins: Collection[str], guard: Guard, *, deflates: bool = False) -> Door:
    """Who may come in: the path must be ours, a browser's page of our own or an allowed origin.

    A wrong token in a header is refused here; one that a browser's script sent is told by a close code, for a
    script sees nothing else. ``deflates``: accept offers of compression.
    """

    def answer(request: WSUpgradeRequest) -> Answer:
        path = request.path.decode("latin-1").partition("?")[0]
        if path != PATH:
            return refuse(404, f"no WebSocket at {path[:80]}; connect to {PATH}")
        origin = request.headers.get("Origin")
        if foreign(origin, request.headers.get("Host"), allowed_origins):
            return refuse(403, f"origin {str(origin)[:80]} is not allowed; add it to server.allowed_origins")
        token = carried(request.headers.get)
        if token is not None and not guard.admits(token):
            return refuse(401, "the token is not known here", {"WWW-Authenticate": "Bearer"})
        names = [name.strip() for name in _joined(request, "Sec-WebSocket-Protocol").split(",")]
        chosen = next((name for name in names if name in SUBPROTOCOLS), None)
        extension = accepted(_joined(request, "Sec-WebSocket-Extensions")) if deflates else None
        terms = Terms(bool(chosen and SUBPROTOCOLS[chosen]), extension is not None, token or offered(names))
        extra = {"Sec-WebSocket-Protocol": chosen, "Sec-WebSocket-Extensions": extension}
        session = Session(hub, guard, terms, lambda: market.now() // 1_000_000)
        told = {name: value for name, value in extra.items() if value is not None}
        return Accepted(WSUpgradeResponse.create_101_response(told or None), session)

    return answer


def _joined(request: WSUpgradeRequest, name: str) -> str:
    """A header that may be given in several lines."""
    return ",".join(request.headers.getall(name, []))
