"""The venue's bars against a plain fold of its trades."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tapewick.sim.bars import INTERVALS, Bar, Bars, Grid
from tapewick.sim.market import LISTING, Market, SimTrade

ORIGIN = 1_767_225_600_000 + 90_000_123
HOUR = 3_600_000


def folded(trades: list[SimTrade], start: int, end: int, close: str) -> dict[str, object]:
    inside = [trade for trade in trades if start <= trade.time < end]
    prices = [Fraction(trade.price) for trade in inside] or [Fraction(close)]
    return {
        "prices": (prices[0], max(prices), min(prices), prices[-1]),
        "volume": sum((Fraction(t.size) for t in inside), Fraction(0)),
        "quote": sum((Fraction(t.size) * Fraction(t.price) for t in inside), Fraction(0)),
        "taker": sum((Fraction(t.size) for t in inside if not t.buyer_is_maker), Fraction(0)),
        "taker_quote": sum((Fraction(t.size) * Fraction(t.price) for t in inside if not t.buyer_is_maker), Fraction(0)),
        "ids": (inside[0].id, inside[-1].id, len(inside)) if inside else (-1, -1, 0),
    }


def told(market: Market, bar: Bar) -> dict[str, object]:
    price, size = 10**market.listing.price_scale, 10**market.listing.size_scale
    return {
        "prices": tuple(Fraction(value, price) for value in (bar.open, bar.high, bar.low, bar.close)),
        "volume": Fraction(bar.volume, size),
        "quote": Fraction(bar.quote, price * size),
        "taker": Fraction(bar.taker, size),
        "taker_quote": Fraction(bar.taker_quote, price * size),
        "ids": (bar.first_id, bar.last_id, bar.trades),
    }


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("zone", ["0", "-05:30"])
def test_every_interval_is_the_fold_of_its_trades(interval: str, zone: str) -> None:
    market = Market(LISTING["ETHBTC"], seed=5, rate=0.01, origin=ORIGIN)
    now = ORIGIN + 30 * HOUR + 12_345
    trades = market.trades(1, market.last_id(now))
    market.voids.add(trades[len(trades) // 2].id)
    trades = [trade for trade in trades if trade.id not in market.voids]
    bars, grid = Bars(market), Grid.of(interval, zone)
    assert grid is not None
    spans = bars.page(grid, now, start=ORIGIN + HOUR if interval == "1s" else 0, end=None, limit=300)
    assert spans and all(after[0] == before[1] for before, after in zip(spans, spans[1:], strict=False))
    close = trades[0].price
    for start, end in spans:
        before = [trade for trade in trades if trade.time < start]
        close = before[-1].price if before else close
        assert told(market, bars.bar(start, end, now)) == folded(trades, start, end, close)


def test_a_bar_asked_for_again_later_has_grown() -> None:
    market = Market(LISTING["BTCUSDT"], seed=5, rate=5.0, origin=ORIGIN)
    bars, start = Bars(market), ORIGIN - ORIGIN % HOUR
    for now in (ORIGIN + 61_000, ORIGIN + 61_500, ORIGIN + HOUR, ORIGIN + HOUR + 70_000):
        assert bars.bar(start, start + 2 * HOUR, now).last_id == market.last_id(now)


def test_pages_by_start_end_and_neither() -> None:
    market = Market(LISTING["BTCUSDT"], seed=5, rate=1.0, origin=ORIGIN)
    bars, grid = Bars(market), Grid.of("1m")
    assert grid is not None
    now = ORIGIN + 2 * HOUR
    first = bars.first(now)
    assert first is not None
    everything = bars.page(grid, now, start=0, end=None, limit=1000)
    assert everything[0][0] == first - first % 60_000 and everything[-1][0] == grid.open(now - 1)
    assert bars.page(grid, now, start=0, end=None, limit=1) == everything[:1]
    assert bars.page(grid, now, start=None, end=None, limit=3) == everything[-3:]
    at = everything[50][0]
    assert bars.page(grid, now, start=None, end=at, limit=3) == everything[48:51]
    assert bars.page(grid, now, start=at + 1, end=at + 130_000, limit=9) == everything[51:53]
    assert bars.page(grid, now, start=now, end=None, limit=9) == []
    assert bars.page(grid, now, start=None, end=ORIGIN - 1, limit=9) == []
    assert bars.page(grid, ORIGIN, start=0, end=None, limit=9) == []


@pytest.mark.parametrize("zone", ["0", "8", "-12:00", "14:00", "+05:45", "-1"])
def test_zones_the_venue_knows(zone: str) -> None:
    assert Grid.of("1d", zone) is not None
    assert Grid.of("45m", zone) is None and Grid.of("3h", zone) is None


@pytest.mark.parametrize("zone", ["15", "x", "", "-12:30", "8:60"])
def test_zones_it_does_not_know(zone: str) -> None:
    assert Grid.of("1d", zone) is None


def test_a_day_begins_at_midnight_of_its_zone() -> None:
    grid = Grid.of("1d", "8")
    assert grid is not None
    assert grid.open(ORIGIN) % 86_400_000 == 16 * HOUR
