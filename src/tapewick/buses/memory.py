"""The in-process bus: passes references, encodes nothing, bounds every queue in bytes.

A group's queue makes publishers wait (or ``offer`` refuse) at its bound, so a pull source
is paced by the engine. A broadcast queue drops its oldest message instead and marks the
next one ``lost``: its reader refills from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Self

from tapewick.errors import BusError
from tapewick.model import Instrument, Message, partition_of

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


@dataclass(slots=True, eq=False)
class _Queue:
    """A byte-bounded queue with one or more readers."""

    limit: int
    group: str | None
    chosen: frozenset[int] | None = None
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

    def wants(self, partition: int | None) -> bool:
        """Whether messages of a partition, or (None) of no instrument, are for its readers."""
        return self.chosen is None or partition is None or partition in self.chosen

    def close(self) -> None:
        self.closed = True
        for event in (self.filled, self.room, self.idle):
            event.set()

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

    def __init__(self, bus: MemoryBus, queue: _Queue) -> None:
        self._bus, self._queue = bus, queue

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

    async def close(self) -> None:
        """End it, and for a group all its members on these topics: this bus keeps nothing for anybody."""
        self._bus.leave(self._queue)


class MemoryBus:
    """``protocols.Bus`` inside one process. ``max_bytes`` bounds each queue."""

    trouble: None = None

    def __init__(self, max_bytes: int = 16 << 20, *, partitions: int = 16) -> None:
        self._limit, self._partitions = max_bytes, partitions
        self._topics: dict[str, list[_Queue]] = {}
        self._groups: dict[tuple[str, tuple[str, ...], frozenset[int] | None], _Queue] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for queue in {id(q): q for queues in self._topics.values() for q in queues}.values():
            queue.close()

    def subscribe(
        self, topics: Sequence[str], *, group: str | None = None, partitions: Collection[int] | None = None
    ) -> MemorySubscription:
        """Messages of ``topics`` from now on; members of one ``group`` (same topics and partitions) share them.

        Raises ``BusError`` for partitions there are none of.
        """
        if partitions is not None and not set(partitions) <= set(range(self._partitions)):
            raise BusError(f"partitions {sorted(partitions)}: engine.partitions is {self._partitions}")
        chosen = None if partitions is None else frozenset(partitions)
        key = (group or "", tuple(topics), chosen)
        queue = self._groups.get(key) if group is not None else None
        if queue is None:
            queue = _Queue(self._limit, group, chosen)
            if group is not None:
                self._groups[key] = queue
            for topic in topics:
                self._topics.setdefault(topic, []).append(queue)
        return MemorySubscription(self, queue)

    def leave(self, queue: _Queue) -> None:
        """Forget a queue nobody reads any more."""
        queue.close()
        self._groups = {key: one for key, one in self._groups.items() if one is not queue}
        for queues in self._topics.values():
            if queue in queues:
                queues.remove(queue)

    def _queues(self, topic: str, message: Message) -> list[_Queue]:
        queues = self._topics.get(topic, [])
        if all(queue.chosen is None for queue in queues):
            return queues
        instrument = message.id if isinstance(message, Instrument) else message.instrument
        partition = partition_of(instrument, self._partitions) if instrument else None
        return [queue for queue in queues if queue.wants(partition)]

    def offer(self, topic: str, message: Message) -> bool:
        """Send now; False and nothing sent while a group's queue is full."""
        queues = self._queues(topic, message)
        if any(q.group is not None and q.full for q in queues):
            return False
        for queue in queues:
            queue.put(message)
        return True

    async def publish(self, topic: str, message: Message) -> None:
        """Send, waiting while a group's queue is full."""
        while not self.offer(topic, message):
            for queue in self._queues(topic, message):
                if queue.group is not None and queue.full and not queue.closed:
                    queue.room.clear()
                    await queue.room.wait()

    async def settled(self, topic: str) -> None:
        """Return once every message sent to the groups of ``topic`` has been acknowledged."""
        for queue in self._topics.get(topic, ()):
            if queue.group is not None and queue.unacked and not queue.closed:
                await queue.idle.wait()
