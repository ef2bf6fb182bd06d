"""The pause between commits."""

from __future__ import annotations

import asyncio

import pytest

from tapewick.pace import LEISURE, Pace


class Clock:
    """The clock a commit is timed with."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("tapewick.pace.time", made)
    return made


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests as long as the commits ask for."""
    monkeypatch.setattr("tapewick.pace.MOST", 1e6)


async def rested(pace: Pace) -> float:
    """Seconds of the loop's clock that a rest takes."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await pace.rest()
    return loop.time() - started


async def test_starts_lie_an_interval_apart() -> None:
    pace = Pace(0.05)
    pace.begin()
    assert await rested(pace) >= 0.04


async def test_a_slow_commit_is_followed_by_leisure(clock: Clock) -> None:
    pace = Pace(0.01)
    pace.begin()
    clock.now += 0.05
    assert await rested(pace) >= 0.05 * (LEISURE - 1) - 0.01


async def test_leisure_has_a_bound(clock: Clock) -> None:
    pace = Pace(0.01)
    pace.begin()
    clock.now += 600
    async with asyncio.timeout(60):
        await pace.rest()


async def test_who_can_do_nothing_else_does_not_wait_for_leisure(clock: Clock, unbounded: None) -> None:
    pace = Pace(0.01)
    pace.begin()
    pace.hurry()
    clock.now += 600
    async with asyncio.timeout(60):
        await pace.rest()


async def test_hurry_ends_a_rest_that_has_begun(clock: Clock, unbounded: None) -> None:
    pace = Pace(0.01)
    pace.begin()
    clock.now += 600
    resting = asyncio.create_task(pace.rest())
    await asyncio.sleep(0)
    pace.hurry()
    async with asyncio.timeout(60):
        await resting


async def test_hurry_of_before_does_not_count_for_the_next(clock: Clock, unbounded: None) -> None:
    pace = Pace(0.0)
    pace.hurry()
    pace.begin()
    clock.now += 600
    resting = asyncio.create_task(pace.rest())
    await asyncio.sleep(0.05)
    assert not resting.done()
    resting.cancel()
