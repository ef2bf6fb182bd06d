"""The in-process bus: passes references, encodes nothing, bounds every queue in bytes.

A group's queue makes publishers wait (or ``offer`` refuse) at its bound, so a pull source
is paced by the engine. A broadcast queue drops its oldest message instead and marks the
next one ``lost``: its reader refills from the store. Of provisional candles it holds the newest of each
instrument only: a reader that lags finds the present behind what is durable, not a backlog of values.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Self

from tapewick import metrics
from tapewick.errors import BusError
from tapewick.model import CandleBatch, Instrument, Message, partition_of

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
class _Newest:
    """The place in line of an instrument's provisional candles; without a message once newer ones have come."""

    message: CandleBatch | None


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Queue:
    """A byte-bounded queue with one or more readers."""

    limit: int
    group: str | None
    chosen: frozenset[int] | None = None
    items: deque[tuple[Message | _Newest, int]] = field(default_factory=deque)  # each with its size
    newest: dict[str, _Newest] = field(default_factory=dict)  # those in ``items``, by instrument
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

    def put(self, message: Message, size: int) -> None:
        if self.group is None:
            while self.full and self.items:
                self._take()
                self.lost = True
        else:
            self.unacked += 1
            self.idle.clear()
        if self.group is None and isinstance(message, CandleBatch) and message.provisional:
            self.items.append((self._superseding(message), size))
        else:
            self.items.append((message, size))
        self.bytes += size
        if len(self.items) == 1:  # else it has been told already
            self.filled.set()

    def _superseding(self, message: CandleBatch) -> _Newest:
        """Its place in line; its predecessor's, if there is one, is empty from now on."""
        old = self.newest.get(message.instrument)
        if old is not None and old.message is not None:
            self.bytes -= _size(old.message)
            old.message = None
        new = self.newest[message.instrument] = _Newest(message)
        return new

    def _take(self) -> Message:
        """The oldest message; there is one wherever there are items, for a superseded one has its successor behind."""
        while True:
            message, size = self.items.popleft()
            if isinstance(message, _Newest):
                if message.message is None:
                    continue
                message = message.message
                del self.newest[message.instrument]
            self.bytes -= size
            return message

    def get(self) -> MemoryDelivery:
        message = self._take()
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
        self._split = False  # whether any queue takes some partitions only
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
        self._split = self._split or chosen is not None
        key = (group or "", tuple(topics), chosen)
        queue = self._groups.get(key) if group is not None else None
        if queue is None:
            queue = _Queue(self._limit, group, chosen)
            metrics.watch_queue(f"bus {group or 'to all'}: {' '.join(topics)}", queue, lambda queue: queue.bytes)
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
        if not self._split:
            return queues
        instrument = message.id if isinstance(message, Instrument) else message.instrument
        partition = partition_of(instrument, self._partitions) if instrument else None
        return [queue for queue in queues if queue.wants(partition)]

    def offer(self, topic: str, message: Message) -> bool:
        """Send now; False and nothing sent while a group's queue is full."""
        queues = self._queues(topic, message)
        for queue in queues:
            if queue.group is not None and queue.full:
                return False
        size = _size(message)
        for queue in queues:
            queue.put(message, size)
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
