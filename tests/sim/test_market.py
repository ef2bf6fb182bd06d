"""The invented market: a function of its seed, with every trade of any time at hand."""

from __future__ import annotations

import numpy as np
import pytest

from tapewick.decimals import scale_of
from tapewick.sim.market import LISTING, Market

ORIGIN = 1_767_225_600_000


def market(symbol: str = "BTCUSDT", *, seed: int = 1, rate: float = 20.0) -> Market:
    return Market(LISTING[symbol], seed=seed, rate=rate, origin=ORIGIN)


def test_the_same_seed_gives_the_same_trades_in_any_order_of_asking() -> None:
    forward, backward = market(), market()
    late = backward.trades(900_000, 900_050)
    assert forward.trades(1, 5000) == backward.trades(1, 5000)
    assert forward.trades(900_000, 900_050) == late
    assert market(seed=2).trades(1, 50) != forward.trades(1, 50)
    assert [t.price for t in market("ETHUSDT").trades(1, 50)] != [t.price for t in forward.trades(1, 50)]


@pytest.mark.parametrize("rate", [0.01, 0.3, 20.0, 900.0, 50_000.0])
def test_ids_are_contiguous_and_times_never_go_back(rate: float) -> None:
    made = market(rate=rate)
    per_block = made.block_trades
    found = made.trades(1, 3 * per_block + 1)
    assert [trade.id for trade in found] == list(range(1, 3 * per_block + 2))
    times = [trade.time for trade in found]
    assert times == sorted(times) and times[0] >= ORIGIN
    if rate > 0.1:
        assert 0.5 < len(found) / ((times[-1] - ORIGIN) / 1000) / rate < 2.0


def test_questions_by_time_agree_with_a_scan() -> None:
    made = market(rate=5.0)
    found = made.trades(1, 9_000)
    for at in (ORIGIN - 5, ORIGIN, found[10].time, found[10].time + 1, found[4321].time):
        before = [trade.id for trade in found if trade.time < at]
        assert made.last_id(at) == (before[-1] if before else 0)
        assert made.first_id_at(at) == len(before) + 1
    assert made.time_of(4322) == found[4321].time


def test_aggregates_are_contiguous_and_hold_one_price_time_and_side() -> None:
    made = market()
    found = made.trades(1, 5000)
    by_agg: dict[int, list[int]] = {}
    for trade in found:
        by_agg.setdefault(trade.agg_id, []).append(trade.id)
        assert trade.agg_first <= trade.id <= trade.agg_last
    assert list(by_agg) == list(range(1, len(by_agg) + 1))
    for agg, ids in list(by_agg.items())[:-1]:
        rows = made.trades(ids[0], ids[-1])
        assert {(t.agg_first, t.agg_last) for t in rows} == {(ids[0], ids[-1])}
        assert len({(t.price, t.time, t.buyer_is_maker) for t in rows}) == 1
        assert made.trade_of_agg(agg) == ids[0]
    assert any(len(ids) > 1 for ids in by_agg.values())


@pytest.mark.parametrize("symbol", sorted(LISTING))
def test_prices_and_sizes_lie_on_the_grid_and_stay_sane(symbol: str) -> None:
    made = market(symbol)
    for start in (1, 5_000_000):
        for trade in made.trades(start, start + 500):
            assert scale_of(trade.price) <= made.listing.price_scale
            assert scale_of(trade.size) <= made.listing.size_scale
            assert made.listing.price / 3 < float(trade.price) < made.listing.price * 3
            assert float(trade.size) > 0


def test_the_price_moves() -> None:
    prices = np.array([float(trade.price) for trade in market().trades(1, 20 * 3600)])
    assert prices.max() / prices.min() > 1.001
    assert np.abs(np.diff(prices)).max() / prices[0] < 0.01
