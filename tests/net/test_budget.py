"""The weight budget of a host: never over it, the important first, orders to wait obeyed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.clock import ManualClock
from tapewick.errors import VenueRefused
from tapewick.net.budget import HostBudget, Priority, budget_for

pytestmark = pytest.mark.timeout(60)

START = 60 * 10**9 * 28_333_333  # the first ns of a minute
BOOK, REPAIR, BACKFILL, VERIFY = Priority


async def turns() -> None:
    """Let everything run that can run without the clock."""
    for _ in range(20):
        await asyncio.sleep(0)


def asked(budget: HostBudget, clock: ManualClock, weight: int, priority: Priority = BOOK) -> asyncio.Task[int]:
    return asyncio.create_task(budget.take(weight, priority, clock, patience=90.0))


async def given_up(*tasks: asyncio.Task[int]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_does_not_fit_waits_for_the_next_minute() -> None:
    clock = ManualClock(START + 10 * 10**9)
    budget = HostBudget("h", limit=100, share=0.5)
    assert await budget.take(40, BOOK, clock, patience=90.0) == START // (60 * 10**9)
    waiting = asked(budget, clock, 20)
    clock.advance(49.9)
    await turns()
    assert not waiting.done() and budget.used(clock) == 40
    clock.advance(0.1)
    await waiting
    assert budget.used(clock) == 20


async def test_the_more_important_goes_first_and_equals_in_order() -> None:
    clock = ManualClock(START)
    budget = HostBudget("h", limit=100, share=1.0)
    await budget.take(100, BOOK, clock, patience=90.0)
    order: list[str] = []

    async def take(name: str, priority: Priority) -> None:
        await budget.take(60, priority, clock, patience=90.0)
        order.append(name)

    wanting = (("verify", VERIFY), ("repair 1", REPAIR), ("backfill", BACKFILL), ("repair 2", REPAIR), ("book", BOOK))
    tasks = []
    for name, priority in wanting:
        tasks.append(asyncio.create_task(take(name, priority)))
        await turns()
    for count in range(1, 6):
        clock.advance(60)
        await turns()
        assert len(order) == count, "one fits each minute"
    assert order == ["book", "repair 1", "repair 2", "backfill", "verify"]
    await asyncio.gather(*tasks)


async def test_the_less_important_leave_room_for_books() -> None:
    clock = ManualClock(START)
    budget = HostBudget("h", limit=1000, share=1.0)
    tasks = [asked(budget, clock, 10, VERIFY) for _ in range(100)]
    await turns()
    assert budget.used(clock) == 700
    await budget.take(300, BOOK, clock, patience=90.0)
    assert budget.used(clock) == 1000
    await given_up(*tasks)


async def test_one_that_gave_up_does_not_hold_up_the_others() -> None:
    clock = ManualClock(START)
    budget = HostBudget("h", limit=100, share=1.0)
    await budget.take(50, BOOK, clock, patience=90.0)
    large, small = asked(budget, clock, 90, BOOK), asked(budget, clock, 10, REPAIR)
    await turns()
    assert not small.done(), "the larger one is first in line"
    await given_up(large)
    await small


async def test_what_is_heavier_than_the_whole_budget_goes_alone() -> None:
    clock = ManualClock(START)
    budget = HostBudget("h", limit=100, share=0.5)
    await budget.take(250, BACKFILL, clock, patience=90.0)
    waiting = asked(budget, clock, 1)
    await turns()
    assert not waiting.done()
    await given_up(waiting)


async def test_the_venues_own_count_is_believed() -> None:
    clock = ManualClock(START)
    budget = HostBudget("h", limit=6000, share=0.5)
    window = await budget.take(2, BOOK, clock, patience=90.0)
    await budget.take(5, BOOK, clock, patience=90.0)  # still under way
    budget.answered(2, window, clock, 5980)
    assert budget.used(clock) == 5985
    waiting = asked(budget, clock, 20)
    await turns()
    assert not waiting.done(), "others behind this address have used it up"
    clock.advance(60)
    await waiting
    budget.answered(5, window, clock, 5990)
    assert budget.used(clock) == 20, "an answer to last minute's request tells last minute's count"


async def test_an_order_to_wait_holds_for_all_and_ends() -> None:
    clock = ManualClock(START)
    budget = HostBudget("h")
    budget.block(START + 30 * 10**9, 429)
    budget.block(START + 5 * 10**9, 429)
    waiting = [asked(budget, clock, 1, priority) for priority in Priority]
    clock.advance(29.9)
    await turns()
    assert not any(task.done() for task in waiting)
    clock.advance(0.1)
    await asyncio.gather(*waiting)
    budget.block(clock.now() + 3600 * 10**9, 418)
    with pytest.raises(VenueRefused, match=r"HTTP 418.* 3600 s") as refused:
        await budget.take(1, BOOK, clock, patience=90.0)
    assert (refused.value.status, refused.value.retry_after) == (418, 3600.0)


async def test_a_ban_ends_the_waiting_of_those_in_line() -> None:
    clock = ManualClock(START)
    budget = HostBudget("h", limit=10, share=1.0)
    await budget.take(10, BOOK, clock, patience=90.0)
    waiting = [asked(budget, clock, 10, priority) for priority in Priority]
    await turns()
    budget.block(START + 600 * 10**9, 418)
    clock.advance(60)
    await turns()
    assert all(isinstance(task.exception(), VenueRefused) for task in waiting)


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from(list(Priority)), st.floats(0, 45), st.booleans()), max_size=60
    )
)
def test_no_minute_exceeds_the_share(requests: list[tuple[int, Priority, float, bool]]) -> None:
    async def run() -> None:
        clock = ManualClock(START)
        budget = HostBudget("h", limit=200, share=0.5)
        spent: dict[int, int] = {}

        async def take(weight: int, priority: Priority) -> None:
            window = await budget.take(weight, priority, clock, patience=90.0)
            spent[window] = spent.get(window, 0) + weight
            budget.answered(weight, window, clock, None)

        tasks = []
        for weight, priority, pause, cancelled in requests:
            tasks.append(asyncio.create_task(take(weight, priority)))
            await turns()
            clock.advance(pause)
            if cancelled:
                tasks[len(tasks) // 2].cancel()
            await turns()
        for _ in range(len(tasks) + 1):
            clock.advance(60)
            await turns()
        assert all(task.done() for task in tasks), "everybody is served in the end"
        assert max(spent.values(), default=0) <= 100

    asyncio.run(run())


def test_one_budget_per_host_and_process() -> None:
    first = budget_for("h.invalid:1", limit=6000, share=0.5)
    assert budget_for("h.invalid:1", limit=100, share=1.0) is first
    assert budget_for("h.invalid:2", limit=100, share=1.0) is not first
