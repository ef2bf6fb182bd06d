"""One ``Subscribe`` call: requests in, frames out, bounded in bytes, ended by a status that says why.

The hub never waits for a reader. Frames wait here until HTTP/2 flow control lets them go; what the
client has been given is known per channel, so a reader that is cut off is told where to resume.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import grpc
import msgspec

from tapewick import wire
from tapewick.channel import Channel
from tapewick.errors import ApiError, BadRequest, ModelError, NotFound
from tapewick.gateways import _wishes
from tapewick.hub import Admitted, Hub, Request
from tapewick.market import Market
from tapewick.outbox import Limits, Outbox, Place
from tapewick.proto_frames import control
from tapewick.v1 import service_pb2 as pb

__all__ = ["End", "Sink", "Stream"]

HIGH, LOW = 65_536, 16_384  # waiting bytes from which on a reader does not keep up, and does again
MOST_CHANNELS = 100  # in one request
MOST_ID = 64
BACKFILLS = {pb.BACKFILL_SKIP: "skip"}  # unknown numbers are left for the check of what may be wished
POSITIONS = "tapewick-pos-bin"
MOST_TRAILER = 5000  # bytes of positions: clients refuse metadata above 8 KiB, and these travel as base64


_LEFT: set[asyncio.Task[None]] = set()  # writers of calls that are over; the loop itself does not keep tasks


class End(NamedTuple):
    """How a call ends."""

    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, str | bytes], ...] = ()


class Sink:
    """The frames of one call that wait to be written, and where the reader stands. Once ``end`` is called
    nothing more is taken, and ``run`` returns: at once, or after what waits has been written."""

    def __init__(self) -> None:
        self.size = 0
        self.positions: dict[str, str] = {}
        self.ended: End | None = None
        self._waiting: deque[tuple[bytes, str, bytes]] = deque()
        self._ready = asyncio.Event()
        self._over = asyncio.Event()
        self._handing_over = False
        self.outbox: Outbox | None = None

    def put(self, data: bytes, channel: str = "", position: bytes = b"") -> None:
        if not data or self.ended is not None:
            return
        self._waiting.append((data, channel, position))
        self.size += len(data)
        self._ready.set()
        if self.size > HIGH and self.outbox is not None:
            self.outbox.pause()

    def end(self, end: End, *, flush: bool = False) -> None:
        """The first call counts."""
        if self.ended is None:
            self.ended = end
            if not flush:
                self._waiting.clear()
            self._ready.set()
        if not flush:
            self._over.set()

    async def run(self, context: Any) -> End:
        """Write until the end; how it is to end."""
        writing = asyncio.create_task(self._write(context), name="grpc writer")
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({writing, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            if writing.done():
                _retrieve(writing)
            elif self._handing_over:  # it cannot be taken back: it ends when the client takes it, or with the call
                _LEFT.add(writing)
                writing.add_done_callback(_retrieve)
            else:
                writing.cancel()
        if self.ended is None:  # the client has gone in the middle of a write
            return End(grpc.StatusCode.CANCELLED, "the client has gone")
        return self.ended

    async def _write(self, context: Any) -> None:
        while True:
            while not self._waiting:
                if self.ended is not None:
                    return
                self._ready.clear()
                await self._ready.wait()
            data, channel, position = self._waiting.popleft()
            if position:
                self.positions[channel] = position.decode()
            self._handing_over = True
            await context.write(data)
            self._handing_over = False
            self.size -= len(data)
            if self.size < LOW and self.outbox is not None and self.outbox.paused:
                self.outbox.resume()

    # -- as a transport of an outbox -----------------------------------------------------------

    write = put

    def get_write_buffer_size(self) -> int:
        return self.size


def _retrieve(task: asyncio.Task[None]) -> None:
    """The call is over: whether its last write succeeded is nobody's business any more."""
    _LEFT.discard(task)
    if not task.cancelled():
        task.exception()


def _plain(text: bytes, position: bytes = b"", /) -> bytes:
    """gRPC frames messages itself."""
    return text


class GrpcOutbox(Outbox):
    """An outbox whose frames are messages of one call."""

    def __init__(self, sink: Sink, limits: Limits) -> None:
        self._sink = sink
        ends = self._cut_off, self._broken
        super().__init__(sink, _plain, limits, *ends, unavailable=self._storeless)  # type: ignore[arg-type]

    def control(self, message: object) -> None:
        assert isinstance(message, Mapping)
        self.raw(control(message))

    def record(self, place: Place, data: bytes, position: bytes) -> None:
        if not self.closed:
            self._sink.put(data, place.name, position)

    def records(self, place: Place, data: bytes, parts: Any) -> bool:
        if self.paused and self.queued + len(data) > self.limits.queue_bytes:
            return False
        for part, position in parts:
            self.record(place, part, position)
        return True

    def _cut_off(self) -> None:
        positions = pb.Positions()
        for name, pos in self._sink.positions.items():
            if positions.ByteSize() + len(name) + len(pos) < MOST_TRAILER:
                positions.channels.add(channel=name, pos=pos)
        told = positions.SerializeToString()
        why = "slow_consumer: read faster, then resume"
        self._sink.end(End(grpc.StatusCode.RESOURCE_EXHAUSTED, why, ((POSITIONS, told),)))

    def _broken(self) -> None:
        self._sink.end(End(grpc.StatusCode.INTERNAL, "an unexpected error; the server's log has the details"))

    def _storeless(self) -> None:
        self._sink.end(End(grpc.StatusCode.UNAVAILABLE, "the store does not answer; resume"))


class Stream:
    """One client. ``serve`` returns how its call is to end."""

    def __init__(self, market: Market, hub: Hub) -> None:
        self._market, self._hub, self._limits = market, hub, hub.limits
        self.sink = Sink()
        self._outbox = self.sink.outbox = GrpcOutbox(self.sink, hub.limits)
        self._loop = asyncio.get_running_loop()
        self._budget, self._at = float(hub.limits.in_burst), self._loop.time()

    async def serve(self, context: Any) -> End:
        self._hub.enter(self._outbox)
        reading = asyncio.create_task(self._read(context), name="grpc reader")
        try:
            self.sink.put(wire.frame("welcome", ts=self._market.now()))
            return await self.sink.run(context)
        finally:
            reading.cancel()
            self._hub.drop(self._outbox)

    def going_away(self) -> None:
        """The server stops: what waits is still delivered."""
        self._hub.drop(self._outbox)
        self.sink.end(End(grpc.StatusCode.UNAVAILABLE, "the server stops; reconnect and resume"), flush=True)

    # -- requests ------------------------------------------------------------------------------

    async def _read(self, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            if not self._may_ask():
                limit = f"over {self._limits.in_per_s:g} requests per second"
                self.sink.end(End(grpc.StatusCode.RESOURCE_EXHAUSTED, f"rate_limit: {limit}"))
                return
            op = request.WhichOneof("op")
            if op == "ping":
                self._answer("pong", request)
            elif op is None or len(request.id) > MOST_ID:
                self._refuse(request, f"set subscribe, unsubscribe, ping or list; an id of up to {MOST_ID} characters")
            elif not self._outbox.work(partial(self._do, request), asked=True):
                self.sink.end(End(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limit: too many requests wait"))
                return
        self._outbox.work(self._end_if_idle)

    async def _end_if_idle(self) -> None:
        """The client will ask for nothing more."""
        if not self._outbox.channels:
            self.sink.end(End(grpc.StatusCode.OK, ""), flush=True)

    def _may_ask(self) -> bool:
        now = self._loop.time()
        self._budget = min(self._limits.in_burst, self._budget + (now - self._at) * self._limits.in_per_s)
        self._at = now
        self._budget -= 1
        return self._budget >= 0

    def _answer(self, type: str, request: pb.SubscribeRequest, **fields: Any) -> None:
        self._outbox.control({"type": type, "id": request.id, "ts": self._market.now(), **fields})

    def _refuse(self, request: pb.SubscribeRequest, why: str) -> None:
        self._answer("error", request, code="bad_request", msg=why)

    async def _do(self, request: pb.SubscribeRequest) -> None:
        op = request.WhichOneof("op")
        if op == "subscribe":
            await self._subscribe(request)
        elif op == "unsubscribe":
            gone = [self._hub.unfollow(self._outbox, _canonical(name)) for name in request.unsubscribe.channels]
            self._answer("unsubscribed", request, count=sum(gone))
        else:
            self._answer("list", request, channels=[{"ch": name} for name in self._outbox.channels])

    async def _subscribe(self, request: pb.SubscribeRequest) -> None:
        wishes = request.subscribe.channels
        if not 0 < len(wishes) <= MOST_CHANNELS:
            self._refuse(request, f"subscribe to 1 to {MOST_CHANNELS} channels at a time")
            return
        admitted: list[Admitted] = []
        rows: list[dict[str, Any]] = []
        for wish in wishes:
            try:
                one = await self._admit(wish, admitted)
            except ApiError as error:
                code = 4404 if isinstance(error, NotFound) else 4413 if error.field == "channels" else 4400
                rows.append({"ch": wish.channel[:128], "code": code, "msg": str(error)})
            except ModelError as error:
                rows.append({"ch": wish.channel[:128], "code": 4400, "msg": str(error)})
            else:
                if wish.strict and one.gap is not None:
                    self.sink.end(End(grpc.StatusCode.OUT_OF_RANGE, _lost(one)), flush=True)
                    return
                admitted.append(one)
                rows.append(_wishes.told(one))
        self._answer("subscribed", request, channels=rows)
        for one in admitted:
            if not self._outbox.closed:
                await self._hub.follow(self._outbox, one)

    async def _admit(self, wish: pb.Subscription, admitted: list[Admitted]) -> Admitted:
        wanted = _request(wish)
        names = {*self._outbox.channels, *(one.request.channel.name for one in admitted), wanted.channel.name}
        if len(names) > self._limits.subscriptions:
            raise BadRequest(f"over {self._limits.subscriptions} subscriptions", field="channels")
        return await self._hub.admit(wanted)


def _canonical(name: str) -> str:
    try:
        return Channel.parse(name).name
    except (ApiError, ModelError):
        return name  # never subscribed to: nothing to stop


def _lost(admitted: Admitted) -> str:
    reason = (admitted.gap or {}).get("reason")
    return f"{admitted.request.channel.name} cannot be resumed ({reason}); its position is {admitted.pos}"


def _request(wish: pb.Subscription) -> Request:
    """The wish with the defaults of its kind. Raises ``BadRequest``."""
    told: dict[str, Any] = {"ch": wish.channel}
    if wish.HasField("snapshot"):
        told["snapshot"] = wish.snapshot
    if wish.WhichOneof("start") == "since":
        told["since"] = wish.since
    if wish.backfill:
        told["backfill"] = BACKFILLS.get(wish.backfill, wish.backfill)
    if wish.levels:
        told["levels"] = wish.levels
    try:
        request = _wishes.request(msgspec.convert(told, _wishes.Wanted))
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None
    kind = request.channel.kind
    if wish.WhichOneof("start") == "since_ts":
        if wish.since_ts < 0 or not request.channel.durable:
            raise BadRequest("since_ts is a time in ns, for trade and candle channels", field="since_ts")
        request = request._replace(start=wish.since_ts, snapshot=_wishes.MAX_SNAPSHOT)
    if wish.include_open and kind != "candle":
        raise BadRequest(f"{kind} channels have no option include_open", field="include_open")
    return request._replace(include_open=wish.include_open or kind != "candle", proto=True)
