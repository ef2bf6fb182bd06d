"""The way in: one task per subscription reads, decodes and hands over, and notes what was acknowledged.

A group's floor moves up to just before the oldest message that is not acknowledged, and is noted on the
server every few milliseconds; what lies above it comes again after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import structlog

from tapewick import metrics
from tapewick.buses._broker import Arrival, Broker, Place
from tapewick.buses._numbers import Numbers
from tapewick.buses._trouble import Trouble, ended
from tapewick.errors import BusError, WireError
from tapewick.model import Message
from tapewick.wire import decode, stamped

__all__ = ["NetworkDelivery", "NetworkSubscription"]

log = structlog.get_logger()

NOTE = 0.005  # seconds between two notes of what was acknowledged


@dataclass(slots=True)
class _Floor:
    """One partition of a group: what was handed over, in order, and whether it was acknowledged."""

    position: int
    open: deque[NetworkDelivery] = field(default_factory=deque)

    def settle(self) -> None:
        """Move up over what is acknowledged."""
        while self.open and self.open[0].acked:
            self.position = self.open.popleft().position


@dataclass(slots=True, eq=False)
class NetworkDelivery:
    """One message off a network bus; ``ack`` lets the group's floor pass it."""

    message: Message
    lost: bool
    place: Place
    position: int
    size: int
    acked: bool = False
    _owner: NetworkSubscription | None = None

    def ack(self) -> None:
        self.acked = True
        if self._owner is not None:
            self._owner.acked(self.place)


class NetworkSubscription:
    """Async iterator over the messages of ``wanted``; in its place once ``placed`` is set. ``noted`` is called when
    floors have moved, ``missed`` with a topic of which messages were discarded before the group began to read."""

    def __init__(
        self,
        broker: Broker,
        wanted: Sequence[Place],
        *,
        group: str | None,
        max_bytes: int,
        trouble: Trouble,
        noted: Callable[[], None],
        missed: Callable[[str], None],
    ) -> None:
        self._broker, self._wanted, self._group = broker, wanted, group
        self._limit, self._trouble, self._noted, self._missed = max_bytes, trouble, noted, missed
        self._topics = sorted({topic for topic, _ in wanted})
        self._births: Mapping[str, str] = {}
        self._name = f"reading {' '.join(self._topics)}"
        self._after: dict[Place, int] = {}
        self._floors: dict[Place, _Floor] = {}
        self._dirty: set[Place] = set()
        self._told: dict[Place, int] = {}  # floors as the server has them
        self._numbers: dict[tuple[Place, int], Numbers] = {}
        self._items: deque[NetworkDelivery] = deque()
        self._bytes = 0
        self._lost = False
        self.closed = False
        self._filled, self._room, self._acks = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.placed = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read(), name=self._name)]
        if group is not None:
            self._tasks.append(asyncio.create_task(self._note(), name=f"noting {group}"))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NetworkDelivery:
        while not self._items:
            if self.closed:
                raise StopAsyncIteration
            if self._tasks[0].done():
                self._tasks[0].result()
            self._filled.clear()
            await self._filled.wait()
        delivery = self._items.popleft()
        self._bytes -= delivery.size
        self._room.set()
        return delivery

    async def close(self) -> None:
        """End it; of a group, what was acknowledged has been noted when this returns, if the server lets us."""
        self.closed = True
        await ended(self._tasks)
        if self._dirty:
            with contextlib.suppress(BusError):
                await self._note_once()
        self._trouble.over(self._name)
        self.placed.set()
        self._filled.set()

    # -- reading -------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            await self._begin()
            while True:
                try:
                    await self._follow()
                except BusError as error:
                    self._trouble.began(self._name, error)
                    await asyncio.sleep(0.1)
                    await self._trouble.insist(self._name, self._rejoin)
        finally:
            self.placed.set()  # nobody waits for one that failed
            self._filled.set()

    async def _begin(self) -> None:
        """Take the place: behind the group's floor, or behind the newest message."""
        start = partial(self._broker.ends, self._wanted)
        if self._group is not None:
            start = partial(self._broker.floors, self._group, self._wanted)
        self._after = await self._trouble.insist(self._name, start)
        if self._group is not None:
            self._floors = {place: _Floor(position) for place, position in self._after.items()}
            await self._trouble.insist(self._name, partial(self._look_back, self._group))
        await self._trouble.insist(self._name, self._rejoin)
        self.placed.set()

    async def _look_back(self, group: str) -> None:
        """Whether the server discarded messages that nobody of the group had read: told, and with the next message."""
        for topic in self._topics:
            standing = await self._broker.standing(topic)
            if any(group in one.missed and (topic, at) in self._floors for at, one in standing.items()):
                self._lost = True
                self._missed(topic)

    async def _follow(self) -> None:
        """Read on until the server fails."""
        reader = await self._broker.reader(self._after)
        try:
            if await self._broker.births(self._topics) != self._births:
                raise BusError(f"a topic was made anew while {self._name} began")
            while True:
                for arrival in await reader.fetch():
                    self._take(arrival)
                while self._bytes >= self._limit:
                    self._room.clear()
                    await self._room.wait()
        finally:
            await reader.close()

    async def _rejoin(self) -> None:
        """Where positions are not those of before, for the server was emptied or has lost the newest: begin again."""
        ends = await self._broker.ends(self._wanted)
        births = await self._broker.births(self._topics)  # after the ends: what is made anew in between is noticed
        other = {topic for topic, birth in self._births.items() if births[topic] != birth}
        if back := [place for place, after in self._after.items() if after > ends[place] or place[0] in other]:
            log.warning(
                "the bus stands behind what was read of it; reading again", topics=sorted({place[0] for place in back})
            )
            self.emptied()
            for place in back:
                self._again(place)
        self._births = births

    def _again(self, place: Place) -> None:
        """Read from the beginning. What a group was handed and has not acknowledged must come once more, to count
        against its new floor; without a group, what was read already is passed over."""
        self._after[place] = 0
        if place in self._floors:
            self._floors[place] = _Floor(0)
            self._dirty.add(place)
            self._numbers = {key: numbers for key, numbers in self._numbers.items() if key[0] != place}

    def emptied(self, news: Message | None = None) -> None:
        """The server lost what it kept: the next message says so, and without a group ``news`` is that."""
        self._lost = True
        if news is not None and self._group is None:
            self._items.append(NetworkDelivery(news, True, self._wanted[0], 0, 0))
            self._filled.set()

    def _take(self, arrival: Arrival) -> None:
        place, position, payload = arrival
        self._after[place] = position
        metrics.bus_received.labels(place[0]).inc()
        metrics.bus_received_bytes.labels(place[0]).inc(len(payload))
        try:
            origin, number = stamped(payload)
            message = None if self._known(place, origin, number) else decode(payload)
        except WireError as error:
            metrics.quarantined.labels("bus").inc()
            log.warning("no tapewick message on the bus", topic=place[0], position=position, cause=str(error))
            message = None
        if message is None:
            self._skip(place, position)
            return
        lost, self._lost = self._lost, False
        owner = self if self._group is not None else None
        delivery = NetworkDelivery(message, lost, place, position, len(payload), _owner=owner)
        if owner is not None:
            self._floors[place].open.append(delivery)
        self._items.append(delivery)
        self._bytes += len(payload)
        self._filled.set()

    def _known(self, place: Place, origin: int, number: int) -> bool:
        """Whether this was read before; a jump of the numbers means that others were lost before it, or come late."""
        numbers = self._numbers.get((place, origin))
        began = numbers is None
        if numbers is None:
            numbers = self._numbers[place, origin] = Numbers()
        missing = numbers.take(number)
        if missing and not began:  # else the earlier ones may have been read before this reader came
            metrics.bus_lost.labels(place[0]).inc(missing)
            self._lost = True
        return missing is None

    def _skip(self, place: Place, position: int) -> None:
        """Nothing is to be done about this one: as good as acknowledged."""
        if (floor := self._floors.get(place)) is not None:
            if floor.open:
                floor.open[-1].position = position
            else:
                floor.position = position
                self.acked(place)

    # -- acknowledgement -----------------------------------------------------------------------

    def acked(self, place: Place) -> None:
        """Something of ``place`` was acknowledged."""
        self._dirty.add(place)
        self._acks.set()

    async def _note(self) -> None:
        while True:
            await self._acks.wait()
            self._acks.clear()
            await self._trouble.insist(f"noting {self._group}", self._note_once, always=True)
            self._noted()
            await asyncio.sleep(NOTE)

    async def _note_once(self) -> None:
        assert self._group is not None
        dirty, self._dirty = self._dirty, set()
        for place in dirty:
            self._floors[place].settle()
        moved = {place: floor for place in dirty if (floor := self._floors[place].position) != self._told.get(place)}
        if not moved:
            return
        try:
            await self._broker.commit(self._group, moved)
        except BaseException:  # also where the reader closes meanwhile, which notes what is left
            self._dirty |= dirty
            raise
        self._told |= moved
