"""What is a repetition and what comes late: the numbers of one sender."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tapewick.buses._numbers import HOLES, Numbers

SOME = st.lists(st.integers(1, 40), max_size=120)


@given(SOME)
def test_each_number_is_new_once(order: list[int]) -> None:
    numbers, seen = Numbers(), set[int]()
    for number in order:
        missing = numbers.take(number)
        assert (missing is None) == (number in seen)
        highest = max(seen, default=0)
        assert missing is None or missing == max(0, number - highest - 1), "only a jump tells that others are missing"
        seen.add(number)


@given(SOME)
def test_what_came_late_leaves_no_trace(order: list[int]) -> None:
    numbers = Numbers()
    for number in [*order, *range(1, 41)]:
        numbers.take(number)
    assert numbers.take(41) == 0 and not numbers._holes
    assert all(numbers.take(number) is None for number in range(1, 42))


def test_of_too_many_holes_the_oldest_are_forgotten_and_nothing_is_taken_for_a_repetition() -> None:
    numbers, total = Numbers(), 4 * HOLES
    for number in range(2, total + 1, 2):
        assert numbers.take(number) == 1
    assert len(numbers._holes) == HOLES
    assert all(numbers.take(number) == 0 for number in range(1, total, 2)), "each came for the first time"
    assert numbers.take(total) is None and not numbers._holes


def test_who_does_not_count_repeats_nothing() -> None:
    numbers = Numbers()
    assert [numbers.take(0) for _ in range(3)] == [0, 0, 0]


def test_a_hole_in_the_middle_of_many_is_split() -> None:
    numbers = Numbers()
    assert numbers.take(1000) == 999
    assert [numbers.take(number) for number in (500, 500, 1, 999, 2)] == [0, None, 0, 0, 0]
    assert numbers._holes == [(3, 499), (501, 998)]
