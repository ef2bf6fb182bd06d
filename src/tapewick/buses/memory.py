"""The in-process bus: passes references, encodes nothing, bounds every queue in bytes.

A group's queue makes publishers wait (or ``offer`` refuse) at its bound, so a pull source
is paced by the engine. A broadcast queue drops its oldest message instead and marks the
next one ``lost``: its reader refills from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from tapewick.model import Instrument, Message

__all__ = ["MemoryBus"]


@dataclass(slots=True)
class MemoryDelivery:
    """One message; ``ack`` lets ``MemoryBus.settled`` know its effects are durable."""

    message: Message
    lost: bool = False
    _queue: _Queue | None = None

    def ack(self) -> None:
        if self._queue is not None:
            self._queue.acked()


def _size(message: Message) -> int:
    return 256 if isinstance(message, Instrument) else message.nbytes


@dataclass(slots=True)
class _Queue:
    """A byte-bounded queue with one or more readers."""

    limit: int
    group: str | None
    items: deque[Message] = field(default_factory=deque)
    bytes: int = 0
    unacked: int = 0
    lost: bool = False
    closed: bool = False
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def full(self) -> bool:
        return self.bytes >= self.limit

    def put(self, message: Message) -> None:
        if self.group is None:
            while self.full and self.items:
                self.bytes -= _size(self.items.popleft())
                self.lost = True
        else:
            self.unacked += 1
            self.idle.clear()
        self.items.append(message)
        self.bytes += _size(message)
        self.filled.set()

    def get(self) -> MemoryDelivery:
        message = self.items.popleft()
        self.bytes -= _size(message)
        if not self.full:
            self.room.set()
        lost, self.lost = self.lost, False
        return MemoryDelivery(message, lost, self if self.group is not None else None)

    def acked(self) -> None:
        self.unacked -= 1
        if self.unacked == 0:
            self.idle.set()


class MemorySubscription:
    """Async iterator over a queue; registered from the moment it is made."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MemoryDelivery:
        queue = self._queue
        while not queue.items:
            if queue.closed:
                raise StopAsyncIteration
            queue.filled.clear()
            await queue.filled.wait()
        return queue.get()


class MemoryBus:
    """``protocols.Bus`` inside one process. ``max_bytes`` bounds each queue."""

    def __init__(self, max_bytes: int = 16 << 20) -> None:
        self._limit = max_bytes
        self._topics: dict[str, list[_Queue]] = {}
        self._groups: dict[tuple[str, tuple[str, ...]], _Queue] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for queue in {id(q): q for queues in self._topics.values() for q in queues}.values():
            queue.closed = True
            queue.filled.set()
            queue.room.set()
            queue.idle.set()

    def subscribe(self, topics: Sequence[str], *, group: str | None = None) -> MemorySubscription:
        """Messages of ``topics`` from now on; members of one ``group`` (same topics) share them."""
        key = (group or "", tuple(topics))
        queue = self._groups.get(key) if group is not None else None
        if queue is None:
            queue = _Queue(self._limit, group)
            if group is not None:
                self._groups[key] = queue
            for topic in topics:
                self._topics.setdefault(topic, []).append(queue)
        return MemorySubscription(queue)

    def offer(self, topic: str, message: Message) -> bool:
        """Send now; False and nothing sent while a group's queue is full."""
        queues = self._topics.get(topic, ())
        if any(q.group is not None and q.full for q in queues):
            return False
        for queue in queues:
            queue.put(message)
        return True

    async def publish(self, topic: str, message: Message) -> None:
        """Send, waiting while a group's queue is full."""
        while not self.offer(topic, message):
            for queue in self._topics.get(topic, ()):
                if queue.group is not None and queue.full and not queue.closed:
                    queue.room.clear()
                    await queue.room.wait()

    async def settled(self, topic: str) -> None:
        """Return once every message sent to the groups of ``topic`` has been acknowledged."""
        for queue in self._topics.get(topic, ()):
            if queue.group is not None and queue.unacked and not queue.closed:
                await queue.idle.wait()
