"""Aggregates on a raw tape: whatever was known before, nothing is counted twice and nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.engine import _remainder
from tapewick.engine.tape import Engine
from tapewick.model import Candles, Instrument, TapeState, TradeBatch
from tapewick.timeframe import SECOND

OWN = Instrument(id="sim:X", venue="sim", symbol="X", price_scale=2, size_scale=3)
T0 = 1_723_161_240 * SECOND
SUMS = ("volume_lo", "quote_volume_lo", "taker_buy_volume_lo", "taker_buy_quote_volume_lo", "trades")


def batch(rows: list[tuple[int, int, int, int, int, int]], **more: Any) -> TradeBatch:
    """Rows of (first id, last id, ns, price, size, side)."""
    columns = np.array(rows, np.int64).reshape(-1, 6).T.copy()
    fields: dict[str, Any] = {
        "instrument": OWN.id, "trade_id": columns[1], "first_id": columns[0],
        "count": (columns[1] - columns[0] + 1).astype(np.int32), "ts_event": columns[2], "ts_recv": columns[2],
        "price": columns[3], "size": columns[4], "side": columns[5].astype(np.int8),
        "price_scale": 2, "size_scale": 3,
    }  # fmt: skip
    return TradeBatch(**(fields | more))


@st.composite
def orders(draw: st.DrawFn) -> list[list[tuple[int, int, int, int, int, int]]]:
    """Orders, each of which filled several trades at one price and time."""
    found, id = [], 1
    for n, fills in enumerate(draw(st.lists(st.lists(st.integers(1, 10**6), min_size=1, max_size=5), min_size=1))):
        price, side = draw(st.integers(1, 10**6)), draw(st.sampled_from((-1, 1)))
        found.append([(id + i, id + i, T0 + n * 9 * SECOND, price, size, side) for i, size in enumerate(fills)])
        id += len(fills)
    return found


def engine() -> Engine:
    made = Engine()
    made.add([TapeState(instrument=OWN, number=1, epoch="E", owner=1)])
    return made


def rows_of(made: Engine) -> Candles:
    (group,) = made.take()
    return np.sort(group.rows, order=["tf", "open_time"])


@settings(max_examples=150, deadline=None)
@given(orders(), st.data())
def test_any_known_part_and_its_aggregates_give_the_sums_of_all_trades(
    market: list[list[tuple[int, int, int, int, int, int]]], data: st.DataObject
) -> None:
    raw = [trade for order in market for trade in order]
    known_ids = data.draw(st.sets(st.sampled_from([trade[0] for trade in raw])))
    known = batch([trade for trade in raw if trade[0] in known_ids])
    whole = batch([
        (order[0][0], order[-1][0], order[0][2], order[0][3], sum(trade[4] for trade in order), order[0][5])
        for order in market
    ])  # fmt: skip
    truth, made = engine(), engine()
    truth.ingest(batch(raw), T0 * 2)
    if known_ids:
        made.ingest(known, T0 * 2)
    tape = made.tapes[OWN.id]
    filled = whole
    ranges = tape.ranges
    for part in _remainder.known_in_part(whole, ranges).tolist():
        filled = _remainder.trimmed(filled, part, ranges, known)
    filled = _remainder.without_empty(filled)
    filled.covers = ((1, raw[-1][0]),)
    made.ingest(filled, T0 * 2)
    wanted, got = rows_of(truth), rows_of(made)
    for name in ("open_time", "tf", "open", "high", "low", "close", *SUMS, "first_ts", "last_ts"):
        assert wanted[name].tolist() == got[name].tolist(), name
    assert tape.ranges[:, :2].tolist() == [[1, raw[-1][0]]]


def test_the_record_is_keyed_by_its_highest_missing_id() -> None:
    made = engine()
    made.ingest(batch([(n, n, T0, 100, 10, 1) for n in (1, 2, 12, 15)]), T0 * 2)
    whole = batch([(10, 15, T0, 100, 75, 1)])
    ranges = made.tapes[OWN.id].ranges
    assert _remainder.known_in_part(whole, ranges).tolist() == [0]
    known = batch([(12, 12, T0, 100, 10, 1), (15, 15, T0, 100, 10, 1), (16, 16, T0, 100, 99, 1)])
    part = _remainder.trimmed(whole, 0, ranges, known)
    assert (part.trade_id.tolist(), part.first_id.tolist(), part.count.tolist()) == ([14], [10], [4])
    assert part.size.tolist() == [55]
    assert whole.size.tolist() == [75]  # what came in is not touched


def test_a_part_that_leaves_nothing_is_no_record() -> None:
    ranges = np.array([[1, 11, 0, 0]], np.int64)
    known = batch([(10, 10, T0, 100, 40, 1), (11, 11, T0, 100, 35, 1)])
    part = _remainder.trimmed(batch([(10, 12, T0, 100, 75, 1)], covers=((10, 12),)), 0, ranges, known)
    left = _remainder.without_empty(part)
    assert len(left) == 0 and left.covers == ((10, 12),)


def test_a_part_may_need_more_digits_than_the_whole() -> None:
    ranges = np.array([[1, 10, 0, 0]], np.int64)
    wide = _remainder.widened(batch([(10, 11, T0, 100, 2, 1)], size_scale=0), 3)
    part = _remainder.trimmed(wide, 0, ranges, batch([(10, 10, T0, 100, 999, 1)]))
    assert part.size.tolist() == [1001] and part.size_scale == 3


def test_wholly_known_and_wholly_missing_aggregates_are_left_alone() -> None:
    ranges = np.array([[1, 10, 0, 0], [20, 29, 0, 0]], np.int64)
    rows = [(n, n + 2, T0, 1, 1, 1) for n in (2, 8, 9, 12, 15, 18, 20, 27, 28, 31)]
    assert _remainder.known_in_part(batch(rows), ranges).tolist() == [2, 5, 8]
    assert not len(_remainder.known_in_part(batch(rows), np.empty((0, 4), np.int64)))


@pytest.mark.parametrize(
    "known",
    [
        [(8, 10, T0, 100, 30, 1), (11, 11, T0, 100, 10, 1)],  # one of them reaches beyond the whole
        [(10, 10, T0, 100, 10, 1)],  # the store has let go of the other
        [(10, 10, T0, 100, 10, 1), (11, 11, T0, 100, 66, 1)],  # more than the whole
    ],
)
def test_what_cannot_be_told_is_left_for_the_tape_to_refuse(known: list[tuple[int, int, int, int, int, int]]) -> None:
    made = engine()
    made.ingest(batch([(n, n, T0, 100, 10, 1) for n in (8, 9, 10, 11)]), T0 * 2)
    whole = batch([(10, 15, T0, 100, 75, 1)], covers=((12, 15),))
    ranges = made.tapes[OWN.id].ranges
    left = _remainder.without_empty(_remainder.trimmed(whole, 0, ranges, batch(known)))
    assert (left.first_id.tolist(), left.trade_id.tolist(), left.size.tolist()) == ([10], [15], [75])
    assert made.ingest(left, T0 * 2) == 0 and made.rejects["partial"] == 1
    assert made.tapes[OWN.id].ranges[:, :2].tolist() == [[8, 11]], "what was refused is vouched for by nobody"
