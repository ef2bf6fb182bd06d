"""The collectors of a process: their word on how sources stand, said again, and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.collectors import AGAIN, Collectors
from tapewick.model import Event, Health, Instrument
from tapewick.protocols import Source
from tapewick.stores.duckdb import DuckDBStore


class Speaker:
    """A source that says what it is given, and never ends."""

    name, pull = "venue", False

    def __init__(self) -> None:
        self.said: asyncio.Queue[Event] = asyncio.Queue()

    async def events(self) -> AsyncGenerator[Event, None]:
        while True:
            yield await self.said.get()


def never(venue: str, symbols: Any, *, wished: Any = ()) -> Source:
    raise AssertionError("nothing is watched here")


def word(state: Any = "connected", ts: int = 1, **more: str) -> Health:
    return Health(source="venue", state=state, ts=ts, **more)


async def heard(deliveries: Any) -> Health:
    async with asyncio.timeout(20):
        message = (await anext(deliveries)).message
    assert isinstance(message, Health)
    return message


async def test_the_last_word_is_said_again_and_taken_back_at_the_end(tmp_path: Path) -> None:
    clock, source = ManualClock(10**18), Speaker()
    async with DuckDBStore(tmp_path) as store, MemoryBus() as bus:
        deliveries = bus.subscribe(["health"])
        collectors = Collectors(bus, store, clock, [source], make=never, holder="me")
        assert collectors.trouble == "venue: the venue has not answered yet"
        running = asyncio.create_task(collectors.run())
        source.said.put_nowait(word("disconnected", detail="no route"))
        assert await heard(deliveries) == word("disconnected", detail="no route", collector="me")
        assert collectors.trouble == "venue is disconnected: no route"
        source.said.put_nowait(word(ts=2))
        source.said.put_nowait(word(ts=3, instrument="venue:A"))
        assert [(await heard(deliveries)).state for _ in range(2)] == ["connected"] * 2
        assert collectors.trouble is None
        clock.advance(AGAIN)
        again = [await heard(deliveries) for _ in range(2)]
        assert again == [word(ts=2, collector="me"), word(ts=3, instrument="venue:A", collector="me")]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        gone = [await heard(deliveries) for _ in range(2)]
        assert {(one.instrument, one.state, one.detail) for one in gone} == {
            (id, "disconnected", "its collector was stopped") for id in ("", "venue:A")
        }


async def test_an_instrument_is_announced_again_as_the_bus_may_have_lost_it(tmp_path: Path) -> None:
    clock, source = ManualClock(10**18), Speaker()
    own = Instrument(id="venue:A", venue="venue", symbol="A", price_scale=2, size_scale=5)
    async with DuckDBStore(tmp_path) as store, MemoryBus() as bus:
        deliveries = bus.subscribe(["trades"])
        running = asyncio.create_task(Collectors(bus, store, clock, [source], make=never).run())
        source.said.put_nowait(own)
        async with asyncio.timeout(20):
            assert (await anext(deliveries)).message == own
            for _ in range(2):
                clock.advance(AGAIN)
                assert (await anext(deliveries)).message == own
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_wish_that_fails_ends_nothing_and_is_told(tmp_path: Path) -> None:
    def broken(venue: str, symbols: Any, *, wished: Any = ()) -> Source:
        raise TypeError("a defect")

    async with DuckDBStore(tmp_path) as store, MemoryBus() as bus:
        deliveries = bus.subscribe(["health"])
        await store.watch("other:X", True)
        source = Speaker()
        running = asyncio.create_task(Collectors(bus, store, ManualClock(10**18), [source], make=broken).run())
        refused = await heard(deliveries)
        assert (refused.instrument, refused.state) == ("other:X", "refused") and "a defect" in refused.detail
        source.said.put_nowait(word())
        assert (await heard(deliveries)).state == "connected"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
