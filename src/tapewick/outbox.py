"""One connection's writer: bounded in bytes, never waited for.

Data goes to the raw transport as prebuilt bytes; the transport coalesces what one turn of the
loop wrote. While the peer does not keep up (the transport says pause), provisional values wait
here, newest per channel only. Durable events are written up to the byte bound; beyond it a
channel is left behind and caught up from the store once the peer has drained, or the connection
is given up after ``slow_s``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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


class Outbox:
    """Writes to one peer. ``give_up`` is called once, when it was too slow for too long."""

    def __init__(
        self,
        transport: asyncio.Transport,
        frame: Frame,
        limits: Limits,
        give_up: Callable[[], None],
        fail: Callable[[], None],
    ) -> None:
        self.frame, self.limits = frame, limits
        self.closed = False
        self.channels: dict[str, Place] = {}
        self.conflated: dict[Place, int] = {}
        self.lagging: dict[Place, int] = {}
        self.paused = False
        self._transport, self._give_up, self._fail = transport, give_up, fail
        self._write = transport.write
        self._loop = asyncio.get_running_loop()
        self._latest: dict[Place, bytes] = {}
        self._latest_bytes = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._slow: asyncio.TimerHandle | None = None
        self._noticed = 0.0
        self._jobs: deque[Callable[[], Awaitable[None]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Bytes accepted for this peer that the kernel has not taken."""
        return int(self._transport.get_write_buffer_size()) + self._latest_bytes

    @property
    def busy(self) -> bool:
        """Whether jobs run or wait."""
        return self._worker is not None and not self._worker.done()

    def control(self, message: object) -> None:
        """Send one object of this connection's own; always accepted."""
        self.raw(self.frame(msgspec.json.encode(message)))

    def raw(self, data: bytes) -> None:
        """Send framed bytes, whatever is queued."""
        if not self.closed:
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
        if not self.closed:
            self._write(data)
        return True

    def latest(self, place: Place, data: bytes) -> None:
        """Send a provisional value, or keep it as the channel's newest until the peer has drained."""
        if not self.paused:
            self.raw(data)
            return
        if (old := self._latest.pop(place, None)) is not None:
            self._latest_bytes -= len(old)
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
        await self._flowing.wait()

    def pause(self) -> None:
        """The transport's buffer passed its mark."""
        self.paused = True
        self._flowing.clear()

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self.paused = False
        self._flowing.set()
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
            self._noticed = now
            for place, dropped in self.conflated.items():
                self.control({"type": "notice", "code": "conflated", "ch": place.name, "dropped": dropped})
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
        if self._worker is None or self._worker.done():
            self._worker = self._loop.create_task(self._run(), name="outbox")
        return True

    async def _run(self) -> None:
        while self._jobs and not self.closed:
            try:
                await self._jobs.popleft()()
            except StoreError as error:
                log.error("a client's history could not be read", cause=str(error))
                self.control({"type": "error", "code": "unavailable", "msg": "the store does not answer; try again"})
            except Exception:
                log.exception("a push connection failed")
                self._fail()
                return

    def close(self) -> None:
        """The connection is gone: accept nothing more, stop its jobs."""
        self.closed, self.paused = True, False
        self._jobs.clear()
        self._flowing.set()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        if self._worker is not None and self._worker is not asyncio.current_task():
            self._worker.cancel()
