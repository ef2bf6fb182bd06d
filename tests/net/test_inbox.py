"""The inbox between socket readers and their consumer."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tapewick.net.inbox import FREE, Inbox, Thrift, Wakeup


def wakeup(feed: object, count: int, recv: int, size: int = 100) -> Wakeup:
    return Wakeup(feed, [b"%d" % recv] * count, recv, size)


async def test_wakeups_of_one_feed_are_joined_with_a_time_per_frame() -> None:
    inbox: Inbox[str] = Inbox()
    feed = object()
    for recv in (5, 6, 9):
        inbox.offer(wakeup(feed, 2, recv))
    item = await inbox.get()
    assert isinstance(item, Wakeup)
    assert item.frames == [b"5", b"5", b"6", b"6", b"9", b"9"]
    assert np.asarray(item.recv).tolist() == [5, 5, 6, 6, 9, 9]
    assert inbox.size == 0


async def test_joining_stops_at_so_many_frames_at_other_feeds_and_at_control_items() -> None:
    inbox: Inbox[str] = Inbox(max_frames=256)
    one, two = object(), object()
    for feed, count in ((one, 200), (one, 56), (one, 1), (two, 1)):
        inbox.offer(wakeup(feed, count, 1))
    inbox.put("tick")
    inbox.offer(wakeup(two, 1, 2))
    sizes = []
    for _ in range(5):
        item = await inbox.get()
        sizes.append(len(item.frames) if isinstance(item, Wakeup) else item)
    assert sizes == [256, 1, 1, "tick", 1]


async def test_one_large_wakeup_stays_whole() -> None:
    inbox: Inbox[str] = Inbox(max_bytes=10)
    assert inbox.offer(wakeup(object(), 400, 1, size=1000)), "an empty inbox takes any one wake-up"
    item = await inbox.get()
    assert isinstance(item, Wakeup) and len(item.frames) == 400


async def test_at_the_bound_whole_wakeups_are_dropped_and_counted() -> None:
    inbox: Inbox[str] = Inbox(max_bytes=250)
    feed = object()
    assert [inbox.offer(wakeup(feed, 3, recv)) for recv in (1, 2, 3)] == [True, True, False]
    inbox.put("still heard")
    assert (inbox.dropped_wakeups, inbox.dropped_frames) == (1, 3)
    first = await inbox.get()
    assert isinstance(first, Wakeup) and len(first.frames) == 6
    assert await inbox.get() == "still heard"
    assert inbox.offer(wakeup(feed, 3, 4))


async def test_a_producers_failure_is_raised_after_what_it_left() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.put("last")
    inbox.fail(ValueError("broken"))
    assert await inbox.get() == "last"
    with pytest.raises(ValueError, match="broken"):
        await inbox.get()


async def test_a_waiting_consumer_is_woken() -> None:
    inbox: Inbox[str] = Inbox()
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put("now")
    assert await waiting == "now"


async def rested(thrift: Thrift) -> float:
    """Seconds of the loop's clock that a rest takes."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await thrift.rest()
    return loop.time() - started


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by which batches are counted."""
    made = [1000.0]
    monkeypatch.setattr("tapewick.net.inbox.time", type("Time", (), {"monotonic": lambda: made[0]}))
    return made


async def test_a_consumer_that_makes_few_batches_never_rests(now: list[float]) -> None:
    thrift = Thrift(rate=100, most=0.05)
    for batches in [*[FREE] * 50, *[FREE + 1] * 50]:
        thrift.spend(batches)
        now[0] += 0.01 * (batches - FREE)
        turn = asyncio.get_running_loop().create_task(thrift.rest())
        await asyncio.sleep(0)
        assert turn.done(), "it rested though it kept the rate"


async def test_one_that_makes_many_rests_no_longer_than_allowed(now: list[float]) -> None:
    thrift = Thrift(rate=100, most=0.05)
    for _ in range(3):
        thrift.spend(1000)
    assert await rested(thrift) >= 0.04
    now[0] += 0.05  # and what was too many is not held against it for ever
    turn = asyncio.get_running_loop().create_task(thrift.rest())
    await asyncio.sleep(0)
    assert turn.done()
