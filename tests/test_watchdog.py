"""The data-age watchdog: finds what stopped, keeps quiet about what is merely rare."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from heapq import merge

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.watchdog import FACTOR, FLOOR, PATIENCE, StreamHealth, Watchdog

SECOND = 10**9
MINUTE = 60 * SECOND
START = 1_700_000_000 * SECOND
ROUNDING = 2  # ns


class Bench:
    """Feeds arrivals to a watchdog that is checked once a second, and keeps what it finds.

    ``sparse``: it is checked only right before each arrival, where silence is greatest: enough to
    see every report of a single stream, and cheap over months.
    """

    def __init__(self, *, sparse: bool = False) -> None:
        self._sparse = sparse
        self.dog = Watchdog("venue")
        self.now = START
        self.changes: list[StreamHealth] = []
        self.asked: list[tuple[int, str, str]] = []

    def until(self, ts: int) -> None:
        """Check each second up to ``ts``."""
        while self.now + SECOND <= ts:
            self.now += SECOND
            self.check(self.now)

    def check(self, now: int) -> None:
        found = self.dog.check(now)
        self.changes += found.changes
        self.asked += [(now, *stream) for stream in found.resubscribe]

    def feed(self, arrivals: Iterable[tuple[int, str, str]]) -> None:
        """Arrivals (ts, instrument, channel), ascending."""
        for ts, instrument, channel in arrivals:
            if self._sparse:
                self.check(ts - 1)
            else:
                self.until(ts)
            self.dog.saw(instrument, channel, ts)

    def found(self, state: str, channel: str = "") -> list[StreamHealth]:
        return [each for each in self.changes if each.state == state and each.channel.startswith(channel)]


def regular(channel: str, every: int, start: int, end: int, instrument: str = "v:X") -> Iterator[tuple[int, str, str]]:
    return ((ts, instrument, channel) for ts in range(start, end, every))


def memoryless(
    channel: str, mean: float, start: int, end: int, rng: random.Random, instrument: str = "v:X"
) -> Iterator[tuple[int, str, str]]:
    ts = start + int(rng.expovariate(1 / mean) * SECOND)
    while ts < end:
        yield ts, instrument, channel
        ts += int(rng.expovariate(1 / mean) * SECOND)


@given(every=st.integers(SECOND // 20, 20 * SECOND), jitter=st.floats(0, 0.5), seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_a_regular_stream_that_stops_is_found_within_a_multiple_of_its_own_interval(
    every: int, jitter: float, seed: int
) -> None:
    rng = random.Random(seed)
    bench = Bench()
    stopped = START + max(2 * MINUTE, 50 * every)
    last = START
    arrivals = []
    for ts, instrument, channel in regular("trade", every, START, stopped):
        last = ts + int(rng.random() * jitter * every)
        arrivals.append((last, instrument, channel))
    bench.feed(arrivals)
    assert not bench.found("stale") and not bench.found("late"), "nothing is wrong with it yet"
    longest = (1 + jitter) * every
    deadline = last + max(FLOOR, FACTOR * longest) + SECOND + ROUNDING  # a check comes each second
    bench.until(int(deadline) + SECOND)
    (stale,) = bench.found("stale")
    assert stale.ts <= deadline and stale.age > max(FLOOR / SECOND, FACTOR * 0.5 * every / SECOND)
    assert (stale.source, stale.instrument, stale.channel) == ("venue", "v:X", "trade")
    health = stale.health()
    assert (health.state, health.instrument) == ("stale", "v:X") and "no data for" in health.detail


@pytest.mark.parametrize("mean", [0.05, 2.0, 60.0, 900.0, 7200.0])
def test_a_rare_or_irregular_instrument_is_not_reported(mean: float) -> None:
    """Memoryless arrivals: after n gaps at most 24/n⁴ false reports per gap, 0.05 in 200 streams all their life."""
    reports = 0
    for seed in range(200):
        bench = Bench(sparse=True)
        length = max(400 * mean, 150.0)
        bench.feed(memoryless("trade", mean, START, START + int(length * SECOND), random.Random(seed)))
        reports += len(bench.found("stale"))
        assert bench.found("fresh"), "it has learned"
    assert reports <= 2


def test_trades_that_stop_while_quotes_move_are_found_and_quotes_are_not_blamed() -> None:
    rng = random.Random(1)
    bench = Bench()
    end, stop = START + 30 * MINUTE, START + 20 * MINUTE
    trades = memoryless("trade", 1.0, START, stop, rng)
    quotes = memoryless("quote", 0.2, START, end, rng)
    bench.feed(merge(trades, quotes))
    (stale,) = bench.found("stale")
    assert stale.channel == "trade"
    assert stale.ts - stop < MINUTE
    assert bench.asked[0] == (stale.ts, "v:X", "trade")


def test_a_market_that_slows_down_as_a_whole_is_late_not_stale() -> None:
    """Trades and quotes become ten times rarer together: by its siblings' pace nothing is missing."""
    bench = Bench()
    change, end = START + 30 * MINUTE, START + 34 * MINUTE
    fast = merge(regular("trade", SECOND, START, change), regular("quote", SECOND // 5, START + 7, change))
    slow = merge(regular("trade", 10 * SECOND, change, end), regular("quote", 2 * SECOND, change + 7, end))
    bench.feed([*fast, *slow])
    assert bench.found("late", "trade") and not bench.found("stale")


def test_a_stream_that_is_late_becomes_stale_when_it_stays_away() -> None:
    """Its siblings deliver too little to prove anything, so the time alone decides, more patiently."""
    bench = Bench()
    stop, end = START + 30 * MINUTE, START + 60 * MINUTE
    trades = regular("trade", 10 * SECOND, START, stop)
    quotes = regular("quote", 60 * SECOND, START + 7, end)
    bench.feed(merge(trades, quotes))
    (late,), (stale,) = bench.found("late", "trade"), bench.found("stale")
    assert late.ts - stop <= (FACTOR * 10 + 1) * SECOND
    assert late.ts < stale.ts <= stop + (PATIENCE * FACTOR * 10 + 1) * SECOND
    assert late.health().state == "connected" and "late" in late.health().detail


def test_everything_silent_together_is_reported_at_once() -> None:
    bench = Bench()
    stop = START + 5 * MINUTE
    bench.feed(merge(regular("trade", SECOND, START, stop), regular("quote", SECOND, START + 7, stop)))
    bench.until(stop + 10 * SECOND)
    assert {each.channel for each in bench.found("stale")} == {"trade", "quote"}


@given(silence=st.integers(60, 20_000))
@settings(max_examples=25)
def test_recovery_is_reported_and_asking_anew_is_bounded(silence: int) -> None:
    bench = Bench()
    stop = START + 5 * MINUTE
    bench.feed(regular("trade", SECOND, START, stop))
    back = stop + silence * SECOND
    bench.until(back)
    assert len(bench.found("stale")) == 1
    times = [ts for ts, *_ in bench.asked]
    assert times[0] == bench.found("stale")[0].ts
    gaps = [(after - before) // SECOND for before, after in zip(times, times[1:], strict=False)]
    assert gaps == [min(3600, 30 * 2**number) for number in range(len(gaps))]
    bench.feed(regular("trade", SECOND, back, back + 5 * MINUTE))
    assert [each.state for each in bench.changes] == ["fresh", "stale", "fresh"]
    recovered = bench.changes[-1]
    assert recovered.ts <= back + 2 * SECOND and recovered.health().state == "connected"
    bench.until(back + 6 * MINUTE)
    assert len(bench.found("stale")) == 2, "the outage did not become what is usual"


def test_a_batch_that_was_queued_when_its_stream_was_called_stale_counts_as_recovery() -> None:
    bench = Bench()
    stop = START + 5 * MINUTE
    bench.feed(regular("trade", SECOND, START, stop))
    bench.until(stop + 10 * SECOND)
    assert len(bench.found("stale")) == 1
    bench.dog.saw("v:X", "trade", bench.now - SECOND)
    bench.until(bench.now + SECOND)
    assert bench.changes[-1].state == "fresh"


@given(growth=st.integers(2, 200))
@settings(max_examples=25)
def test_an_instrument_that_becomes_rarer_for_good_is_reported_a_few_times_only(growth: int) -> None:
    bench = Bench(sparse=True)
    change = START + 60 * MINUTE
    bench.feed(regular("trade", 5 * SECOND, START, change))
    bench.feed(regular("trade", 5 * growth * SECOND, change, change + 60 * 5 * growth * SECOND))
    assert len(bench.found("stale")) <= 1 + growth.bit_length()


def test_what_was_usual_an_hour_ago_does_not_hide_a_silence_now() -> None:
    bench = Bench()
    busy, stop = START + 60 * MINUTE, START + 100 * MINUTE
    bench.feed(regular("trade", 60 * SECOND, START, busy))
    bench.feed(regular("trade", SECOND, busy, stop))
    bench.until(stop + 10 * SECOND)
    (stale,) = bench.found("stale")
    assert stale.age <= FACTOR + 1 and stale.usual == 1.0


def test_a_lost_connection_is_nobodys_silence() -> None:
    bench = Bench()
    stop, back = START + 5 * MINUTE, START + 65 * MINUTE
    bench.feed(merge(regular("trade", SECOND, START, stop), regular("quote", SECOND, START + 7, stop)))
    bench.dog.linked(False, stop)
    bench.until(back)
    bench.dog.linked(True, back)
    bench.feed(merge(regular("trade", SECOND, back + 7, back + MINUTE), regular("quote", SECOND, back, back + MINUTE)))
    assert not bench.found("stale") and not bench.found("late") and not bench.asked
    bench.until(back + 2 * MINUTE)
    assert len(bench.found("stale")) == 2, "the hour without a connection did not become what is usual"


def test_of_two_connections_only_the_lost_ones_streams_are_excused() -> None:
    bench = Bench()
    stop = START + 5 * MINUTE
    one, two = (regular("trade", SECOND, START, stop, f"v:{name}") for name in "AB")
    bench.feed(merge(one, two))
    bench.dog.linked(False, stop, [("v:A", "trade"), ("v:unknown", "trade")])
    bench.until(stop + MINUTE)
    assert [each.instrument for each in bench.found("stale")] == ["v:B"]


def test_a_subscription_that_never_brought_anything_is_tried_again_but_not_called_stale() -> None:
    bench = Bench()
    bench.dog.expect("v:X", "trade", START)
    bench.dog.expect("v:X", "quote", START)
    end = START + 60 * MINUTE
    bench.feed(regular("quote", SECOND, START, end))
    (late,) = bench.found("late", "trade")
    assert "never brought any" in late.detail and not bench.found("stale")
    assert 1 < len(bench.asked) < 10
    assert {(instrument, channel) for _, instrument, channel in bench.asked} == {("v:X", "trade")}


def test_a_forgotten_stream_is_not_missed_and_its_sibling_is_judged_by_others() -> None:
    bench = Bench()
    mid = START + 20 * MINUTE
    trades = regular("trade", 5 * SECOND, START, mid)
    quotes = regular("quote", SECOND, START + 7, mid)
    bench.feed(merge(trades, quotes, regular("trade", 10 * SECOND, START + 9, mid, "v:Y")))
    bench.dog.forget("v:X", "quote")
    bench.dog.forget("v:X", "unknown")
    bench.feed(regular("trade", 10 * SECOND, mid, mid + 30 * SECOND, "v:Y"))
    bench.until(mid + 30 * SECOND)
    (late,) = bench.found("late")
    assert (late.instrument, late.channel) == ("v:X", "trade"), "too little of the other instrument came to prove more"
    assert not bench.found("stale")
    assert {(each.instrument, each.channel) for each in bench.dog.streams(mid)} == {("v:X", "trade"), ("v:Y", "trade")}


def test_a_thousand_silent_streams_are_asked_for_in_portions() -> None:
    bench = Bench()
    names = [f"v:{number}" for number in range(200)]
    for ts in range(START, START + 3 * MINUTE, SECOND):
        bench.feed((ts, name, "trade") for name in names)
    stop = bench.now
    bench.until(stop + 10 * SECOND)
    assert len(bench.found("stale")) == 200
    per_check = [sum(ts == at for ts, *_ in bench.asked) for at in range(stop, bench.now + 1, SECOND)]
    assert max(per_check) == 50 and sum(per_check) == 200


@given(st.lists(st.tuples(st.integers(-5, 100), st.sampled_from("ab"), st.sampled_from("tq"), st.integers(0, 4))))
def test_any_order_of_calls_is_survived(calls: list[tuple[int, str, str, int]]) -> None:
    """Times that go back, unknown streams, links that come twice: never an error, ages never negative by much."""
    dog = Watchdog("venue")
    now = START
    for step, instrument, channel, kind in calls:
        now += step * SECOND
        if kind == 0:
            dog.forget(instrument, channel)
        elif kind == 1:
            dog.linked(step % 2 == 0, now)
        elif kind == 2:
            dog.expect(instrument, channel, now)
        else:
            dog.saw(instrument, channel, now)
        found = dog.check(now)
        assert {each.state for each in dog.streams(now)} <= {"learning", "fresh", "late", "stale"}
        assert len(set(found.resubscribe)) == len(found.resubscribe)
