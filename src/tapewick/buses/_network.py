"""``protocols.Bus`` over any message server: what Redis, NATS and Kafka have in common is written here once.

Messages are numbered per partition by who sends them, so a reader knows a repetition from a loss
whatever the server does. ``publish`` returns once the server has confirmed; ``offer`` only queues. While the
server is away the queue fills to its bound, publishers wait, offers fail, and ``trouble`` says why.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
from typing import Literal, Self

import structlog

from tapewick import metrics
from tapewick.buses._broker import SHARED, Broker, Place, places
from tapewick.buses._pieces import pieces
from tapewick.buses._receiving import NetworkSubscription
from tapewick.buses._sending import Sender
from tapewick.buses._trouble import Trouble, ended
from tapewick.clock import Clock, RealClock
from tapewick.errors import BusError
from tapewick.model import Health, Instrument, Message, partition_of
from tapewick.wire import encode

__all__ = ["NetworkBus"]

log = structlog.get_logger()

FAREWELL = 5.0  # seconds to send what is queued when the bus closes
CHECKUP = 1.0  # seconds between two looks whether the server still has what it kept
CALM = 30.0  # seconds without a loss after which the bus counts as well again


class NetworkBus:
    """A bus through ``broker``. ``max_bytes`` bounds what is under way per topic, and what waits per reader."""

    def __init__(
        self, broker: Broker, *, partitions: int = 16, max_bytes: int = 16 << 20, clock: Clock | None = None
    ) -> None:
        self._broker, self._partitions, self._limit = broker, partitions, max_bytes
        self._clock = clock or RealClock()
        self._trouble = Trouble(broker.kind)
        self._sender = Sender(
            broker,
            origin=secrets.randbits(63) | 1,
            max_bytes=max_bytes,
            trouble=self._trouble,
            ready=self._ready,
            discarded=self._discarded,
        )
        self._alarmed = 0.0  # when something was last lost inside the server, by the loop's clock; 0: nothing of late
        self._subscriptions: list[NetworkSubscription] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def trouble(self) -> str | None:
        """Why the bus does not work at the moment; None while it does."""
        return self._trouble.cause

    async def __aenter__(self) -> Self:
        try:
            await self._broker.connect()
        except BaseException:
            await self._broker.close()
            raise
        self._tasks = [
            asyncio.create_task(self._sender.run(), name="bus-send"),
            asyncio.create_task(self._sender.watch(), name="bus-watch"),
            asyncio.create_task(self._check(), name="bus-check"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Send what is queued if the server lets us, note what was acknowledged, end every subscription."""
        left = await self._sender.drained(FAREWELL)
        if left:
            log.error("messages were left unsent: the bus is away", messages=left, cause=self.trouble)
        await ended(self._tasks)
        await asyncio.gather(*(one.close() for one in self._subscriptions))
        await self._broker.close()
        for task in self._tasks:
            if exc[0] is None and not task.cancelled():
                task.result()

    def subscribe(
        self, topics: Sequence[str], *, group: str | None = None, partitions: Collection[int] | None = None
    ) -> NetworkSubscription:
        """Messages of ``topics`` from now on; of a group, from where it stands, and a new group from what is kept.

        Raises ``BusError`` for partitions there are none of.
        """
        if partitions is not None and not set(partitions) <= set(range(self._partitions)):
            raise BusError(f"partitions {sorted(partitions)}: engine.partitions is {self._partitions}")
        made = NetworkSubscription(
            self._broker,
            places(topics, self._partitions, partitions),
            group=group,
            max_bytes=self._limit,
            trouble=self._trouble,
            noted=self._sender.look,
            missed=self._missed,
        )
        self._subscriptions = [one for one in self._subscriptions if not one.closed]
        self._subscriptions.append(made)
        if group is not None:
            self._sender.grouped(topics)
        return made

    def offer(self, topic: str, message: Message) -> bool:
        """Queue without waiting; False and nothing sent while the topic's byte bound is reached."""
        if not self._sender.room(topic):
            metrics.bus_full.labels(topic).inc()
            return False
        for piece in pieces(message):
            content = encode(piece)
            for place in self._places(topic, piece):
                self._sender.put(place, content)
        return True

    async def publish(self, topic: str, message: Message) -> None:
        """Send, waiting while the topic's byte bound is reached; returns once the server has it.

        Raises ``BusRefused`` for a message the server does not take.
        """
        confirmed: list[asyncio.Future[None]] = []
        for piece in pieces(message):
            content = encode(piece)
            await self._sender.until_room(topic)
            for place in self._places(topic, piece):
                done = self._sender.put(place, content, confirm=True)
                assert done is not None
                confirmed.append(done)
        await asyncio.gather(*confirmed)

    async def settled(self, topic: str) -> None:
        """Return once every message sent to ``topic`` from here has been acknowledged by its groups."""
        await self._sender.settled(topic)

    def _places(self, topic: str, message: Message) -> list[Place]:
        """Where a message goes: to its instrument's partition, or to all if it names none."""
        if topic not in SHARED:
            return [(topic, 0)]
        instrument = message.id if isinstance(message, Instrument) else message.instrument
        if not instrument:
            return places((topic,), self._partitions)
        return [(topic, partition_of(instrument, self._partitions))]

    async def _ready(self) -> None:
        for one in self._subscriptions:
            await one.placed.wait()

    async def _check(self) -> None:
        """Notice that the server lost what it kept, and tell every subscriber."""
        life = await self._trouble.insist("checking", self._broker.life, always=True)
        while True:
            await asyncio.sleep(CHECKUP)
            now = await self._trouble.insist("checking", self._broker.life, always=True)
            if now != life:
                life = now
                self._emptied()
            elif self._alarmed and asyncio.get_running_loop().time() > self._alarmed + CALM:
                self._alarmed = 0.0
                self.offer("health", self._health("connected", ""))

    def _emptied(self) -> None:
        metrics.bus_emptied.labels(self._broker.kind).inc()
        log.error("the bus was emptied; what only it held is a gap to repair", bus=self._broker.kind)
        news = self._alarm("the message server lost what it kept; live data is filled from the store")
        for one in self._subscriptions:
            if not one.closed:
                one.emptied(news)

    def _discarded(self, topic: str, lost: int) -> None:
        """The server let go of ``lost`` messages of ours that a group had yet to read: everybody is told."""
        metrics.bus_discarded.labels(topic).inc(lost)
        log.error(
            "the bus discarded messages nobody had acknowledged; what they held is a gap to repair. Give the "
            "bus more room, or the engine more time",
            topic=topic,
            messages=lost,
        )
        news = self._alarm(f"the message server discarded {topic} nobody had acknowledged; they are a gap to repair")
        self.offer("health", news)

    def _missed(self, topic: str) -> None:
        """A group of ours begins behind messages the server has let go of: everybody is told."""
        metrics.bus_lost.labels(topic).inc()
        log.error(
            "the bus discarded messages before this reader came; what they held is a gap to repair. Give the bus more "
            "room, or start the engine sooner",
            topic=topic,
        )
        self.offer(
            "health", self._alarm(f"the message server discarded {topic} before they were read; a gap to repair")
        )

    def _alarm(self, detail: str) -> Health:
        self._alarmed = asyncio.get_running_loop().time()
        return self._health("stale", detail)

    def _health(self, state: Literal["connected", "stale"], detail: str) -> Health:
        return Health(source=f"bus {self._broker.kind}", state=state, ts=self._clock.now(), detail=detail)
