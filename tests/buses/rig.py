"""Every bus behind one face, and messages to send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np

from tapewick.buses.memory import MemoryBus
from tapewick.model import CANDLE, CandleBatch, Head, Instrument, TradeBatch, partition_of
from tapewick.protocols import Bus, Delivery, Subscription

__all__ = ["KINDS", "NETWORK", "BusRig", "candles", "got", "head", "instrument_in", "settled", "trades", "until"]

NETWORK = ("redis", "nats", "kafka")
KINDS = ("memory", *NETWORK)
P = 4  # partitions in these tests


class BusRig:
    """Opens buses of one kind that are connected with each other: of the memory bus, one and the same."""

    def __init__(self, kind: str, server: Any = None) -> None:
        self.kind, self.server = kind, server
        self.name = f"t{uuid4().hex[:12]}"
        self._shared: MemoryBus | None = None

    @property
    def network(self) -> bool:
        return self.kind != "memory"

    def make(self, *, name: str = "", **options: Any) -> Bus:
        """A bus not yet open."""
        options = {"partitions": P, **options}
        name = name or self.name
        url = options.pop("url", "") or (self.server.url if self.server else "")
        if self.kind == "redis":
            from tapewick.buses.redis import RedisBus

            return RedisBus(url, name=name, **options)
        if self.kind == "nats":
            from tapewick.buses.nats import NatsBus

            return NatsBus(url, name=name, **options)
        if self.kind == "kafka":
            from tapewick.buses.kafka import KafkaBus

            return KafkaBus((url,), name=name, **options)
        self._shared = self._shared or MemoryBus(**options)
        return self._shared

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Bus]:
        async with self.make(**options) as bus:
            yield bus


def head(seq: int, instrument: str = "a:B") -> Head:
    return Head(instrument=instrument, epoch="E", seq=seq, pos=0, watermark=0, price_scale=2, size_scale=5)


def instrument_in(partition: int, at: int = 0) -> str:
    """The ``at``-th of the instruments a:0, a:1, … that belong to ``partition``."""
    found = (id for id in map("a:{}".format, count()) if partition_of(id, P) == partition)
    for _ in range(at):
        next(found)
    return next(found)


def trades(first: int, rows: int, instrument: str = "a:B", **more: Any) -> TradeBatch:
    """Trades with the ids from ``first`` on; everything follows from the id."""
    ids = np.arange(first, first + rows, dtype=np.int64)
    return TradeBatch(
        instrument=instrument,
        trade_id=ids,
        first_id=ids.copy(),
        count=np.ones(rows, np.int32),
        ts_event=ids * 1_000_000,
        ts_recv=ids * 1_000_000 + 7,
        price=10_000 + ids % 100,
        size=1 + ids % 9,
        side=np.where(ids % 2, 1, -1).astype(np.int8),
        price_scale=2,
        size_scale=3,
        source="test",
        **more,
    )


def candles(rows: int, instrument: str = "a:B") -> CandleBatch:
    values = np.zeros(rows, CANDLE)
    values["open_time"] = np.arange(rows) * 60
    values["pos"] = np.arange(1, rows + 1)
    values["volume_hi"] = -1
    return CandleBatch(instrument=instrument, rows=values, price_scale=2, size_scale=3, epoch="E", pos=rows)


def known(id: str) -> Instrument:
    return Instrument(id=id, venue="a", symbol=id[2:])


async def got(reader: Subscription, number: int, *, ack: bool = True) -> list[Delivery]:
    """The next ``number`` deliveries."""
    found = []
    async with asyncio.timeout(60):
        for _ in range(number):
            found.append(await anext(reader))
            if ack:
                found[-1].ack()
    return found


async def settled(bus: Bus, topic: str = "trades") -> None:
    async with asyncio.timeout(60):
        await bus.settled(topic)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)
