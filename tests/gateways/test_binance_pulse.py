"""The pulse of the Binance streams outlives whatever one stream meets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tapewick.errors import StoreError
from tapewick.gateways import _binance_streams as streams
from tapewick.gateways._binance_days import Minutes
from tapewick.gateways._binance_fanout import Form, Stream
from tapewick.gateways._binance_symbols import Listed, Symbols
from tapewick.gateways.http import HttpGateway
from tests.gateways.rig import BTC, Rig, running


class Waiting(Symbols):
    """Symbols whose second look for one that is not there takes as long as the test wants."""

    looks = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.looking, self.go_on = asyncio.Event(), asyncio.Event()

    async def streamed(self, lower: str) -> Listed | None:
        self.looks += lower == "nosuch"
        if lower == "nosuch" and self.looks > 1:
            self.looking.set()
            await self.go_on.wait()
        return await super().streamed(lower)


class Somebody:
    """A reader nothing is sent to."""

    form = Form(combined=False, unit=1_000_000)
    outbox: Any = SimpleNamespace(forget=lambda stream: None)

    def close(self, code: int, reason: str) -> None: ...


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(streams, "PULSE", 0.01)
    async with running(tmp_path) as rig:
        yield rig


async def beats(own: streams.Streams, count: int = 3) -> None:
    """Wait until the pulse has been through all streams that often."""
    ticks = 0

    class Counted:
        async def tick(self) -> None:
            nonlocal ticks
            ticks += 1

        def close(self) -> None: ...

    entry = own._entries["counted@trade"] = streams._Entry(Stream("counted@trade"), None, Counted())  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        while ticks < count:  # noqa: ASYNC110  # a beat has no event
            await asyncio.sleep(0.002)
    assert own._entries.pop("counted@trade") is entry


async def test_the_last_reader_leaves_while_a_stream_is_looked_for_again(rig: Rig) -> None:
    symbols = Waiting(rig.market, venue="", oracles=False)
    own = streams.Streams(rig.market, symbols, aggregate_raw=True)
    own.start()
    somebody = Somebody()
    await own.join(somebody, "nosuch@trade")
    async with asyncio.timeout(20):
        await symbols.looking.wait()
    await beats(own)  # one stream's search keeps nobody else waiting
    own.leave(somebody, "nosuch@trade")
    await beats(own)
    assert own.trouble is None
    await own.stop()


async def test_a_stream_that_is_cancelled_inside_does_not_end_the_others(rig: Rig) -> None:
    class GivenUp:
        async def tick(self) -> None:
            loading = asyncio.get_running_loop().create_future()
            loading.cancel()
            await asyncio.shield(loading)

        def close(self) -> None: ...

    own = streams.Streams(rig.market, Symbols(rig.market, venue="", oracles=False), aggregate_raw=True)
    own.start()
    own._entries["!ticker@arr"] = streams._Entry(Stream("!ticker@arr"), None, GivenUp())  # type: ignore[arg-type]
    await beats(own)
    assert own.trouble is None
    await own.stop()


async def test_a_stream_nobody_reads_any_more_is_not_opened_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    own = streams.Streams(rig.market, Symbols(rig.market, venue="", oracles=False), aggregate_raw=True)
    somebody = Somebody()

    class Leaving:
        async def tick(self) -> None:
            own.leave(somebody, "nosuch@trade")

        def close(self) -> None: ...

    own._entries["first@trade"] = streams._Entry(Stream("first@trade"), None, Leaving())  # type: ignore[arg-type]
    await own.join(somebody, "nosuch@trade")
    gone = own._entries["nosuch@trade"]
    opening = gone.opening
    monkeypatch.setattr(streams, "LOOK_AGAIN", 1)
    own.start()
    await beats(own)
    assert "nosuch@trade" not in own._entries
    assert gone.opening is opening
    await own.stop()


async def test_readiness_tells_when_the_streams_have_ended(rig: Rig) -> None:
    binance = rig.gateway.binance
    assert binance is not None and (await rig.get("/health/ready"))["status"] == "ready"
    pulse = binance.streams._pulse
    assert pulse is not None
    pulse.cancel()
    await asyncio.wait({pulse})

    async def fails() -> None:
        raise StoreError("the disk is gone")

    binance.streams._beat = fails  # type: ignore[method-assign]
    binance.streams.start()
    async with asyncio.timeout(20):
        while binance.streams.trouble is None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    assert "Binance" in str(await rig.get("/health/ready", 503))
    assert isinstance(rig.gateway, HttpGateway)


async def test_minutes_of_a_new_tape_are_read_until_the_store_answers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.tell(1, 700)
    listed = (await Symbols(rig.market, venue="", oracles=False).all())[0]
    minutes = Minutes(rig.market, listed)
    await minutes.open()
    before = len(minutes.rows)
    assert before and listed.id == BTC
    failures, candles = [1], rig.market.candles

    async def failing(*args: Any, **options: Any) -> Any:
        if failures:
            raise StoreError(f"failure {failures.pop()}")
        return await candles(*args, **options)

    monkeypatch.setattr("tapewick.gateways._binance_days.RETRY", 0.01)
    monkeypatch.setattr(rig.market, "candles", failing)
    minutes.restarted()
    async with asyncio.timeout(20):
        while len(minutes.rows) < before:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    assert not failures
    minutes.close()
