"""What becomes of the holes of a tape: attempts, progress, giving up, asking for more."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tapewick.engine._gaps import Gaps
from tapewick.model import NO_END, NO_TIME, Gap

HOLED = [[10, 19, 100, 190], [30, 39, 300, 390], [50, 59, 500, 590]]
WHOLE = [[10, 59, 100, 590]]


def gap(left: int, right: int, **more: object) -> Gap:
    fields = {"instrument": "sim:X", "left_id": left, "right_id": right, "left_ts": 0, "right_ts": 0} | more
    return Gap(**fields)  # type: ignore[arg-type]


@pytest.fixture
def gaps() -> Gaps:
    """Two holes, told once."""
    made = Gaps("sim:X", (), [], attempts=3)
    made.update(HOLED, "stream")
    made.take()
    return made


def states(gaps: Gaps) -> list[tuple[int, int, str, int]]:
    return [(g.left_id, g.right_id, g.state, g.attempts) for g in gaps.take()]


def test_all_holes_are_wanted_oldest_first_with_the_time_before_each(gaps: Gaps) -> None:
    wanted = gaps.wanted()
    assert wanted is not None
    assert wanted.ranges == ((20, 29), (40, 49)) and wanted.since == (190, 390)
    assert gaps.states == {"open": 2} and not gaps.pending


def test_a_report_changes_the_gaps_it_touches_and_only_those(gaps: Gaps) -> None:
    gaps.report(gap(21, 25, state="repairing"))
    assert gaps.pending
    assert states(gaps) == [(19, 30, "repairing", 0)]
    gaps.report(gap(30, 39))  # ids 31 to 38: nothing is missing there
    gaps.report(gap(19, 20))  # no id at all
    assert states(gaps) == []


def test_failures_in_a_row_end_in_giving_up_and_are_no_longer_wanted(gaps: Gaps) -> None:
    for attempt in (1, 2, 3):
        gaps.report(gap(19, 30, state="repairing"))
        gaps.report(gap(19, 30))
        assert states(gaps) == [(19, 30, "unrepairable" if attempt == 3 else "open", attempt)]
    wanted = gaps.wanted()
    assert wanted is not None and wanted.ranges == ((40, 49),)
    gaps.report(gap(19, 30, state="repairing"))
    assert states(gaps) == []  # it stays given up
    assert gaps.states == {"open": 1, "unrepairable": 1}


def test_progress_resets_the_attempts_and_keeps_reason_and_work(gaps: Gaps) -> None:
    gaps.report(gap(19, 30))
    gaps.report(gap(19, 30, state="repairing"))
    gaps.take()
    gaps.update([[10, 24, 100, 240], *HOLED[1:]], "reconnect")
    closed, rest = gaps.take()
    assert (closed.left_id, closed.right_id, closed.state) == (19, 30, "closed")
    assert (rest.left_id, rest.right_id, rest.state, rest.attempts) == (24, 30, "repairing", 0)
    assert rest.reason == "stream" and rest.left_ts == 240


def test_what_is_filled_is_closed_and_nothing_is_wanted(gaps: Gaps) -> None:
    gaps.update(WHOLE, "stream")
    assert {g.state for g in gaps.take()} == {"closed"}
    assert gaps.wanted() is None and len(gaps) == 0


@pytest.mark.parametrize("state", ["repairing", "unrepairable"])
def test_a_restart_gives_new_attempts(state: str) -> None:
    known = [gap(19, 30, state=state, attempts=9, reason="reconnect"), gap(39, 50, state="closed")]
    gaps = Gaps("sim:X", known, HOLED, attempts=3)
    assert states(gaps) == [(19, 30, "open", 0)]
    wanted = gaps.wanted()
    assert wanted is not None and wanted.ranges == ((20, 29),)


def test_only_what_was_given_up_gets_new_attempts_when_the_venue_is_back(gaps: Gaps) -> None:
    for _ in range(3):
        gaps.report(gap(19, 30))
    gaps.report(gap(39, 50))
    gaps.take()
    gaps.retry(given_up=True)
    assert states(gaps) == [(19, 30, "open", 0)]


def test_ids_below_the_tape_are_a_gap_until_they_are_there(gaps: Gaps) -> None:
    gaps.ask(5, 12, 50, HOLED)
    (asked,) = gaps.take()
    assert (asked.left_id, asked.right_id, asked.left_ts, asked.right_ts) == (4, 10, 50, 100)
    assert asked.reason == "backfill" and asked.state == "open"
    gaps.update(HOLED, "stream")
    assert states(gaps) == []  # still wanted
    gaps.update([[5, 6, 60, 65], *HOLED], "stream")
    assert states(gaps) == [(4, 10, "closed", 0), (6, 10, "open", 0)]
    gaps.update([[5, 19, 60, 190], *HOLED[1:]], "stream")
    assert states(gaps) == [(6, 10, "closed", 0)]


def test_what_was_asked_for_below_the_tape_survives_a_restart() -> None:
    known = [gap(4, 10, reason="backfill", left_ts=50)]
    gaps = Gaps("sim:X", known, HOLED[:1], attempts=3)
    assert states(gaps) == []
    gaps.update(HOLED[:1], "stream")
    wanted = gaps.wanted()
    assert wanted is not None and wanted.ranges == ((5, 9),) and wanted.since == (50,)


def test_an_empty_tape_can_be_asked_for_a_range() -> None:
    gaps = Gaps("sim:X", (), [], attempts=3)
    gaps.ask(5, 9, NO_TIME, [])
    assert states(gaps) == [(4, 10, "open", 0)]
    again = Gaps("sim:X", [gap(4, 10)], [], attempts=3)
    again.update([[5, 7, 50, 70]], "stream")
    assert {(g.left_id, g.right_id, g.state) for g in again.take()} == {(4, 10, "closed"), (7, 10, "open")}
    again.update([[5, 9, 50, 90]], "stream")
    assert states(again) == [(7, 10, "closed", 0)]


def test_a_gap_above_all_that_is_covered_has_no_end_and_one_below_no_beginning() -> None:
    gaps = Gaps("sim:X", (), [], attempts=3)
    gaps.ask(5, 9, NO_TIME, [])
    gaps.update([[6, 7, 60_000_000, 70_000_000]], "stream")
    below, above = (one for one in gaps.take() if one.state == "open")
    assert (below.left_id, below.left_ts, below.right_ts) == (4, NO_TIME, 60_000_000)
    assert (above.left_id, above.left_ts, above.right_ts) == (7, 70_000_000, NO_END)
    assert (below.times_ms, above.times_ms) == ((None, 60), (70, None))


def test_asking_for_ids_in_a_hole_takes_back_that_it_was_given_up_and_no_other(gaps: Gaps) -> None:
    for hole in (gap(19, 30), gap(39, 50)):
        for _ in range(3):
            gaps.report(hole)
    gaps.take()
    gaps.ask(25, 25, NO_TIME, HOLED)
    assert states(gaps) == [(19, 30, "open", 0)]
    gaps.ask(12, 15, NO_TIME, HOLED)
    assert states(gaps) == []


def test_asking_for_what_is_there_wants_nothing(gaps: Gaps) -> None:
    gaps.update(WHOLE, "stream")
    gaps.take()
    gaps.ask(12, 40, NO_TIME, WHOLE)
    assert not gaps.pending and gaps.wanted() is None


def test_equal_gaps_are_not_told_again(gaps: Gaps) -> None:
    gaps.report(replace(gap(19, 30), state="repairing"))
    gaps.report(replace(gap(19, 30), state="repairing"))
    assert len(gaps.take()) == 1
