"""The native levels against the readable ones, and books against the venue's truth, on random operations."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.engine import _book_reference, book
from tapewick.model import BookUpdate

from .books import T, frame, group, plain, sides, snapshot, sync, use

_native = pytest.importorskip("tapewick.engine._native", reason="the native engine is not built")

prices = st.one_of(st.integers(1, 40), st.integers(1, 2**62))
levels = st.lists(st.tuples(prices, st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 2**62))), max_size=30)
operations = st.one_of(
    st.tuples(st.sampled_from(["put", "put", "put", "load"]), levels, levels),
    st.tuples(st.just("rescale"), st.integers(1, 10), st.integers(1, 10)),
    st.tuples(st.just("clear")),
)


def columns(pairs: list[tuple[int, int]]) -> tuple[Any, Any]:
    return np.array([p for p, _ in pairs], np.int64), np.array([s for _, s in pairs], np.int64)


@given(steps=st.lists(operations, max_size=12), n=st.integers(0, 5))
def test_native_levels_equal_the_reference(steps: list[Any], n: int) -> None:
    ours, theirs = _native.Levels(), _book_reference.Levels()
    for name, *args in steps:
        if name in ("put", "load"):
            args = [column for side in args for column in columns(side)]
        answer = getattr(theirs, name)(*args)
        assert getattr(ours, name)(*args) == answer
        if answer is False:
            return  # void after a value that did not fit
        assert (len(ours), ours.best(), ours.crossed()) == (len(theirs), theirs.best(), theirs.crossed())
        for depth in (0, n):
            assert [c.tobytes() for c in ours.levels(depth)] == [c.tobytes() for c in theirs.levels(depth)]


@pytest.mark.parametrize("width", [30, 400, 20_000])
def test_levels_that_come_and_go(width: int) -> None:
    """Many small changes around a wandering middle, most of them removals after a while."""
    rng = np.random.default_rng(width)
    ours, theirs = _native.Levels(), _book_reference.Levels()
    for step in range(600):
        middle = 100_000 + 50 * (step % 40)
        prices = middle + rng.integers(-width, width, 40)
        sizes = rng.integers(1, 9, 40) * (rng.random(40) < 0.6 - step / 1_200)
        bids = prices < middle
        args = prices[bids], sizes[bids], prices[~bids], sizes[~bids]
        ours.put(*args)
        theirs.put(*args)
        assert (len(ours), ours.best()) == (len(theirs), theirs.best())
        if step % 20 == 0:
            for depth in (0, 7):
                assert [c.tobytes() for c in ours.levels(depth)] == [c.tobytes() for c in theirs.levels(depth)]


@pytest.mark.parametrize("levels", [_native.Levels, _book_reference.Levels])
def test_bad_arguments(levels: Any) -> None:
    one, two = np.ones(1, np.int64), np.ones(2, np.int64)
    for call in (levels().put, levels().load):
        with pytest.raises(ValueError, match="same length"):
            call(one, two, one, one)
    with pytest.raises(ValueError, match="at least 1"):
        levels().rescale(0, 1)


@pytest.mark.parametrize("levels", [_native.Levels, _book_reference.Levels])
def test_too_many_levels(levels: Any) -> None:
    own = levels()
    many = group(frame(1, 1, {i: 1 for i in range(1, 100_001)}), frame(2, 2, {100_001: 1}))
    applied, stop, reason, dropped = own.follow(many, 0, 0, False, False, T)
    assert ([a[1] for a in applied], stop, reason, dropped) == ([1], 1, "overgrown", 0)


sizes = st.integers(0, 5)
changes = st.dictionaries(st.integers(1, 60), sizes, max_size=6)


@st.composite
def chains(draw: Any) -> list[dict[str, Any]]:
    """Frames that mostly follow each other, by both rules."""
    frames, id = [], draw(st.integers(1, 20))
    for _ in range(draw(st.integers(1, 12))):
        jump = draw(st.sampled_from([0] * 12 + [1, -2, -30]))
        first = max(id + 1 + jump, 0)
        last = first + draw(st.integers(0, 3))
        bids = {60 - p: s for p, s in draw(changes).items()}
        asks = {60 + p: s for p, s in draw(changes).items()}
        if draw(st.integers(0, 19)) == 19:
            bids[80] = 1
        ts = T + last * 1_000_000 + draw(st.sampled_from([0] * 12 + [10**10]))
        frames.append(frame(first, last, bids, asks, prev=max(first - 1, -1), ts=ts))
        id = last
    return frames


@st.composite
def scripts(draw: Any) -> list[Any]:
    """What happens to a book: groups of frames, snapshots, lost links."""
    steps: list[Any] = []
    waiting = deque(draw(chains()))
    while waiting:
        count = draw(st.integers(1, 4))
        taken = [waiting.popleft() for _ in range(min(count, len(waiting)))]
        scale = draw(st.sampled_from([2, 2, 2, 2, 1, 3]))
        steps.append(("depth", group(*taken, price_scale=scale)))
        choice = draw(st.integers(0, 9))
        if choice >= 5:
            last = taken[draw(st.integers(0, len(taken) - 1))]["last"] - draw(st.integers(0, 2))
            steps.append(("snapshot", snapshot(max(last, 0), {59: 1, 55: 2}, {61 + (choice == 9) * -2: 1}), T))
        elif choice == 0:
            steps.append(("lost", "gone"))
    return steps


@settings(max_examples=300)
@given(steps=scripts(), rule=st.sampled_from(["spot", "futures"]))
def test_machines_and_readers_agree(steps: list[Any], rule: str) -> None:
    """Both engines say the same; a reader's book is the machine's after every step; none is ever crossed."""
    said: list[list[Any]] = []
    for engine in ("native", "reference"):
        with pytest.MonkeyPatch.context() as patch:
            use(engine, patch)
            said.append(run(steps, rule))
    assert said[0] == said[1]


def run(steps: list[Any], rule: str) -> list[Any]:
    machine, reader = sync(rule, buffer_bytes=2_000), book.L2()
    said: list[Any] = []
    before = 0
    for name, *args in steps:
        state = machine.state
        updates: list[BookUpdate] = getattr(machine, name)(*args)
        for update in updates:
            assert (update.prev_seq, update.seq) == (before, before + 1)
            before = update.seq
            assert reader.apply(update)
            best = reader.best()
            assert best is None or best[0] < best[2]
            assert update.snapshot or update.state == "live" or update.state != state or update.seq == 1
            state = update.state
        assert state == machine.state == (reader.state if before else "syncing")
        assert sides(machine.levels()) == sides(reader.levels())
        assert machine.best() == reader.best()
        assert not (machine.wants_snapshot and machine.state == "live")
        said.append(([plain(u) for u in updates], machine.state, machine.wants_snapshot, dict(machine.counters)))
    return said


@settings(max_examples=200)
@given(data=st.data(), rule=st.sampled_from(["spot", "futures"]))
def test_whatever_is_lost_a_live_book_is_the_venue_s(data: Any, rule: str) -> None:
    """Frames of a true book, some lost, snapshots of any age: a live book always equals the truth at its id."""
    truth: dict[int, tuple[dict[int, int], dict[int, int]]] = {0: ({59: 1}, {61: 1})}
    machine, id = sync(rule), 0
    for _ in range(data.draw(st.integers(1, 25))):
        bids, asks = (dict(side) for side in truth[id])
        changed_bids = {60 - p: s for p, s in data.draw(changes).items() if p < 60}
        changed_asks = {60 + p: s for p, s in data.draw(changes).items()}
        bids.update(changed_bids)
        asks.update(changed_asks)
        last = id + data.draw(st.integers(1, 3))
        kept = ({p: s for p, s in bids.items() if s}, {p: s for p, s in asks.items() if s})
        for between in range(id + 1, last):
            truth[between] = kept  # the venue tells only where a frame ends
        truth[last] = kept
        if data.draw(st.integers(0, 7)):
            machine.depth(group(frame(id + 1, last, changed_bids, changed_asks, prev=id)))
        id = last
        if machine.wants_snapshot and data.draw(st.booleans()):
            at = max(id - data.draw(st.integers(0, 6)), 0)
            machine.snapshot(snapshot(at, *truth[at]), T)
        if machine.state == "live":
            own = sides(machine.levels())
            assert (dict(own[0]), dict(own[1])) == truth[machine.last_id]
