"""Comparing bars, and the background verifier against the simulated venue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick import metrics
from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock, RealClock
from tapewick.market import Market
from tapewick.model import NO_TIME, Gap, Instrument, TapeState, Wanted
from tapewick.net.venue_client import VenueClient
from tapewick.sim.venue import SimVenue
from tapewick.sources.venue_klines import FIELDS, Bar, VenueKlines, exact, shown
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import parse
from tapewick.verify import Folded, Own, Report, Verifier, compare, klines, missing_ids, own_bars
from tests.commands.tapes import fill

MINUTE = 60 * 10**9
ONE = Bar(5, 9, 2, 7, 100, 600, 3, 50, 300)
EMPTY = Bar(7, 7, 7, 7, 0, 0, 0, 0, 0)


def own(bar: Bar = ONE, *, open: bool = False, complete: bool | None = True, imported: bool = False) -> Own:
    return Own(bar, open, complete, imported)


def report(*, strict: bool = False) -> Report:
    return Report(parse("1m"), 0, 10 * MINUTE, strict=strict)


# What equality means.


@given(st.decimals(min_value=0, max_value=10**15, allow_nan=False, allow_infinity=False, places=8))
def test_decimal_text_is_exact_however_it_is_written(value: object) -> None:
    text = f"{value:f}"
    assert exact(text) == exact(text.rstrip("0").rstrip(".") or "0") == exact(f"{text}000")
    assert exact(text) == int(text.replace(".", "")) * 10**30


def test_fields_are_shown_as_people_write_them() -> None:
    bar = Bar(*(exact("61685.9900") for _ in FIELDS))._replace(trades=12)
    assert (shown(bar, "open"), shown(bar, "trades")) == ("61685.99", "12")


@pytest.mark.parametrize("field", FIELDS)
def test_any_field_counts(field: str) -> None:
    other = ONE._replace(**{field: getattr(ONE, field) + 1})
    found = compare(report(), {0: own()}, {0: other})
    assert (found.compared, found.equal, found.differing, found.mismatches) == (1, 0, 1, 1)
    assert [(each.open_time, each.field, each.of) for each in found.differences] == [(0, field, "candle")]


def test_only_fields_that_mean_the_same_are_compared() -> None:
    other = ONE._replace(quote_volume=1)
    fields = [name for name in FIELDS if "quote" not in name]
    assert compare(report(), {0: own()}, {0: other}, fields=fields).equal == 1


def test_an_empty_bucket_is_the_same_in_any_shape() -> None:
    found = compare(report(), {2 * MINUTE: own(EMPTY)}, {MINUTE: EMPTY, 2 * MINUTE: EMPTY, 3 * MINUTE: EMPTY})
    assert (found.equal, found.mismatches, found.missing_here, found.missing_there) == (3, 0, 0, 0)


def test_bars_one_side_lacks() -> None:
    found = compare(report(), {0: own(), MINUTE: own()}, {0: ONE, MINUTE: EMPTY, 2 * MINUTE: ONE})
    assert (found.equal, found.missing_there, found.missing_here, found.mismatches) == (1, 1, 1, 2)
    assert [(each.open_time, each.field, each.ours, each.venue) for each in found.differences] == [
        (MINUTE, "bar", "3 trades", ""),
        (2 * MINUTE, "bar", "", "3 trades"),
    ]


def test_open_bars_and_others_windows_are_left_out() -> None:
    found = compare(report(), {0: own(open=True), 10 * MINUTE: own()}, {0: EMPTY, 10 * MINUTE: EMPTY})
    assert (found.compared, found.mismatches) == (0, 0)


@pytest.mark.parametrize("strict", [False, True])
def test_unproven_bars_fail_only_if_asked_for(strict: bool) -> None:
    ours = {0: own(complete=False), MINUTE: own(complete=None)}
    found = compare(report(strict=strict), ours, {0: ONE, MINUTE: ONE})
    assert (found.incomplete, found.unproven) == (1, [0])
    assert (found.compared, found.mismatches) == ((2, 1) if strict else (1, 0))


def test_trades_behind_a_right_candle_are_compared_too() -> None:
    less = ONE._replace(trades=2, volume=90)
    found = compare(report(), {0: own(), MINUTE: own(imported=True)}, {0: ONE, MINUTE: ONE}, {0: less})
    assert [(each.field, each.of, each.ours, each.venue) for each in found.differences] == [
        ("volume", "trades", shown(less, "volume"), shown(ONE, "volume")),
        ("trades", "trades", "2", "3"),
    ]
    assert (found.equal, found.differing) == (1, 1)
    assert compare(report(), {0: own()}, {0: ONE}, {}).differing == 1  # all of them gone


@given(st.lists(st.tuples(st.integers(0, 599), st.integers(1, 9)), min_size=1, max_size=60, unique_by=lambda p: p[0]))
def test_seconds_add_up_to_any_frame(seconds: list[tuple[int, int]]) -> None:
    given_seconds = {
        second * 10**9: own(Bar(price, price + 1, price - 1, price, 10, price, 1, 5, price))
        for second, price in sorted(seconds)
    }
    folded = Folded([parse("1m"), parse("5m")])
    half = len(given_seconds) // 2
    folded.add(dict(list(given_seconds.items())[:half]))
    folded.add(dict(list(given_seconds.items())[half:]))
    for tf in (parse("1m"), parse("5m")):
        bars = folded.bars(tf)
        assert sum(bar.trades for bar in bars.values()) == len(seconds)
        for open_time, bar in bars.items():
            inside = [each.bar for t, each in given_seconds.items() if open_time <= t < open_time + tf.length]
            assert (bar.open, bar.close) == (inside[0].open, inside[-1].close)
            assert (bar.high, bar.low) == (max(b.high for b in inside), min(b.low for b in inside))
            assert bar.volume == sum(b.volume for b in inside)


def test_our_rows_are_read_as_printed() -> None:
    row = (
        b'[{"open_time":60000,"open":"1.5","high":"2","low":"1","close":"1.25","volume":"3","quote_volume":"4.5",'
        b'"trades":2,"taker_buy_volume":"1","taker_buy_quote_volume":"1.5","state":"closed","complete":true,'
        b'"origin":"import","pos":7}]'
    )
    ((open_time, found),) = own_bars(row).items()
    assert (open_time, found.open, found.complete, found.imported) == (MINUTE, False, True, True)
    assert shown(found.bar, "quote_volume") == "4.5"


# What to ask for.


def state(*ranges: tuple[int, int, int, int], gaps: tuple[Gap, ...] = ()) -> TapeState:
    import numpy as np

    instrument = Instrument(id="sim:X", venue="sim", symbol="X")
    columns = np.array(ranges, np.int64).reshape(-1, 4)
    return TapeState(instrument=instrument, number=1, epoch="E", owner=1, ranges=columns, gaps=gaps)


def test_only_ids_missing_around_the_bar_are_wanted() -> None:
    tape = state((1, 10, 0, 50), (15, 20, 70, 200), (30, 40, 300, 400))
    assert missing_ids(tape, 60, 120) == Wanted(instrument="sim:X", ranges=((11, 14),), since=(50,))
    assert missing_ids(tape, 100, 150) is None  # between two trades of one range: all its ids are there
    assert missing_ids(tape, 0, 1000) == Wanted(instrument="sim:X", ranges=((11, 14), (21, 29)), since=(50, 200))
    given_up = Gap(instrument="sim:X", left_id=10, right_id=15, left_ts=50, right_ts=70, state="unrepairable")
    assert missing_ids(state((1, 10, 0, 50), (15, 20, 70, 200), gaps=(given_up,)), 60, 120) is None


# The verifier.


@pytest.fixture
async def venue() -> AsyncIterator[SimVenue]:
    async with SimVenue(["BTCUSDT"], seed=11, rate=2, catch_up=70) as venue:
        yield venue


async def rounds(folder: Path, venue: SimVenue) -> tuple[list[Report], list[Wanted], Verifier]:
    """One round of a verifier over a folder."""
    wanted: list[Wanted] = []
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(DuckDBStore(folder))
        bus = await stack.enter_async_context(MemoryBus())
        market = await stack.enter_async_context(Market(bus, store, RealClock()))
        source = await stack.enter_async_context(VenueKlines(VenueClient([venue.rest_url])))
        verifier = Verifier(market, {"sim": source}, clock=ManualClock(), interval=3600, want=wanted.append)
        return await verifier.check_all(), wanted, verifier


def counted(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, {"instrument": "sim:BTCUSDT", "tf": "1m"}) or 0.0


async def test_a_whole_tape_is_reported_equal(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    before = counted("tapewick_verify_mismatches_total"), counted("tapewick_verify_compared_total")
    reports, wanted, verifier = await rounds(tmp_path / "d", venue)
    minutes = next(each for each in reports if each.tf.name == "1m")
    assert minutes.compared >= 50
    assert not wanted
    assert verifier.trouble is None
    assert sum(each.mismatches for each in reports) == 0
    assert counted("tapewick_verify_mismatches_total") == before[0]
    assert counted("tapewick_verify_compared_total") == before[1] + minutes.compared
    assert counted("tapewick_verify_equal_ratio") == 1.0


async def test_ids_behind_an_unproven_minute_are_wanted(tmp_path: Path, venue: SimVenue) -> None:
    count = await fill(tmp_path / "d", venue, lost=range(4000, 4004))
    assert count > 4004
    _, wanted, _ = await rounds(tmp_path / "d", venue)
    assert {each.ranges for each in wanted} == {((4000, 4003),)}
    assert all(each.since[0] != NO_TIME for each in wanted)


async def test_a_wrong_candle_whose_ids_are_whole_is_only_reported(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    with duckdb.connect(str(tmp_path / "d" / "tape.duckdb")) as connection:
        connection.execute(
            "UPDATE candles SET close = close + 1 WHERE tf = 1 AND open_time = "
            "(SELECT open_time FROM candles WHERE tf = 1 ORDER BY open_time LIMIT 1 OFFSET 30)"
        )
    before = counted("tapewick_verify_mismatches_total")
    reports, wanted, _ = await rounds(tmp_path / "d", venue)
    assert [each.field for one in reports for each in one.differences] == ["close"]
    assert not wanted
    assert counted("tapewick_verify_mismatches_total") == before + 1


async def test_a_silent_venue_is_no_end(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    venue.refuse(451)
    reports, _, verifier = await rounds(tmp_path / "d", venue)
    assert reports == []
    assert "451" in (verifier.trouble or "")


async def test_the_next_round_begins_where_the_last_ended(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(DuckDBStore(tmp_path / "d"))
        bus = await stack.enter_async_context(MemoryBus())
        market = await stack.enter_async_context(Market(bus, store, RealClock()))
        source = await stack.enter_async_context(VenueKlines(VenueClient([venue.rest_url])))
        verifier = Verifier(market, {"sim": source}, clock=ManualClock(), interval=3600, timeframes=("1m",))
        first = await verifier.check("sim:BTCUSDT")
        assert first[0].end - first[0].start >= 55 * MINUTE
        assert await verifier.check("sim:BTCUSDT") == []  # the tape stands still


def test_venues_without_klines_are_refused() -> None:
    from tapewick.errors import ConfigError

    with pytest.raises(ConfigError, match="--rest-url"):
        klines("kraken")
    assert "quote_volume" not in klines("binance-coinm").fields
