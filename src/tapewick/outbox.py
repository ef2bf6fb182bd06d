"""One connection's writer: bounded in bytes, never waited for.

Data goes to the raw transport as prebuilt bytes; the transport coalesces what one turn of the
loop wrote. While the peer does not keep up (the transport says pause), provisional values wait
here, newest per channel only. Durable events are written up to the byte bound; beyond it a
channel is left behind and caught up from the store once the peer has drained, or the connection
is given up after ``slow_s``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog

from tapewick import metrics
from tapewick.errors import StoreError
from tapewick.framing import Frame

__all__ = ["Frame", "Limits", "Outbox", "Place", "Record"]

log = structlog.get_logger()

MOST_JOBS = 64

Record = tuple[bytes, bytes]
"""A framed durable event and the position a reader of its channel has then reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of push connections. Times in seconds."""

    queue_bytes: int = 1 << 20
    slow_s: float = 5.0
    flush_s: float = 0.025
    notice_s: float = 10.0
    heartbeat_s: float = 20.0
    pong_s: float = 60.0
    in_per_s: float = 5.0
    in_burst: int = 20
    frame_bytes: int = 65_536
    subscriptions: int = 1024


class Place(Protocol):
    """A channel as its reader's outbox sees it."""

    name: str

    def text_position(self, offset: int) -> str: ...
    def rejoin(self, outbox: Outbox, offset: int) -> Awaitable[None]: ...


class Direct(Protocol):
    """Who writes to an outbox's peer below its transport."""

    def set_apart(self, outbox: Outbox) -> None: ...


class Outbox:
    """Writes to one peer. ``give_up`` is called once, when it was too slow for too long; ``fail`` when a job failed,
    ``unavailable`` (none: ``fail``) when that was for the store. ``encode`` writes what is this connection's own."""

    def __init__(
        self,
        transport: asyncio.Transport,
        frame: Frame,
        limits: Limits,
        give_up: Callable[[], None],
        fail: Callable[[], None],
        *,
        unavailable: Callable[[], None] | None = None,
        encode: Callable[[Any], bytes] = msgspec.json.encode,
    ) -> None:
        self.frame, self.limits = frame, limits
        self.closed = False
        self.channels: dict[str, Place] = {}
        self.conflated: dict[Place, int] = {}
        self.lagging: dict[Place, int] = {}
        self.paused = False
        self._transport, self._give_up, self._fail, self._encode = transport, give_up, fail, encode
        self._unavailable = unavailable or fail
        self._write = transport.write
        self.descriptor = _descriptor(transport)
        self.crowds = 0  # it is in
        self.direct: Direct | None = None
        self._loop = asyncio.get_running_loop()
        self._latest: dict[Place, bytes] = {}
        self._latest_bytes = 0
        self._flowing: asyncio.Event | None = None  # while paused
        self._slow: asyncio.TimerHandle | None = None
        self._noticed = self._conflating = 0.0  # when the last notice was sent; when the first value after it went
        self._jobs: list[Callable[[], Awaitable[None]]] = []  # no deques: an empty one has 600 bytes
        self._turns: list[Callable[[], Awaitable[None]]] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Bytes accepted for this peer that the kernel has not taken."""
        return int(self._transport.get_write_buffer_size()) + self._latest_bytes

    @property
    def busy(self) -> bool:
        """Whether jobs run or wait."""
        return self._worker is not None and not self._worker.done()

    @property
    def keeps_up(self) -> bool:
        """Whether one who gives it the same bytes as others may write them below its transport."""
        alone = self.crowds == 1 and not self.paused and self.descriptor >= 0 and not self.closed
        return alone and not self._transport.get_write_buffer_size()

    def control(self, message: object) -> None:
        """Send one object of this connection's own; always accepted."""
        self.raw(self.frame(self._encode(message)))

    def raw(self, data: bytes) -> None:
        """Send framed bytes, whatever is queued."""
        if not self.closed:
            if self.direct is not None:
                self.direct.set_apart(self)
            self._write(data)

    def event(self, data: bytes) -> bool:
        """Send framed durable data; False, and nothing sent, if that would pass the byte bound."""
        if self.paused and self.queued + len(data) > self.limits.queue_bytes:
            return False
        self.raw(data)
        return True

    def record(self, place: Place, data: bytes, position: bytes) -> None:
        """Send framed durable data that brings the reader of ``place`` to ``position``, whatever is queued."""
        self.raw(data)

    def records(self, place: Place, data: bytes, parts: Sequence[Record]) -> bool:
        """Send ``parts``, which make up ``data``; False, and nothing sent, if that would pass the byte bound."""
        if self.paused and self.queued + len(data) > self.limits.queue_bytes:
            return False
        self.raw(data)
        return True

    def latest(self, place: Place, data: bytes) -> None:
        """Send a provisional value, or keep it as the channel's newest until the peer has drained."""
        if not self.paused:
            self.raw(data)
            return
        if (old := self._latest.pop(place, None)) is not None:
            self._latest_bytes -= len(old)
            if not self.conflated:
                self._conflating = self._loop.time()
            self.conflated[place] = self.conflated.get(place, 0) + 1
            metrics.conflated.inc()
        self._latest[place] = data
        self._latest_bytes += len(data)

    def left_behind(self, place: Place, offset: int, *, patient: bool = False) -> None:
        """``place`` sends nothing more; everything up to ``offset`` went out. Caught up when drained.

        Unless ``patient`` the connection is given up when that takes too long.
        """
        self.lagging[place] = offset
        if self._slow is None and not self.closed and not patient:
            self._slow = self._loop.call_later(self.limits.slow_s, self._too_slow)

    def forget(self, place: Place) -> None:
        """The channel was unsubscribed."""
        self._latest_bytes -= len(self._latest.pop(place, b""))
        self.lagging.pop(place, None)
        self.conflated.pop(place, None)

    async def drained(self) -> None:
        """Return once the peer keeps up."""
        if self._flowing is not None:
            await self._flowing.wait()

    def pause(self) -> None:
        """The transport's buffer passed its mark."""
        self.paused = True
        self._flowing = self._flowing or asyncio.Event()

    def _flow(self) -> None:
        if self._flowing is not None:
            self._flowing.set()
            self._flowing = None

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self.paused = False
        self._flow()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        latest, self._latest, self._latest_bytes = self._latest, {}, 0
        for data in latest.values():
            self.raw(data)
        lagging, self.lagging = self.lagging, {}
        if lagging:
            self.work(lambda: self._catch_up(lagging))
        self._notice()

    async def _catch_up(self, lagging: dict[Place, int]) -> None:
        for place, offset in lagging.items():
            await place.rejoin(self, offset)

    def _notice(self) -> None:
        """Tell how many updates were conflated, at most every ``notice_s``."""
        now = self._loop.time()
        if self.conflated and now - self._noticed >= self.limits.notice_s:
            self._noticed, window = now, round(1000 * (now - self._conflating))
            for place, dropped in self.conflated.items():
                told = {"type": "notice", "code": "conflated", "ch": place.name, "dropped": dropped}
                self.control({**told, "window_ms": window})
            self.conflated.clear()

    def _too_slow(self) -> None:
        metrics.slow_closes.inc()
        told = {place.name: place.text_position(offset) for place, offset in self.lagging.items()}
        positions = {name: position for name, position in told.items() if position}
        self.control({"type": "error", "code": "slow_consumer", "msg": "read faster, then resume", "pos": positions})
        self._give_up()

    def work(self, job: Callable[[], Awaitable[None]], *, asked: bool = False) -> bool:
        """Do ``job`` after the jobs before it; they may wait for the store and for the peer.

        False, and nothing is done, when the peer ``asked`` for it and ``MOST_JOBS`` wait already.
        """
        if self.closed:
            return True
        if asked and len(self._jobs) >= MOST_JOBS:
            return False
        self._jobs.append(job)
        self._start()
        return True

    def next_turn(self, job: Callable[[], Awaitable[None]]) -> None:
        """Do ``job`` once nothing else waits: what is long takes turns with others of its kind."""
        if not self.closed:
            self._turns.append(job)
            self._start()

    def _start(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = self._loop.create_task(self._run(), name="outbox")

    async def _run(self) -> None:
        while (waiting := self._jobs or self._turns) and not self.closed:
            try:
                await waiting.pop(0)()
            except StoreError as error:
                log.error("a client's history could not be read", cause=str(error))
                # The channel stays where it is, and only a resume leads on from there.
                self.control({"type": "error", "code": "unavailable", "msg": "the store does not answer; resume"})
                self._unavailable()
                break
            except Exception:
                log.exception("a push connection failed")
                self._fail()
                break
        self._worker = None  # what waits is to hold little memory

    def close(self) -> None:
        """The connection is gone: accept nothing more, stop its jobs."""
        self.closed, self.paused = True, False
        self._jobs.clear()
        self._turns.clear()
        self._flow()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        if self._worker is not None and self._worker is not asyncio.current_task():
            self._worker.cancel()


def _descriptor(transport: asyncio.Transport) -> int:
    """That of the plain socket ``transport`` writes to; -1 if it does more than that, or is none."""
    told = getattr(transport, "get_extra_info", None)
    if told is None or told("sslcontext") is not None or (socket := told("socket")) is None:
        return -1
    return int(socket.fileno())
