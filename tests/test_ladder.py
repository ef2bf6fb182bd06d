"""Levels: the difference between two books, and their exact text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.decimals import format_mantissa
from tapewick.ladder import EMPTY, Levels, changes, decimal_texts, side_json

SIDE = st.dictionaries(st.integers(1, 30), st.integers(1, 9), max_size=12)


def levels(bids: dict[int, int], asks: dict[int, int]) -> Levels:
    best_bids, best_asks = sorted(bids.items(), reverse=True), sorted(asks.items())
    columns = [[level[k] for level in side] for side in (best_bids, best_asks) for k in (0, 1)]
    return Levels(*(np.array(column, np.int64) for column in columns))


def applied(own: dict[int, int], price: np.ndarray, size: np.ndarray) -> dict[int, int]:  # type: ignore[type-arg]
    changed = {**own, **dict(zip(price.tolist(), size.tolist(), strict=True))}
    return {p: q for p, q in changed.items() if q}


@given(SIDE, SIDE, SIDE, SIDE)
def test_a_difference_turns_one_book_into_the_other(
    a: dict[int, int], b: dict[int, int], c: dict[int, int], d: dict[int, int]
) -> None:
    difference = changes(levels(a, b), levels(c, d))
    assert applied(a, difference.bid_price, difference.bid_size) == c
    assert applied(b, difference.ask_price, difference.ask_size) == d
    assert len(difference.bid_price) == len({p for p in {*a, *c} if a.get(p) != c.get(p)}), "and says nothing else"
    assert bool(difference) == ((a, b) != (c, d))


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), max_size=20), st.integers(-2, 18))
def test_texts_are_those_of_every_other_number(mantissas: list[int], scale: int) -> None:
    assert decimal_texts(mantissas, scale) == [format_mantissa(mantissa, scale) for mantissa in mantissas]
    positive = [abs(mantissa) for mantissa in mantissas]
    assert decimal_texts(positive, scale) == [format_mantissa(mantissa, scale) for mantissa in positive]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_side_is_pairs_of_texts(count: int) -> None:
    price = np.arange(count, dtype=np.int64) + 12345
    assert json.loads(side_json(price, price * 10, 2, 4)) == [
        [format_mantissa(p, 2), format_mantissa(p * 10, 4)] for p in price.tolist()
    ]
    assert not EMPTY and not EMPTY.top(5)
