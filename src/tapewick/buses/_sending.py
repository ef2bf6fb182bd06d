"""The way out of a network bus: a queue per topic, bounded in bytes, sent in batches and in order.

What was sent still counts against its topic's bound until every group has acknowledged it, so a fast
source is paced by the engines and not by the server's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from tapewick import metrics
from tapewick.buses._broker import Broker, Parcel, Place, Standing
from tapewick.buses._trouble import Trouble
from tapewick.errors import BusRefused
from tapewick.wire import stamp

__all__ = ["Sender"]

log = structlog.get_logger()

BATCH = 1 << 20  # bytes sent at once
POLL = 0.01  # seconds between two looks at what groups have acknowledged, while somebody waits for it
IDLE = 1.0  # the same while nobody does
UNGROUPED = 5.0  # seconds for which a topic is known to have no group
LOOK = 5.0  # seconds between two looks at how far groups are behind, while nothing of ours waits for them


@dataclass(slots=True)
class _Topic:
    """One topic: its messages not yet sent, and those not yet acknowledged by all groups."""

    held: int = 0
    queued: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    unacked: dict[int, deque[tuple[int, int]]] = field(default_factory=dict)  # by partition: (position, bytes)
    ungrouped: float = 0.0  # no group reads it, as of this time
    released: float = 0.0
    looked: float = 0.0
    grouped: bool = False  # a group of ours reads it: we show its lag
    lagging: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def outstanding(self) -> bool:
        return self.queued > 0 or any(self.unacked.values())

    def forget(self, partition: int, upto: int) -> int:
        """Drop what lies at or below the position ``upto``; how many messages that were."""
        waiting, count = self.unacked.get(partition, deque()), 0
        while waiting and waiting[0][0] <= upto:
            self.held -= waiting.popleft()[1]
            count += 1
        return count


@dataclass(slots=True)
class _Waiting:
    """A parcel in the queue and who waits for its confirmation."""

    parcel: Parcel
    size: int
    done: asyncio.Future[None] | None


class Sender:
    """Sends through ``broker``. ``ready`` returns once all subscriptions made so far have their place. ``discarded`` is
    told a topic and how many messages the server let go of that its groups had not acknowledged."""

    def __init__(
        self,
        broker: Broker,
        *,
        origin: int,
        max_bytes: int,
        trouble: Trouble,
        ready: Callable[[], Awaitable[None]],
        discarded: Callable[[str, int], None],
    ) -> None:
        self._broker, self._origin, self._limit = broker, origin, max_bytes
        self._trouble, self._ready, self._discarded = trouble, ready, discarded
        self._topics: dict[str, _Topic] = {}
        self._queue: deque[_Waiting] = deque()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._kick = asyncio.Event()
        self._waiters = 0

    def room(self, topic: str) -> bool:
        """Whether the topic's byte bound is not reached."""
        return self._topic(topic).held < self._limit

    def _topic(self, name: str) -> _Topic:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = _Topic()
        return found

    def put(self, place: Place, content: bytes, *, confirm: bool = False) -> asyncio.Future[None] | None:
        """Queue an encoded message, with its own number; with ``confirm``, a future that says it is on the server."""
        name, partition = place
        topic = self._topic(name)
        number = topic.numbers[partition] = topic.numbers.get(partition, 0) + 1
        payload = content + stamp(self._origin, number)
        done = asyncio.get_running_loop().create_future() if confirm else None
        parcel = Parcel(place, f"{self._origin:x}.{partition}.{number}", payload)
        self._queue.append(_Waiting(parcel, len(payload), done))
        topic.held += len(payload)
        topic.queued += 1
        self._filled.set()
        self._idle.clear()
        return done

    async def until_room(self, topic: str) -> None:
        """Return when the topic's byte bound is no longer reached."""
        await self._until(topic, lambda: self.room(topic))

    async def settled(self, topic: str) -> None:
        """Return once everything put into ``topic`` was sent and acknowledged by the groups there are."""
        own = self._topic(topic)
        own.ungrouped = 0.0
        await self._until(topic, lambda: not own.outstanding)

    async def _until(self, topic: str, holds: Callable[[], bool]) -> None:
        own = self._topic(topic)
        self._waiters += 1
        try:
            while not holds():
                own.changed.clear()
                self._kick.set()
                await own.changed.wait()
        finally:
            self._waiters -= 1

    def grouped(self, topics: Sequence[str]) -> None:
        """A group reads ``topics`` from now on."""
        for name in topics:
            topic = self._topic(name)
            topic.ungrouped, topic.grouped = 0.0, True

    def look(self) -> None:
        """Something was acknowledged: see how far the groups are, if that matters to anybody."""
        if self._pressed():
            self._kick.set()

    def _pressed(self) -> bool:
        """Whether somebody waits, or a topic comes near its bound: an offer does not wait."""
        return self._waiters > 0 or any(topic.held > self._limit // 4 for topic in self._topics.values())

    async def drained(self, seconds: float) -> int:
        """Wait until the queue is empty, ``seconds`` at most; how many messages are left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return len(self._queue)

    # -- sending -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is queued until cancelled."""
        while True:
            await self._filled.wait()
            await self._ready()
            await self._send(self._next())
            if not self._queue:
                self._filled.clear()
                self._idle.set()

    def _next(self) -> list[_Waiting]:
        """The oldest parcels, left in the queue until they are confirmed."""
        batch: list[_Waiting] = []
        size = 0
        for one in self._queue:
            batch.append(one)
            size += one.size
            if size >= BATCH:
                break
        return batch

    async def _send(self, batch: list[_Waiting]) -> None:
        try:
            send = partial(self._broker.send, [one.parcel for one in batch])
            positions = await self._trouble.insist("sending", send)
        except BusRefused as error:
            if len(batch) > 1:
                for one in batch:
                    await self._send([one])
                return
            self._refused(batch[0], error)
        else:
            for one, position in zip(batch, positions, strict=True):
                self._confirmed(one, position)

    def _confirmed(self, one: _Waiting, position: int) -> None:
        name, partition = one.parcel.place
        topic = self._left(one)
        metrics.bus_sent.labels(name).inc()
        metrics.bus_sent_bytes.labels(name).inc(one.size)
        if topic.ungrouped and asyncio.get_running_loop().time() - topic.ungrouped < UNGROUPED:
            topic.held -= one.size
        else:
            topic.unacked.setdefault(partition, deque()).append((position, one.size))
        topic.changed.set()
        if one.done is not None and not one.done.done():
            one.done.set_result(None)

    def _refused(self, one: _Waiting, error: BusRefused) -> None:
        topic = self._left(one)
        topic.held -= one.size
        topic.changed.set()
        metrics.bus_refused.labels(one.parcel.place[0]).inc()
        if one.done is not None and not one.done.done():
            one.done.set_exception(error)
        else:
            log.error("the bus refused a message", topic=one.parcel.place[0], bytes=one.size, cause=str(error))

    def _left(self, one: _Waiting) -> _Topic:
        """Take the oldest parcel out of the queue."""
        first = self._queue.popleft()
        assert first is one
        topic = self._topics[one.parcel.place[0]]
        topic.queued -= 1
        return topic

    # -- acknowledgement -----------------------------------------------------------------------

    async def watch(self) -> None:
        """Follow how far groups are, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL if self._pressed() else IDLE):
                    await self._kick.wait()
            self._kick.clear()
            await asyncio.sleep(POLL / 2)  # the more that was acknowledged meanwhile, the better
            for name in [name for name, topic in self._topics.items() if self._watched(topic)]:
                standing = await self._trouble.insist("watching", partial(self._broker.standing, name), always=True)
                await self._apply(name, standing)

    def _watched(self, topic: _Topic) -> bool:
        """Whether to ask how far groups are: something of ours waits for them, or it is time to show their lag."""
        due = asyncio.get_running_loop().time() - topic.looked > LOOK
        return any(topic.unacked.values()) or (due and (topic.grouped or topic.lagging))

    async def _apply(self, name: str, standing: dict[int, Standing]) -> None:
        topic, now = self._topics[name], asyncio.get_running_loop().time()
        topic.looked, topic.lagging = now, False
        groups = {group for one in standing.values() for group in one.floors}
        if not groups and not topic.grouped:  # a group of ours may be about to take its place
            topic.ungrouped = now
        lost, floors = 0, {}
        for partition, one in standing.items():
            if not groups:
                topic.forget(partition, one.first + 2**127)
                continue
            floors[partition] = min((one.floors.get(group, 0) for group in groups), default=0)
            topic.forget(partition, floors[partition])
            lost += topic.forget(partition, one.first - 1)
        for group in groups:
            waiting = sum(one.waiting.get(group, 0) for one in standing.values())
            metrics.bus_lag.labels(name, group).set(waiting)
            topic.lagging |= waiting > 0
        if lost:
            self._discarded(name, lost)
        topic.changed.set()
        if groups and now - topic.released > IDLE:
            topic.released = now
            await self._trouble.insist("releasing", partial(self._broker.release, name, floors), always=True)
