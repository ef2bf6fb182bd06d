"""Clocks that are moved by hand and by recordings."""

from __future__ import annotations

import asyncio
import time

import pytest

from tapewick.clock import ManualClock, RealClock, RecordedClock
from tapewick.timeframe import SECOND


async def test_sleepers_wake_in_time_order() -> None:
    clock, woken = ManualClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(s)) for s in (3, 1, 2)]
    await asyncio.sleep(0)
    clock.advance(0.5)
    await asyncio.sleep(0)
    assert woken == []
    clock.advance(2)
    await asyncio.sleep(0)
    assert woken == [1, 2]
    clock.advance(60)
    await asyncio.gather(*tasks)
    assert woken == [1, 2, 3]


@pytest.mark.parametrize("seconds", [0, 0.0, -1])
async def test_no_sleep_at_all_is_a_turn_for_others(seconds: float) -> None:
    clock, turns = ManualClock(100), []
    other = asyncio.create_task(asyncio.sleep(0))
    other.add_done_callback(lambda _: turns.append(1))
    async with asyncio.timeout(60):
        while not turns:
            await clock.sleep(seconds)
    assert clock.now() == 100


def test_a_manual_clock_never_goes_back() -> None:
    clock = ManualClock(100)
    clock.set(50)
    assert clock.now() == 100


async def test_a_recording_at_full_speed_never_waits() -> None:
    clock = RecordedClock()
    await clock.reach(10**18)
    await clock.reach(10**18 + 86_400 * SECOND)
    assert clock.now() == 10**18 + 86_400 * SECOND


async def test_a_paced_recording_takes_its_time() -> None:
    clock = RecordedClock(speed=100.0)
    await clock.reach(10**18)
    started = time.monotonic()
    await clock.reach(10**18 + 5 * SECOND)
    assert time.monotonic() - started >= 0.045


def test_the_real_clock_is_the_systems() -> None:
    before = time.time_ns()
    assert before <= RealClock().now() <= time.time_ns()
