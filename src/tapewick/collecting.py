"""The role ``collect``: brings what a source yields to the bus."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import aclosing

from tapewick import metrics
from tapewick.model import BookUpdate, Event, Health, Quote, TradeBatch
from tapewick.protocols import Bus, Source

__all__ = ["collect"]

MOST_SAID = 10_000  # announcements and changes of health that wait for the bus; the oldest go first


async def collect(source: Source, bus: Bus) -> None:
    """Publish everything ``source`` yields until it ends.

    A pull source waits while the bus is full. From any other source whole batches are
    dropped and counted: their reader must never wait, and the ledger records the hole. What it says
    beside trades is kept until there is room, and sent before any later trade: books go on meanwhile.
    What the source itself refused, by its counter ``rejects``, is counted as quarantined.
    """
    told: Counter[str] = Counter()
    waiting: deque[Event] = deque()
    async with aclosing(source.events()) as events:
        async for event in events:
            _count_refused(source, told)
            if isinstance(event, TradeBatch) and not source.pull:
                if not (_said(waiting, bus) and bus.offer("trades", event)):
                    metrics.dropped_batches.labels(source.name).inc()
                continue
            if isinstance(event, BookUpdate | Quote):
                bus.offer("books", event)
                continue
            if isinstance(event, Health):
                bus.offer("health", event)
            if not source.pull:
                waiting.append(event)
                _said(waiting, bus)
            elif not bus.offer("trades", event):  # a network bus confirms what is published: not one by one
                await bus.publish("trades", event)
            await asyncio.sleep(0)  # a pull source may never suspend by itself
    _count_refused(source, told)
    for event in waiting:
        await bus.publish("trades", event)


def _said(waiting: deque[Event], bus: Bus) -> bool:
    """Send what waits, as far as there is room; whether that was all."""
    while waiting and bus.offer("trades", waiting[0]):
        waiting.popleft()
    while len(waiting) > MOST_SAID:
        waiting.popleft()
    return not waiting


def _count_refused(source: Source, told: Counter[str]) -> None:
    """Bring the metric from ``told``, which is updated, to what the source counts."""
    rejects: Counter[str] | None = getattr(source, "rejects", None)
    if rejects and rejects != told:
        for reason, count in (rejects - told).items():
            metrics.quarantined.labels(reason).inc(count)
        told.update(rejects - told)
