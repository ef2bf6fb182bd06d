"""REST rows to columns: exact whatever the venue prints, refused when it is no trade."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.errors import BadPayload
from tapewick.sources._rest_rows import AggregateRow, TradeRow, aggregates, mantissas, trades

MS = 1_767_225_600_000


def row(
    id: int, price: str = "64000.01000000", qty: str = "0.01200000", time: int = MS, maker: bool = True
) -> TradeRow:
    return TradeRow(id=id, price=price, qty=qty, time=time, isBuyerMaker=maker)


def test_raw_rows() -> None:
    rows = trades([row(5), row(7, "63999.50000000", "1.00000000", MS + 3, False)])
    assert rows.first_id.tolist() == rows.last_id.tolist() == [5, 7]
    assert (rows.price.tolist(), rows.price_scale) == ([6_400_001, 6_399_950], 2)
    assert (rows.size.tolist(), rows.size_scale) == ([12, 1000], 3)
    assert rows.time.tolist() == [MS * 1_000_000, (MS + 3) * 1_000_000]
    assert rows.side.tolist() == [-1, 1]


def test_aggregates_stand_for_several_ids_and_microseconds_are_seen() -> None:
    rows = aggregates([AggregateRow(a=1, p="1", q="2", f=5, l=9, T=MS * 1000 + 7, m=False)])
    assert (rows.first_id.tolist(), rows.last_id.tolist()) == ([5], [9])
    assert rows.time.tolist() == [MS * 1_000_000 + 7000]
    assert (rows.price.tolist(), rows.price_scale, rows.size.tolist(), rows.size_scale) == ([1], 0, [2], 0)


@given(
    st.lists(st.decimals(0, 10**9, places=8).map(lambda d: f"{d:.8f}"), min_size=1)
    | st.lists(st.decimals(0, 10**6, places=4, allow_nan=False).map(str), min_size=1)
)
def test_mantissas_are_exact_at_the_least_scale(texts: list[str]) -> None:
    values, scale = mantissas(texts)
    assert [Decimal(int(value)).scaleb(-scale) for value in values] == [Decimal(text) for text in texts]
    assert scale == 0 or any(value % 10 for value in values.tolist())


@pytest.mark.parametrize(
    "bad",
    [
        [row(5), row(5)],
        [row(5), row(4)],
        [row(-1)],
        [row(1, "NaN")],
        [row(1, "")],
        [row(1, "1e400")],
        [row(1, "99999999999999999999.00000001")],
        [row(1, time=0)],
        [row(1, time=2**62)],
        [row(2**80)],
        [row(1, "１.00000000")],
        [row(1, "1.0,0000000")],
        [row(1, "1.00000000,2.00000000")],
    ],
)
def test_what_is_no_trade_refuses_the_page(bad: list[TradeRow]) -> None:
    with pytest.raises(BadPayload):
        trades(bad)
