"""Bucket boundaries against calendar arithmetic that shares no code with them."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.errors import UnknownTimeframe
from tapewick.timeframe import BY_INDEX, BY_NAME, NAMES, SECOND, STORED, TREE, bucket, bucket_end, buckets, parse

TIMES = st.integers(1_230_768_000 * SECOND, 4_102_444_800 * SECOND - 1)  # 2009 … 2100


def day(text: str) -> int:
    return int(dt.datetime.fromisoformat(text + "+00:00").timestamp()) * SECOND


def test_eighteen_names_of_which_seventeen_are_stored() -> None:
    expected = "1s 1m 3m 5m 15m 30m 45m 1h 2h 3h 4h 6h 8h 12h 1d 3d 1w 1M".split()
    assert list(NAMES) == expected
    assert [tf.name for tf in STORED] == expected[1:]
    assert [tf.index for tf in BY_INDEX] == list(range(18))


@pytest.mark.parametrize(
    ("name", "t", "opens"),
    [
        ("1w", "2025-11-20T13:00", "2025-11-17"),  # a Monday
        ("1w", "2025-11-17", "2025-11-17"),
        ("1M", "2024-02-29T23:59:59", "2024-02-01"),
        ("1M", "2023-12-31T23:59:59", "2023-12-01"),
        ("3d", "1970-01-04T23:00", "1970-01-02"),
        ("3d", "2025-11-20", "2025-11-18"),
        ("45m", "2024-03-01T23:59", "2024-03-01T23:15"),
        ("45m", "2024-03-02T00:44", "2024-03-02"),
        ("1d", "2024-12-31T23:59:59", "2024-12-31"),
    ],
)
def test_known_buckets(name: str, t: str, opens: str) -> None:
    assert bucket(BY_NAME[name], day(t)) == day(opens)


@given(TIMES, st.sampled_from(BY_INDEX))
def test_a_bucket_holds_its_time_and_meets_the_next(t: int, tf: object) -> None:
    assert isinstance(tf, type(BY_INDEX[0]))
    opens = bucket(tf, t)
    end = bucket_end(tf, opens)
    assert opens <= t < end
    assert bucket(tf, end) == end
    assert bucket(tf, end - 1) == opens
    assert end - opens <= tf.length
    assert buckets(tf, np.array([t])).tolist() == [opens]


@given(TIMES)
def test_weeks_start_on_monday_and_months_on_the_first(t: int) -> None:
    week = dt.datetime.fromtimestamp(bucket(BY_NAME["1w"], t) // SECOND, dt.UTC)
    month = dt.datetime.fromtimestamp(bucket(BY_NAME["1M"], t) // SECOND, dt.UTC)
    assert (week.weekday(), week.hour, week.minute, week.second) == (0, 0, 0, 0)
    assert (month.day, month.hour, month.minute, month.second) == (1, 0, 0, 0)


@given(TIMES)
def test_every_edge_of_the_tree_nests(t: int) -> None:
    for child, parent in TREE:
        opens = bucket(BY_INDEX[child], t)
        last = bucket_end(BY_INDEX[child], opens) - 1
        assert bucket(BY_INDEX[parent], opens) == bucket(BY_INDEX[parent], last)


def test_the_tree_reaches_every_stored_frame_once_children_first() -> None:
    reached = [1]
    for child, parent in TREE:
        assert child in reached
        reached.append(parent)
    assert sorted(reached) == [tf.index for tf in STORED]


@pytest.mark.parametrize(
    ("alias", "name"),
    [("1", "1m"), ("45", "45m"), ("4H", "4h"), ("D", "1d"), ("1W", "1w"), ("M", "1M"), ("1mo", "1M"), ("1S", "1s"),
     ("1 hour", "1h"), ("ohlc1m", "1m"), ("720", "12h"), ("3D", "3d")],
)  # fmt: skip
def test_aliases(alias: str, name: str) -> None:
    assert parse(alias) is BY_NAME[name]


@pytest.mark.parametrize("text", ["", "2m", "1Min", "7d", "1mM", "10", " 1m", "1m\n", "1y"])
def test_unknown_names_are_refused_with_the_list(text: str) -> None:
    with pytest.raises(UnknownTimeframe, match="1s 1m 3m"):
        parse(text)
