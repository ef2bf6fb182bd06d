"""When the next value of a channel may be sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tapewick.rhythm import GRACE, Rhythm


def test_the_first_may_go_at_once_and_the_next_a_pace_later() -> None:
    rhythm = Rhythm(0.1)
    assert rhythm.due <= 1000.0
    rhythm.sent(1000.0, waited=False)
    assert rhythm.due == 1000.1
    assert rhythm.due < rhythm.last <= rhythm.due + GRACE


def test_without_a_pace_every_value_is_due() -> None:
    rhythm = Rhythm(0.0)
    for now in (5.0, 5.0, 6.0):
        rhythm.sent(now, waited=True)
        assert rhythm.due == rhythm.last == now


@given(pace=st.floats(0.02, 10), waits=st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_waits_for_newer_values_do_not_add_up(pace: float, waits: list[float]) -> None:
    rhythm = Rhythm(pace)
    rhythm.sent(1000.0, waited=False)
    first = before = rhythm.due
    for part in waits:
        now = rhythm.due + part * (rhythm.last - rhythm.due)
        rhythm.sent(now, waited=True)
        assert rhythm.due - before <= pace * 1.001, "a value within the grace puts off no other"
        assert rhythm.due - now >= pace * 0.799, "nor does the next follow too soon"
        before = rhythm.due
    assert abs(rhythm.due - first - pace * len(waits)) < 0.001 * pace * len(waits)


@given(pace=st.floats(0.02, 1), phases=st.lists(st.floats(0, 0.99), min_size=2, max_size=20), stall=st.floats(0, 100))
def test_channels_that_were_late_together_do_not_stay_in_step(pace: float, phases: list[float], stall: float) -> None:
    rhythms = [Rhythm(pace) for _ in phases]
    for rhythm, phase in zip(rhythms, phases, strict=True):
        rhythm.sent(1000.0 + phase * pace, waited=False)
    now = 1000.0 + 2 * pace + stall
    for rhythm, phase in zip(rhythms, phases, strict=True):
        rhythm.sent(now, waited=True)
        steps = (rhythm.due - 1000.0) / pace - phase
        assert abs(steps - round(steps)) < 1e-3
        assert rhythm.due > now
