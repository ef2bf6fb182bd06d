"""The invented book: a function of seed and step that trades, diffs and snapshots agree on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.sim.book import Book, Levels
from tapewick.sim.market import LISTING, Market

ORIGIN = 1_767_225_600_123


def book(symbol: str = "BTCUSDT", *, seed: int = 1, rate: float = 20.0) -> tuple[Market, Book]:
    market = Market(LISTING[symbol], seed=seed, rate=rate, origin=ORIGIN)
    return market, Book(market)


@pytest.mark.parametrize("symbol", sorted(LISTING))
def test_a_book_is_deep_sorted_never_crossed_and_brackets_the_last_price(symbol: str) -> None:
    market, made = book(symbol)
    for step in (-1, 0, 7, 49, 5_000, 123_456):
        bids, asks = made.levels(step)
        assert len(bids) > 200 and len(asks) > 200
        assert list(bids) == sorted(bids, reverse=True) and list(asks) == sorted(asks)
        assert min(*bids, *asks) > 0 and min(*bids.values(), *asks.values()) > 0
        best = made.best(step)
        assert (next(iter(bids.items())), next(iter(asks.items()))) == (best[:2], best[2:])
        assert best.bid < best.ask
        last = market.last_trade(made.time(step))
        if last is not None:
            price = int(last.price.replace(".", ""))
            assert price == (best.bid if last.buyer_is_maker else best.ask)


def test_the_same_seed_gives_the_same_books_in_any_order_of_asking() -> None:
    _, forward = book()
    _, backward = book()
    steps = range(0, 300, 7)
    told = {step: backward.levels(step) for step in reversed(steps)}
    assert all(forward.levels(step) == told[step] for step in steps)
    assert book(seed=2)[1].levels(70) != forward.levels(70)
    assert book("ETHUSDT")[1].last_id(3) != forward.last_id(3) or book("ETHUSDT")[1].best(3) != forward.best(3)


@given(st.integers(-1, 10**9), st.integers(1, 5))
def test_ids_rise_with_every_step_and_lead_back_to_it(step: int, more: int) -> None:
    _, made = book()
    id = made.last_id(step)
    assert made.last_id(step + more) >= id + more
    assert made.step_of(id) == step and made.step_of(made.last_id(step + 1) - 1) == step


@settings(max_examples=25, deadline=None)
@given(st.integers(-1, 100_000), st.lists(st.integers(1, 120), min_size=1, max_size=8))
def test_diffs_of_any_cadence_lead_to_the_same_book(start: int, strides: list[int]) -> None:
    _, made = book()
    held = Levels(dict(made.levels(start).bids), dict(made.levels(start).asks))
    step = start
    for stride in strides:
        changes = made.levels(step + stride).since(made.levels(step))
        for side, changed in zip(held, changes, strict=True):
            for price, size in changed.items():
                if size:
                    side[price] = size
                else:
                    del side[price]
        step += stride
    assert held == made.levels(step)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2000), st.integers(1, 60), st.integers(0, 60))
def test_a_diff_leads_any_book_of_its_span_to_its_end(start: int, length: int, at: int) -> None:
    _, made = book()
    end = start + length
    held, after = made.levels(min(start + at, end)), made.levels(end)
    for before, changed, wanted in zip(held, made.changes(start, end), after, strict=True):
        assert {price: size for price, size in {**before, **changed}.items() if size} == wanted


def test_levels_change_but_not_all_at_once() -> None:
    _, made = book(rate=1.0)
    changes = [made.levels(step + 5).since(made.levels(step)) for step in range(0, 500, 5)]
    assert 5 < sum(len(bids) + len(asks) for bids, asks in changes) / len(changes) < 200
