"""Reading from Kafka: what is assigned, in order, without a group of the server's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tapewick.buses._broker import Arrival
from tapewick.buses._kafka_driver import Consumer, Message, failure

__all__ = ["KafkaReader"]

NEWS = 0.2  # seconds a read waits for news
READ = 256  # messages a read takes at most


class KafkaReader:
    """One assigned consumer in one thread. ``cut``: characters of a topic's name before ours; ``outages``: how
    often the driver has found no broker reachable by now."""

    def __init__(self, consumer: Consumer, cut: int, outages: Callable[[], int]) -> None:
        self._consumer, self._cut, self._outages = consumer, cut, outages
        self._before = outages()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-read")

    async def fetch(self) -> list[Arrival]:
        messages = await asyncio.get_running_loop().run_in_executor(self._thread, self._poll)
        found = []
        for message in messages:
            if (error := message.error()) is not None:
                raise failure(error, "reading")
            place = ((message.topic() or "")[self._cut :], message.partition() or 0)
            found.append(Arrival(place, (message.offset() or 0) + 1, message.value() or b""))
        if not found and self._outages() != self._before:
            raise failure(None, "reading")
        return found

    def _poll(self) -> list[Message]:
        """The next message when it comes, and those that are there with it."""
        first = self._consumer.poll(NEWS)
        return [] if first is None else [first, *self._consumer.consume(READ, timeout=0)]

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._consumer.close)
        self._thread.shutdown(wait=False)
