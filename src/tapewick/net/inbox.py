"""Where socket readers leave frames and one consumer takes them: bounded in bytes, never waiting.

The unit is a wake-up: the frames one loop turn read from one socket. A lone frame is handed
over at once; when the consumer lags, wake-ups of one connection are joined up to ``max_frames``. So that they
bring more trades of each instrument, a consumer rests between them once it makes many batches (``Thrift``).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from tapewick.model import I64

__all__ = ["Inbox", "Thrift", "Wakeup"]

C = TypeVar("C")

FRAME_OVERHEAD = 48  # a bytes object and its slot in a list
LEAST = 0.001  # seconds: timers are no finer
FREE = 4  # batches of a wake-up that resting would not make fewer by much


class Wakeup(NamedTuple):
    """Raw ``frames`` of one feed and when they came: one UTC ns for all, or one per frame.

    ``link`` numbers the connection they came over, rising within the feed.
    """

    feed: Any
    frames: list[bytes]
    recv: int | I64
    size: int
    link: int = 0


class Inbox(Generic[C]):
    """A queue of wake-ups and control items ``C`` for exactly one consumer.

    At ``max_bytes`` whole wake-ups are dropped and counted, newest first: nothing inside one
    is thinned out, so the loss is a hole in the ids. Control items are small and never dropped.
    """

    def __init__(self, *, max_bytes: int = 32 << 20, max_frames: int = 4096) -> None:
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._items: deque[Wakeup | C] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self.size = 0
        self.dropped_wakeups = 0
        self.dropped_frames = 0

    def offer(self, wakeup: Wakeup) -> bool:
        """Queue a wake-up; False, and it is counted as dropped, where the bound is reached."""
        if self.size and self.size + wakeup.size > self._max_bytes:
            self.dropped_wakeups += 1
            self.dropped_frames += len(wakeup.frames)
            return False
        self.size += wakeup.size
        self._items.append(wakeup)
        self._wake()
        return True

    def put(self, item: C) -> None:
        """Queue a control item behind everything that came before it."""
        self._items.append(item)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Make ``get`` raise ``error`` once the queue is empty: a producer has died."""
        self._error = error
        self._wake()

    async def get(self) -> Wakeup | C:
        """The oldest item, wake-ups joined; waits for one."""
        while not self._items:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = self._items.popleft()
        return self._joined(item) if isinstance(item, Wakeup) else item

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _joined(self, first: Wakeup) -> Wakeup:
        parts = [first]
        count = len(first.frames)
        while self._items:
            following = self._items[0]
            if not isinstance(following, Wakeup):
                break
            if following.feed is not first.feed or following.link != first.link:
                break
            count += len(following.frames)
            if count > self._max_frames:
                break
            parts.append(following)
            self._items.popleft()
        size = sum(part.size for part in parts)
        self.size -= size
        if len(parts) == 1:
            return first
        times = np.array([part.recv for part in parts], np.int64)
        recv = np.repeat(times, [len(part.frames) for part in parts])
        return Wakeup(first.feed, [frame for part in parts for frame in part.frames], recv, size, first.link)


class Thrift:
    """How long a consumer rests before the next wake-up: a batch costs everything behind it about the same, whether it
    holds one trade or fifty.

    Up to ``rate`` batches a second it never does, nor for as many at once as are made of them in ``most`` seconds.
    Beyond that it rests until the rate is kept, ``most`` seconds each time at most.
    """

    def __init__(self, rate: float = 5000.0, most: float = 0.015) -> None:
        self._each, self._most = 1 / rate, most
        self._spent = 0.0  # until when the batches so far have used up the rate

    def spend(self, batches: int) -> None:
        """So many were made of a wake-up; the first few do not count."""
        if batches > FREE:
            now = time.monotonic()
            self._spent = min(max(self._spent, now - self._most) + (batches - FREE) * self._each, now + self._most)

    async def rest(self) -> None:
        """Return when the next wake-up may be taken."""
        if self._spent and (ahead := self._spent - time.monotonic()) >= LEAST:
            await asyncio.sleep(ahead)
