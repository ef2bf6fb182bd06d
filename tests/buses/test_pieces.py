"""Cutting large messages: all rows once, in order, and no id is vouched for before its trade."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tapewick.buses._pieces import pieces
from tapewick.model import CandleBatch, TradeBatch
from tests.buses.rig import candles, head, trades

RANGES = st.lists(st.integers(0, 600), max_size=6, unique=True).map(sorted)


@given(st.integers(0, 300), st.integers(61, 4000), st.none() | RANGES, st.integers(1, 9))
def test_trades_in_pieces_are_the_trades(rows: int, limit: int, bounds: list[int] | None, clock: int) -> None:
    pairs = None if bounds is None else tuple(zip(bounds[::2], bounds[1::2], strict=False))
    whole = trades(100, rows, covers=pairs, clock=clock)
    parts = list(pieces(whole, limit))
    assert all(isinstance(part, TradeBatch) for part in parts)
    batches = [part for part in parts if isinstance(part, TradeBatch)]
    assert sum((part.trade_id.tolist() for part in batches), []) == whole.trade_id.tolist()
    assert [part.clock for part in batches] == [0] * (len(batches) - 1) + [clock]
    if pairs is None:
        assert all(part.covers is None for part in batches)
        return
    ids = [set().union(*(range(low, high + 1) for low, high in part.covers or ())) for part in batches]
    assert set().union(*ids) == set().union(*(range(low, high + 1) for low, high in pairs))
    for part, after in zip(batches, ids[1:], strict=False):
        assert not after or min(after) > int(part.trade_id[-1])
    for part, own in zip(batches[:-1], ids, strict=False):
        assert not own or max(own) <= int(part.trade_id[-1])


@given(st.integers(0, 200), st.integers(192, 5000))
def test_candles_in_pieces_are_the_candles(rows: int, limit: int) -> None:
    whole = candles(rows)
    parts = [part for part in pieces(whole, limit) if isinstance(part, CandleBatch)]
    assert sum((part.rows["pos"].tolist() for part in parts), []) == whole.rows["pos"].tolist()
    assert all(part.pos == whole.pos for part in parts)


def test_what_is_small_or_no_batch_stays_as_it_is() -> None:
    for message in (head(1), trades(1, 5), candles(3)):
        assert next(pieces(message)) is message


def test_trades_out_of_order_whose_ids_are_vouched_for_stay_whole() -> None:
    whole = trades(1, 200, covers=((1, 200),))
    whole.trade_id = whole.trade_id[::-1].copy()
    assert list(pieces(whole, 500)) == [whole]
