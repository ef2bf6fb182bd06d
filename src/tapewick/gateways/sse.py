"""Server-sent events at ``/v1/sse``: the frames of ``/v1/ws`` for a plain EventSource, resumed by ``Last-Event-ID``.

ASGI decides on the request and sends the response's head; from then on the hub writes to the transport itself,
under the bounds every push connection has. ``docs/reference/sse.md`` is the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import asgi
from litestar.exceptions import MethodNotAllowedException, PermissionDeniedException
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from tapewick import metrics
from tapewick.channel import Channel, parse_position
from tapewick.errors import BadRequest
from tapewick.framing import Frame, chunk, sse, sse_body, sse_body_chunk, sse_chunk
from tapewick.gateways import _wishes
from tapewick.gateways._auth import Guard, carried
from tapewick.gateways._bridge import foreign
from tapewick.gateways._connection import CONNECTION, HttpProtocol
from tapewick.gateways._quota import Quota
from tapewick.gateways._sse_token import Vector
from tapewick.hub import Admitted, Hub, Request
from tapewick.market import Market
from tapewick.outbox import Outbox, Place, Record

__all__ = ["PATH", "handler"]

PATH = "/v1/sse"
MOST_EVENT_CHANNELS = 32
MOST_CHANNELS = 100
BEAT = 15.0  # seconds between comments that show the connection lives
LINGER = 2.0  # seconds a peer has to take what is queued when the stream has ended
RETRY = b"retry: 2000\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
OPTIONS = ("backfill", "levels", "max_rate", "mode", "snapshot", "times")
TAKES = ("channels", "since", "last_event_id", "since_ts", *OPTIONS)


class VectorOutbox(Outbox):
    """An outbox whose reader follows several channels: before each event goes the id that is its own."""

    def __init__(self, vector: Vector, pack: Callable[[bytes], bytes], *rest: object, **more: Any) -> None:
        super().__init__(*rest, **more)  # type: ignore[arg-type]
        self._vector, self._pack = vector, pack
        self.descriptor = -1  # no two readers get the same bytes

    def record(self, place: Place, data: bytes, position: bytes) -> None:
        self.raw(self._marked(place, data, position))

    def records(self, place: Place, data: bytes, parts: Sequence[Record]) -> bool:
        marked = len(parts) * (len(self._vector.token()) + 16)
        if self.paused and self.queued + len(data) + marked > self.limits.queue_bytes:
            return False
        for part, position in parts:
            self.raw(self._marked(place, part, position))
        return True

    def _marked(self, place: Place, data: bytes, position: bytes) -> bytes:
        if not position:
            return data
        self._vector.move(place.name, position)
        return self._pack(b"id: %b\n" % self._vector.token()) + data


class Session:
    """One client: its outbox, its heartbeat, and how its stream ends."""

    def __init__(self, hub: Hub, connection: HttpProtocol, vector: Vector, now_ms: Callable[[], int]) -> None:
        self._hub, self._connection, self._vector, self._now_ms = hub, connection, vector, now_ms
        self._loop = asyncio.get_running_loop()
        self._plain = connection.unchunked()
        self._pack: Callable[[bytes], bytes] = bytes if self._plain else chunk
        self._outbox = self._make_outbox()
        self._stalled = (0, 0.0)  # queued bytes that have not become fewer, and since when
        self.ended = asyncio.Event()

    def _make_outbox(self) -> Outbox:
        one: Frame = sse if self._plain else sse_chunk
        many: Frame = sse_body if self._plain else sse_body_chunk
        rest = self._hub.limits, self._give_up, self._cut
        if self._vector.single:
            return Outbox(self._connection.transport, one, *rest, unavailable=self._give_up)
        vector = self._vector, self._pack
        return VectorOutbox(*vector, self._connection.transport, many, *rest, unavailable=self._give_up)

    def start(self, admitted: Collection[Admitted]) -> None:
        """Say what will be sent and have the hub send it."""
        self._connection.stream = self
        self._hub.enter(self._outbox)
        self._outbox.raw(self._pack(RETRY))
        for one in admitted:
            if one.cursor is not None:  # who waits for a snapshot has no position before it
                epoch = one.pos.rpartition(":")[0]
                self._vector.move(one.request.channel.name, f"{epoch}:{one.cursor}".encode())
        told = {"type": "subscribed", "channels": [_wishes.told(one) for one in admitted]}
        frame = sse(msgspec.json.encode(told), self._vector.token())
        self._outbox.raw(self._pack(frame))
        for one in admitted:
            self._outbox.work(lambda one=one: self._hub.follow(self._outbox, one))  # type: ignore[misc]
        self._beat = self._loop.call_later(BEAT, self._heartbeat)
        if self._connection.stopping:
            self.going_away()

    def _heartbeat(self) -> None:
        queued, now = self._outbox.queued, self._loop.time()
        if not self._outbox.paused:
            self._outbox.raw(self._pack(b": hb %d\n\n" % self._now_ms()))
        if not self._outbox.paused or queued < self._stalled[0] or not self._stalled[0]:
            self._stalled = queued, now
        elif now - self._stalled[1] > self._hub.limits.pong_s:
            self._give_up()
            return
        self._beat = self._loop.call_later(BEAT, self._heartbeat)

    # -- what the connection tells -----------------------------------------------------------

    def pause(self) -> None:
        self._outbox.pause()

    def resume(self) -> None:
        self._outbox.resume()

    def lost(self) -> None:
        self._end()

    def going_away(self) -> None:
        self._outbox.control({"type": "notice", "code": "going_away", "msg": "the server stops; reconnect and resume"})
        self._end()

    # -- the end -----------------------------------------------------------------------------

    def _give_up(self) -> None:
        """End the stream, for it to be resumed; cut a peer that takes nothing of that either."""
        self._end()
        self._loop.call_later(LINGER, self._connection.transport.abort)

    def _cut(self) -> None:
        self._end()
        self._connection.transport.abort()

    def _end(self) -> None:
        if not self.ended.is_set():
            self._connection.stream = None
            self._beat.cancel()
            self._hub.drop(self._outbox)
            self.ended.set()


def handler(market: Market, hub: Hub, allowed_origins: Collection[str], quota: Quota, guard: Guard) -> ASGIRouteHandler:
    """The route; ``quota``: how many streams an address may have, ``guard``: how many a key."""

    @asgi(PATH, copy_scope=False)
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":  # type: ignore[typeddict-item]
            raise MethodNotAllowedException(headers={"allow": "GET"})
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if foreign(headers.get("origin"), headers.get("host"), allowed_origins):
            raise PermissionDeniedException("this origin is not allowed; add it to server.allowed_origins")
        requests, vector = read(scope["query_string"], headers.get("last-event-id"))
        seat = guard.seat(guard.check(carried(lambda name: headers.get(name.lower()))))
        with quota.slot(str((scope["client"] or ("",))[0])), seat or nullcontext():
            admitted = [await hub.admit(request) for request in requests]
            connection: HttpProtocol = scope["state"][CONNECTION]
            session = Session(hub, connection, vector, lambda: market.now() // 1_000_000)
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            metrics.http_requests.labels("200").inc()
            if not connection.transport.is_closing():
                session.start(admitted)
                await session.ended.wait()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            connection.transport.close()

    return stream


def read(query: bytes, last_event_id: str | None) -> tuple[list[Request], Vector]:
    """The channels a request wants, resumed where its token says. Raises ``BadRequest``, ``ModelError``."""
    values = _values(query)
    names = [name for name in values.pop("channels", "").split(",") if name]
    if not names:
        raise BadRequest("channels is required, as channels=trade@ID,candle@ID@1m", field="channels")
    if len(names) > MOST_CHANNELS:
        raise BadRequest(f"over {MOST_CHANNELS} channels; use several connections", field="channels")
    since, alias = values.pop("since", ""), values.pop("last_event_id", "")
    wishes = {request.channel.name: request for request in _requests(names, values)}
    events = sum(request.channel.durable or request.channel.kind == "health" for request in wishes.values())
    if events > MOST_EVENT_CHANNELS:
        raise BadRequest(f"over {MOST_EVENT_CHANNELS} channels with events; use several connections", field="channels")
    vector = Vector([name for name, request in wishes.items() if request.channel.durable])
    field, token = next(
        ((n, t) for n, t in (("Last-Event-ID", last_event_id), ("since", since), ("last_event_id", alias)) if t),
        ("", ""),
    )
    if token:
        for name, position in vector.read(token, field).items():
            wishes[name] = wishes[name]._replace(since=parse_position(position, name=field))
    return list(wishes.values()), vector


def _values(query: bytes) -> dict[str, str]:
    """The request's parameters, each at most once."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise BadRequest("the query is not percent-encoded UTF-8, or over 20 parameters", field="channels") from None
    values: dict[str, str] = {}
    for name, text in pairs:
        if name not in TAKES:
            raise BadRequest(f"unknown parameter {name[:40]!r}; this route takes: {', '.join(TAKES)}", field=name[:40])
        if name in values:
            raise BadRequest(f"{name} is given twice; give it once", field=name)
        values[name] = text
    return values


def _requests(names: Collection[str], values: Mapping[str, str]) -> list[Request]:
    """A wish for each channel, with those of the options that its kind has. ``since_ts``: a time in ms from which on
    the stored records are wanted, where a token does not tell more."""
    requests: list[Request] = []
    used: set[str] = set()
    for name in names:
        channel = Channel.parse(name)
        if channel.kind == "book":
            raise BadRequest("book is not offered here: a cut would break its deltas; use book_top", field="channels")
        takes = _wishes.options(channel)
        own: dict[str, Any] = {option: value for option, value in values.items() if option in takes}
        used |= own.keys()
        if "since_ts" in values and channel.durable:
            own["since"] = {"ts": values["since_ts"]}
            used.add("since_ts")
        try:
            requests.append(_wishes.request(msgspec.convert({"ch": name, **own}, _wishes.Wanted, strict=False)))
        except msgspec.ValidationError as error:
            field = str(error).rpartition("$.")[2].strip("`").replace("since.ts", "since_ts")
            raise BadRequest(f"{name[:80]}: {error}", field=field) from None
    if unused := values.keys() - used:
        raise BadRequest(f"none of these channels has an option {min(unused)}; leave it out", field=min(unused))
    return requests
