"""Tapes: scales, gaps, heads and commit groups. The arithmetic itself is tested in test_core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.engine._batches import SMALL
from tapewick.engine.tape import Engine, Tape
from tapewick.model import Change, Gap, Instrument, State, TapeCommit, TapeState, TradeBatch, Wanted
from tapewick.timeframe import SECOND

from .conftest import IMPLEMENTATIONS

BTC = Instrument(id="sim:BTCUSDT", venue="sim", symbol="BTCUSDT", price_scale=2, size_scale=5)
T0 = 1_723_161_240 * SECOND  # 2024-08-08T23:54:00Z
NOW = T0 + 86_400 * SECOND


def batch(
    ids: Sequence[int], *, step: float = 1.0, price: int = 100, covers: object = None, **more: object
) -> TradeBatch:
    """Trades with these ids, one every ``step`` seconds per id, side buy."""
    id = np.array(ids, np.int64)
    n = len(id)
    columns: dict[str, object] = {
        "instrument": BTC.id,
        "trade_id": id,
        "first_id": id,
        "count": np.ones(n, np.int32),
        "ts_event": T0 + (id * int(step * SECOND)),
        "ts_recv": np.zeros(n, np.int64),
        "price": np.full(n, price, np.int64),
        "size": np.full(n, 10, np.int64),
        "side": np.ones(n, np.int8),
        "price_scale": 2,
        "size_scale": 5,
        "covers": covers,
    }
    return TradeBatch(**(columns | more))  # type: ignore[arg-type]


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.add([TapeState(instrument=BTC, number=7, epoch="01J8Z", owner=3)])
    return engine


def commit(engine: Engine) -> TapeCommit:
    (group,) = engine.take()
    return group


def tape(engine: Engine) -> Tape:
    return engine.tapes[BTC.id]


def test_trades_are_numbered_without_holes_across_batches(engine: Engine) -> None:
    assert engine.ingest(batch([1, 2, 3]), NOW) == 3
    assert engine.ingest(batch([2, 3, 4]), NOW) == 1
    group = commit(engine)
    assert [b.seq.tolist() for b in group.trades if b.seq is not None] == [[1, 2, 3, 4]]
    assert {b.epoch for b in group.trades} == {"01J8Z"}
    assert (group.head.seq, group.head.pos, group.expected_pos, group.owner) == (4, 1, 0, 3)
    assert engine.rejects == Counter(duplicate=2)
    assert engine.take() == []


def test_small_batches_of_one_commit_are_joined_unless_only_some_are_late(engine: Engine) -> None:
    engine.ingest(batch([1]), NOW)
    engine.ingest(batch([2]), NOW)
    engine.ingest(batch([7, 8]), NOW)
    engine.ingest(replace(batch([4, 5]), late=True), NOW)
    engine.ingest(batch([9]), NOW)
    engine.ingest(batch(range(10, 10 + SMALL)), NOW)
    group = commit(engine)
    assert [b.trade_id.tolist() for b in group.trades[:3]] == [[1, 2, 7, 8], [4, 5], [9]]
    assert [b.late for b in group.trades] == [False, True, False, False]
    assert len(group.trades[3]) == SMALL
    seqs = [b.seq for b in group.trades if b.seq is not None]
    assert np.concatenate(seqs).tolist() == list(range(1, group.head.seq + 1))


def test_rows_carry_the_stores_number_and_one_pos(engine: Engine) -> None:
    engine.ingest(batch(range(1, 200)), NOW)
    rows = commit(engine).rows
    assert set(rows["number"].tolist()) == {7}
    assert set(rows["pos"].tolist()) == {1}
    assert len(set(rows["tf"].tolist())) == 17
    minutes = rows[rows["tf"] == 1]
    assert minutes["trades"].tolist() == [59, 60, 60, 20]
    assert minutes["state"].tolist() == [State.CLOSED, State.FINAL, State.CLOSED, State.OPEN]
    assert minutes["complete"].tolist() == [0, 1, 1, 0]
    assert minutes["change"].tolist() == [Change.CLOSED, Change.CLOSED, Change.CLOSED, Change.OPEN]


def test_a_hole_becomes_a_gap_and_is_wanted_until_it_closes(engine: Engine) -> None:
    engine.ingest(batch([1, 2, 3, 10, 11]), NOW)
    (gap,) = commit(engine).gaps
    assert (gap.left_id, gap.right_id, gap.state, gap.reason) == (3, 10, "open", "stream")
    assert (gap.left_ts, gap.right_ts) == (T0 + 3 * SECOND, T0 + 10 * SECOND)
    wanted = tape(engine).wanted()
    assert wanted is not None and wanted.ranges == ((4, 9),)

    engine.ingest(batch([6, 7], late=True), NOW)
    changed = commit(engine).gaps
    assert {(g.left_id, g.right_id, g.state) for g in changed} == {(3, 10, "closed"), (3, 6, "open"), (7, 10, "open")}

    engine.ingest(batch([4, 5, 8, 9], late=True), NOW)
    assert {g.state for g in commit(engine).gaps} == {"closed"}
    assert tape(engine).wanted() is None and tape(engine).open_gaps == 0


def test_void_ids_close_a_gap_without_a_trade(engine: Engine) -> None:
    engine.ingest(batch([1, 2, 5, 6]), NOW)
    commit(engine)
    engine.ingest(batch([], covers=((3, 4),)), NOW)
    group = commit(engine)
    assert [g.state for g in group.gaps] == ["closed"]
    assert group.ranges_put[:, :2].tolist() == [[1, 6]] and group.ranges_gone.tolist() == [5]


def test_trades_from_before_a_lost_connection_do_not_explain_the_hole_after_it(engine: Engine) -> None:
    engine.ingest(batch([1, 2, 3]), NOW)
    tape(engine).disconnected()
    commit(engine)  # of what came before
    engine.ingest(batch([10, 11]), NOW)
    assert [g.reason for g in commit(engine).gaps] == ["reconnect"]
    engine.ingest(batch([20]), NOW)
    assert [g.reason for g in commit(engine).gaps] == ["stream"]


def test_a_disconnect_names_itself_as_the_cause(engine: Engine) -> None:
    engine.ingest(batch([1, 2]), NOW)
    commit(engine)
    tape(engine).disconnected()
    engine.ingest(batch([9, 10]), NOW)
    assert [g.reason for g in commit(engine).gaps] == ["reconnect"]


def test_a_restart_names_itself_as_the_cause(engine: Engine) -> None:
    engine.ingest(batch([1, 2]), NOW)
    first = commit(engine)
    again = Engine()
    again.add([
        TapeState(instrument=BTC, number=7, epoch="01J8Z", owner=4, seq=first.head.seq, pos=first.head.pos,
                  watermark=first.head.watermark, ranges=first.ranges_put, rows=first.rows)
    ])  # fmt: skip
    again.ingest(batch([9]), NOW)
    group = commit(again)
    assert [g.reason for g in group.gaps] == ["restart"]
    assert group.head.seq == 3 and group.expected_pos == first.head.pos


def test_ids_asked_for_on_an_empty_tape_are_a_gap_until_they_are_there(engine: Engine) -> None:
    tape(engine).ask(Wanted(instrument=BTC.id, ranges=((5, 9),), since=(T0,)))
    engine.touch(BTC.id)
    assert [(g.left_id, g.right_id, g.reason) for g in commit(engine).gaps] == [(4, 10, "backfill")]
    engine.ingest(batch([5, 6, 7], late=True), NOW)
    assert {(g.left_id, g.right_id, g.state) for g in commit(engine).gaps} == {(4, 10, "closed"), (7, 10, "open")}
    engine.ingest(batch([8, 9], late=True), NOW)
    assert [g.state for g in commit(engine).gaps] == ["closed"] and tape(engine).wanted() is None


def test_what_the_lane_reports_is_committed_though_nothing_else_changed(engine: Engine) -> None:
    engine.ingest(batch([1, 2, 9]), NOW)
    head = commit(engine).head
    tape(engine).gaps.report(Gap(instrument=BTC.id, left_id=2, right_id=9, left_ts=0, right_ts=0))
    engine.touch(BTC.id)
    group = commit(engine)
    assert [(g.attempts, g.state) for g in group.gaps] == [(1, "open")]
    assert group.expected_pos == group.head.pos == head.pos and not len(group.rows)


def test_narrower_batches_are_brought_to_the_tapes_scale(engine: Engine) -> None:
    engine.ingest(batch([1], price=7, price_scale=0, size_scale=5), NOW)
    assert commit(engine).trades[0].price.tolist() == [700]


def test_wider_batches_ask_for_a_rescale(engine: Engine) -> None:
    wide = batch([2], price=123_456, price_scale=4, size_scale=3)
    engine.ingest(batch([1]), NOW)
    commit(engine)
    assert tape(engine).widened(wide) == (4, 5)
    tape(engine).rescale(Instrument(id=BTC.id, venue="sim", symbol="BTCUSDT", price_scale=4, size_scale=5))
    assert tape(engine).widened(wide) is None
    engine.ingest(wide, NOW)
    group = commit(engine)
    minute = group.rows[group.rows["tf"] == 1][0]
    assert (minute["open"], minute["close"]) == (10_000, 123_456)
    assert minute["volume_lo"] == 10 + 1000


def test_numbers_that_do_not_fit_the_scale_are_counted_and_the_rest_goes_on(engine: Engine) -> None:
    huge = np.array([10, 2**62], np.int64)
    assert engine.ingest(batch([1, 2], size=huge, size_scale=0), NOW) == 1
    assert engine.rejects == Counter(overflow=1)


def test_absurd_future_stamps_close_nothing(engine: Engine) -> None:
    engine.ingest(batch([1, 2]), NOW)
    far = batch([3], ts_event=np.array([NOW + 10 * SECOND]))
    assert engine.ingest(far, NOW) == 0
    assert engine.rejects == Counter(bad_time=1)
    assert commit(engine).rows["state"].max() == State.OPEN


def test_the_sources_clock_bounds_times_and_closes_quiet_candles(engine: Engine) -> None:
    engine.ingest(batch([1, 2]), NOW)
    commit(engine)
    assert engine.ingest(TradeBatch.empty(BTC.id, clock=T0 + 61 * SECOND), NOW) == 0
    assert engine.take() == []  # 2 s of lateness are not over
    engine.ingest(TradeBatch.empty(BTC.id, clock=T0 + 63 * SECOND), NOW)
    rows = commit(engine).rows
    assert rows["tf"].tolist() == [1, 3] and set(rows["change"].tolist()) == {Change.CLOSED}  # 23:54 and 23:50
    assert set(rows["complete"].tolist()) == {0}  # no id after the bucket yet: quiet or cut, nobody can tell


def test_unknown_instruments_are_counted(engine: Engine) -> None:
    other = batch([1, 2])
    other.instrument = "sim:NOPE"
    assert engine.ingest(other, NOW) == 0
    assert engine.rejects == Counter(unknown_instrument=2)


def test_open_candles_include_what_is_not_committed(engine: Engine) -> None:
    assert tape(engine).live() is None
    engine.ingest(batch([1, 2]), NOW)
    live = tape(engine).live()
    assert live is not None and live.provisional and live.pos == 0
    assert len(live.rows) == 18 and set(live.rows["pos"].tolist()) == {0}
    assert live.rows[live.rows["tf"] == 1]["trades"].tolist() == [2]


def test_open_candles_name_no_position_before_its_commit(engine: Engine) -> None:
    engine.ingest(batch([1, 2]), NOW)
    group = commit(engine)  # taken, and not yet known to be in the store
    engine.ingest(batch([3]), NOW)
    live = tape(engine).live()
    assert live is not None and set(live.rows["pos"].tolist()) == set(live.rows["last_seq"].tolist()) == {0}
    tape(engine).committed = group.head
    live = tape(engine).live()
    assert live is not None
    stored = live.rows[live.rows["tf"] > 0]
    assert set(stored["pos"].tolist()) == {1} and set(stored["last_seq"].tolist()) == {2}


def test_what_the_store_did_not_have_is_asked_once(engine: Engine) -> None:
    state = TapeState(instrument=BTC, number=7, epoch="E", owner=1)
    state.newest[:] = NOW  # the store has newer rows of every frame
    fresh = Engine()
    fresh.add([state])
    fresh.ingest(batch([1]), NOW)
    ((_, keys, windows),) = fresh.missing()
    assert sorted(keys[:, 0].tolist()) == list(range(1, 18)) and not len(windows)
    assert fresh.missing() == []
    assert len(commit(fresh).rows) == 17


@pytest.fixture(params=["native", "reference"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tapes of a test have this engine."""
    if request.param not in IMPLEMENTATIONS:
        pytest.skip("the native engine was not built here")
    monkeypatch.setattr("tapewick.engine.tape.TapeCore", IMPLEMENTATIONS[request.param])


def total(row: Any, name: str) -> int:
    """A sum of 128 bits."""
    return int(row[f"{name}_hi"]) << 64 | int(row[f"{name}_lo"]) & (2**64 - 1)


def tape_of(instrument: Instrument) -> Engine:
    engine = Engine()
    engine.add([TapeState(instrument=instrument, number=7, epoch="E", owner=3)])
    return engine


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trades"), st.integers(1, 5), st.integers(1, 10**6)),
        st.tuples(st.just("late"), st.integers(1, 5), st.integers(1, 10**6)),
        st.tuples(st.just("commit"), st.just(0), st.just(0)),
        st.tuples(st.just("widen"), st.integers(0, 2), st.integers(0, 2)),
    ),
    max_size=16,
)


def pairs(group: Sequence[TapeCommit]) -> list[tuple[int, int]]:
    """Price and size of each trade; all batches of a commit have the scales of its head."""
    found: list[tuple[int, int]] = []
    for part in group:
        for each in part.trades:
            assert (each.price_scale, each.size_scale) == (part.head.price_scale, part.head.size_scale)
            found += zip(each.price.tolist(), each.size.tolist(), strict=True)
    return found


@pytest.mark.usefixtures("either")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_scales_may_widen_between_any_two_steps(steps: list[tuple[str, int, int]]) -> None:
    """The store rescales what it has when the tape does; it ends with the trades and candles of a tape that had all
    the digits from the start."""
    own, wide = BTC, msgspec.structs.replace(BTC, price_scale=8, size_scale=11)
    made, truth = tape_of(own), tape_of(wide)
    stored: list[tuple[int, int]] = []
    id = 1
    for what, first, second in steps:
        if what == "commit":
            stored += pairs(made.take())
        elif what == "widen":
            price, size = min(first, 8 - own.price_scale), min(second, 11 - own.size_scale)
            own = msgspec.structs.replace(own, price_scale=own.price_scale + price, size_scale=own.size_scale + size)
            stored = [(p * 10**price, s * 10**size) for p, s in stored]
            tape(made).rescale(own)
        else:
            trades = batch(range(id, id + first), step=0.01, size=np.full(first, second), late=what == "late")
            id += first
            made.ingest(replace(trades), NOW)
            truth.ingest(replace(trades), NOW)
    stored += pairs(made.take())
    price, size = 10 ** (8 - own.price_scale), 10 ** (11 - own.size_scale)
    assert [(p * price, s * size) for p, s in stored] == pairs(truth.take())
    live = tape(made).live(), tape(truth).live()
    if live[0] is not None and live[1] is not None:
        got, wanted = (each.rows[each.rows["tf"] == 1][0] for each in live if each is not None)
        assert total(got, "volume") * size == total(wanted, "volume")
        assert total(got, "quote_volume") * price * size == total(wanted, "quote_volume")


@pytest.mark.usefixtures("either")
def test_a_trade_that_waits_and_does_not_fit_wider_scales_stops_them() -> None:
    made = tape_of(BTC)
    made.ingest(batch([1], size=np.array([2**62])), NOW)
    wide = msgspec.structs.replace(BTC, size_scale=8)
    with pytest.raises(OverflowError, match="wider scale"):
        made.tapes[BTC.id].rescale(wide)
    group = commit(made)
    assert (group.trades[0].size.tolist(), group.trades[0].size_scale, group.head.size_scale) == ([2**62], 5, 5)


@pytest.mark.usefixtures("either")
def test_while_scales_are_about_to_widen_what_does_not_fit_them_is_counted_out() -> None:
    made = tape_of(BTC)
    tape(made).expect((2, 8))
    made.ingest(batch([1, 2, 3], size=np.array([10, 2**62, 10]), covers=((1, 3),)), NOW)
    assert made.rejects == Counter(overflow=1) and tape(made).ranges[:, :2].tolist() == [[1, 1], [3, 3]]
    tape(made).rescale(msgspec.structs.replace(BTC, size_scale=8))
    tape(made).expect(None)
    made.ingest(batch([4], size=np.array([7]), size_scale=8), NOW)
    assert pairs(made.take()) == [(100, 10_000), (100, 10_000), (100, 7)]


def test_what_a_venue_says_of_an_instrument_leaves_its_scales(engine: Engine) -> None:
    tape(engine).describe(msgspec.structs.replace(BTC, status="break", price_scale=0, size_scale=0))
    assert tape(engine).instrument == msgspec.structs.replace(BTC, status="break")
