"""What the core promises, against brute force: any order, duplication, split or crash gives the same candles."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.engine import REJECTS
from tapewick.model import NO_TIME, Change, Reason, State
from tapewick.timeframe import BY_INDEX, SECOND, TREE, bucket, bucket_end

from .brute import REPAIR, VALUES, DictStore, Driven, Trade, candles, columns, is_complete, values

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
SLACK, GRACE = 2 * SECOND, 60 * SECOND
ONE_MINUTE = 1

SEAMS = [
    int(dt.datetime(*day, tzinfo=dt.UTC).timestamp()) * SECOND
    for day in (
        (2024, 2, 29), (2024, 3, 1), (2023, 3, 1), (2024, 12, 31), (2025, 1, 1),  # leap day, months, years
        (2025, 11, 17), (2025, 11, 18), (2024, 9, 30),  # a Monday, a 3d open, a month that ends on a Monday
    )
]  # fmt: skip


def sampled(max_examples: int) -> Any:
    return settings(max_examples=max_examples, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def tapes(draw: Any, *, jitter: bool = True, max_size: int = 40) -> list[Trade]:
    """Trades with ids 0, 1, …; times mostly rise, tie, jump over quiet hours and, with ``jitter``, step back."""
    ts = draw(st.sampled_from(SEAMS)) - draw(st.integers(0, 3600)) * SECOND
    step = st.sampled_from(
        [0, 1, SECOND, 7 * SECOND, 40 * SECOND, 3 * MINUTE, 2 * HOUR, *([-SECOND, -90 * SECOND] * jitter)]
    )
    big = draw(st.sampled_from([10, 2**47]))
    tape = []
    for id in range(draw(st.integers(1, max_size))):
        ts += draw(step)
        tape.append(
            Trade(id, ts, draw(st.integers(1, big)), draw(st.integers(1, big)), draw(st.sampled_from([-1, 0, 1])))
        )
    return tape


@sampled(40)
@given(st.data())
def test_any_delivery_gives_the_same_candles(implementation: Any, data: Any) -> None:
    tape = data.draw(tapes())
    deliveries = data.draw(st.permutations(tape + data.draw(st.lists(st.sampled_from(tape), max_size=15))))
    keep = data.draw(st.sampled_from([0, 10 * MINUTE, 30 * DAY]))
    driven = Driven(lambda: implementation(1, SLACK, GRACE, keep))
    while deliveries:
        size = data.draw(st.integers(1, 12))
        batch, deliveries = deliveries[:size], deliveries[size:]
        fate = data.draw(st.sampled_from(["commit", "commit", "later", "lost before commit", "lost after commit"]))
        driven.ingest(batch)
        if fate == "lost before commit":
            driven.take()
            driven.restart()
            driven.ingest(batch)
            deliveries = list(
                data.draw(st.permutations([*deliveries, *tape]))
            )  # the bus sends what was not acknowledged
        if fate != "later":
            driven.commit()
        if fate == "lost after commit":
            driven.restart()
            assert not len(driven.ingest(batch).accepted), "a committed trade is never new"
    driven.commit()
    assert driven.values == candles(tape)
    assert driven.core.seq == len(tape)
    assert driven.core.ranges().tolist() == [[0, len(tape) - 1, tape[0].ts, tape[-1].ts]]
    assert sorted(driven.store.ranges.values()) == [tuple(r) for r in driven.core.ranges().tolist()]


@sampled(40)
@given(st.data())
def test_dropped_then_repaired(implementation: Any, data: Any) -> None:
    tape = data.draw(tapes(jitter=False))
    dropped = data.draw(st.sets(st.sampled_from(tape)))
    kept = [t for t in tape if t not in dropped]
    keep = data.draw(st.sampled_from([0, 10 * MINUTE]))
    end = tape[-1].ts + 40 * DAY
    whole, holed = (Driven(lambda: implementation(1, SLACK, GRACE, keep)) for _ in range(2))
    whole.ingest(tape, clock=end)
    whole.commit()
    for trade in kept:
        holed.ingest([trade])
        if data.draw(st.booleans()):
            holed.commit()
    holed.ingest([], clock=end)
    holed.commit()
    proofs = {key: is_complete(kept, key[1], _end(key), SLACK) for key in holed.store.rows}
    assert holed.proven() == proofs, "exactly the touched buckets are incomplete"
    before = dict(holed.store.rows)
    if data.draw(st.booleans()):
        holed.restart()
    for trade in data.draw(st.permutations(sorted(dropped))):
        holed.ingest([trade], reason=REPAIR)
        if data.draw(st.booleans()):
            holed.commit()
    holed.commit()
    assert holed.values == whole.values == candles(tape)
    for key, row in holed.store.rows.items():
        assert (row["complete"], row["state"]) == (whole.store.rows[key]["complete"], whole.store.rows[key]["state"]), (
            key
        )
        if key in before and (values(row), row["complete"]) != (values(before[key]), before[key]["complete"]):
            assert row["rev"] > before[key]["rev"] and row["pos"] > before[key]["pos"]
            assert row["change"] in (Change.REVISED, Change.FINAL)
        elif key in before:
            assert row.tobytes() == before[key].tobytes(), "what did not change is not written again"


def _end(key: tuple[int, int]) -> int:
    return bucket_end(BY_INDEX[key[0]], key[1])


def test_seam_without_a_trade_is_revised(implementation: Any) -> None:
    """The missing trade lies in minute 2; minutes 1 and 3 get none, and become complete through it."""
    start = SEAMS[0]
    tape = [Trade(i, start + at * SECOND, 5, 1) for i, at in enumerate((0, 30, 61, 119, 130, 181, 239, 300, 420))]
    missing = tape.pop(4)
    driven = Driven(lambda: implementation(1, 0, GRACE, 0))
    driven.ingest(tape, clock=start + 600 * SECOND)
    driven.commit()
    minutes = [(ONE_MINUTE, start + i * MINUTE) for i in range(4)]
    state = [(k in driven.store.rows) and int(driven.store.rows[k]["complete"]) for k in minutes]
    assert state == [1, 0, False, 0]
    taken = _repair(driven, missing)
    assert [(int(r["change"]), int(r["reason"]), int(r["rev"])) for r in taken] == [
        (Change.REVISED, Reason.PROOF, 1),
        (Change.CLOSED, 0, 0),
        (Change.REVISED, Reason.PROOF, 1),
    ]
    assert [int(r["open_time"]) for r in taken] == [key[1] for key in minutes[1:]]
    assert all(r["state"] == State.FINAL for r in taken)


def _repair(driven: Driven, trade: Trade) -> list[Any]:
    driven.ingest([trade], reason=REPAIR)
    return [row for row in driven.commit().rows if row["tf"] == ONE_MINUTE]


def test_late_trade_names_its_reason(implementation: Any) -> None:
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, 0, GRACE, HOUR))
    driven.ingest([Trade(0, start, 5, 1), Trade(2, start + 200 * SECOND, 5, 1)])
    driven.commit()
    (row,) = _repair(driven, Trade(1, start + 10 * SECOND, 9, 1))[:1]
    assert (row["change"], row["reason"], row["rev"], row["high"]) == (Change.REVISED, Reason.REPAIR, 1, 9)


def test_void_ids_close_a_hole(implementation: Any) -> None:
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, 0, 0, HOUR))
    driven.ingest([Trade(5, start, 5, 1), Trade(9, start + 90 * SECOND, 5, 1)], clock=start + HOUR)
    driven.commit()
    assert [r["complete"] for r in driven.store.rows.values() if r["tf"] == ONE_MINUTE] == [0, 0]
    driven.ingest([], covers=[(0, 4), (6, 8)])
    driven.commit()
    assert driven.core.ranges().tolist() == [[0, 9, start, start + 90 * SECOND]]
    assert driven.store.rows[ONE_MINUTE, start]["state"] == State.FINAL


def test_quarantined_ids_are_not_void(implementation: Any) -> None:
    """A page that vouches for ids 0 to 4 but whose trade 2 is unusable does not prove that 2 never traded."""
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, 0, 0, HOUR))
    page = [Trade(1, start, 5, 1), Trade(2, start, -5, 1), Trade(3, start, 5, 1)]
    rejects = driven.ingest(page, covers=[(0, 4), (9, 7), (-3, -1)]).rejects
    assert rejects.tolist() == [int(name == "bad_price") for name in REJECTS]
    assert driven.core.ranges()[:, :2].tolist() == [[0, 1], [3, 4]]


def test_join_takes_the_times_of_the_outermost_trades(implementation: Any) -> None:
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, 0, 0, HOUR))
    driven.ingest([Trade(i, start + i, 5, 1) for i in (3, 5, 7)], covers=[(2, 9)])
    assert driven.core.ranges().tolist() == [[2, 9, start + 3, start + 7]]


@sampled(40)
@given(st.data())
def test_children_sum_to_their_parent(implementation: Any, data: Any) -> None:
    seam = data.draw(st.sampled_from(SEAMS))
    around = st.integers(-40 * 24 * 60, 40 * 24 * 60).map(lambda m: m * MINUTE)
    near = st.sampled_from([-45 * MINUTE, -MINUTE, -1, 0, 1, 45 * MINUTE, DAY, 3 * DAY, 7 * DAY])
    times = data.draw(st.lists(st.one_of(near, around), min_size=1, max_size=30))
    tape = [Trade(i, seam + t, 100 + i, 1 + i % 5, i % 3 - 1) for i, t in enumerate(sorted(times))]
    driven = Driven(lambda: implementation(1, SLACK, GRACE, 0))
    driven.ingest(tape)
    driven.commit()
    rows = driven.values
    assert rows == candles(tape)
    summed = [VALUES.index(n) for n in VALUES if "volume" in n or n == "trades"]
    for child, parent in TREE:
        sums: dict[int, list[int]] = {}
        for (tf, open_time), row in rows.items():
            if tf == child:
                up = sums.setdefault(bucket(BY_INDEX[parent], open_time), [0] * len(summed))
                sums[bucket(BY_INDEX[parent], open_time)] = [a + row[i] for a, i in zip(up, summed, strict=True)]
        assert sums == {open_time: [row[i] for i in summed] for (tf, open_time), row in rows.items() if tf == parent}


def test_quiet_instrument_closes_by_clock_and_is_proven_later(implementation: Any) -> None:
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR))
    minute = (ONE_MINUTE, start)
    driven.ingest([Trade(0, start + SECOND, 7, 3)])
    driven.commit()
    driven.ingest([], clock=start + 62 * SECOND - 1)
    assert not driven.core.pending
    driven.ingest([], clock=start + 62 * SECOND)
    assert driven.core.pending
    driven.commit()
    row = driven.store.rows[minute]
    assert (row["state"], row["complete"], row["change"], row["rev"]) == (State.CLOSED, 0, Change.CLOSED, 0)
    assert not driven.core.pending
    driven.ingest([Trade(1, start + 100 * SECOND, 7, 3)])
    driven.commit()
    row = driven.store.rows[minute]
    assert (row["state"], row["complete"], row["change"], row["reason"]) == (
        State.CLOSED,
        1,
        Change.REVISED,
        Reason.PROOF,
    )
    driven.ingest([], clock=start + MINUTE + GRACE + SLACK)
    driven.commit()
    row = driven.store.rows[minute]
    assert (row["state"], row["change"], row["rev"]) == (State.FINAL, Change.FINAL, 2)


def test_absurd_future_stamp_closes_nothing(implementation: Any) -> None:
    start = SEAMS[0]
    core = implementation(1, SLACK, GRACE, HOUR)
    driven = Driven(lambda: core)
    driven.ingest([Trade(0, start, 7, 3)])
    one = [np.array([v], np.int64) for v in (1, 1, 1, start + 9 * HOUR, 7, 3, 1)]
    found = core.ingest(*one, latest=start + HOUR, clock=start + 9 * DAY)
    assert not len(found.accepted) and found.rejects[REJECTS.index("bad_time")] == 1
    assert core.watermark == start + HOUR - SLACK, "nor does an absurd clock"
    assert core.newest_ts == start
    for ts in (2**62 + 1, 2**63 - 1):
        one[3][0] = ts
        assert not len(core.ingest(*one).accepted), "beyond 2116 is refused whatever the caller allows"


@pytest.mark.parametrize(
    ("trade", "why"),
    [
        (Trade(1, SEAMS[0], 5, 1, first=2), "bad_id"),
        (Trade(-1, SEAMS[0], 5, 1, first=-1), "bad_id"),
        (Trade(1, SEAMS[0], 5, 1, spans=2), "bad_id"),
        (Trade(1, SEAMS[0], 5, 1, spans=0), "bad_id"),
        (Trade(1, SEAMS[0], 0, 1), "bad_price"),
        (Trade(1, SEAMS[0], 5, 0), "bad_size"),
        (Trade(1, SEAMS[0], 5, -1), "bad_size"),
        (Trade(1, 1_000_000 * SECOND, 5, 1), "bad_time"),
        (Trade(1, SEAMS[0], 5, 1, side=2), "bad_side"),
        (Trade(1, SEAMS[0], 2**50, 2**46), "overflow"),
        (Trade(0, SEAMS[0], 5, 1), "duplicate"),
        (Trade(0, SEAMS[0], 6, 1), "conflict"),
    ],
)
def test_rejects(implementation: Any, trade: Trade, why: str) -> None:
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR))
    driven.ingest([Trade(0, SEAMS[0], 5, 1)])
    found = driven.ingest([trade, Trade(7, SEAMS[0], 5, 1)])
    assert found.accepted.tolist() == [1], "its neighbour is taken"
    assert found.rejects.tolist() == [int(name == why) for name in REJECTS]
    assert driven.core.seq == 2


@pytest.mark.parametrize(
    ("first", "last", "count", "why"),
    [
        (4, 6, 3, "partial"),  # begins before what is known
        (5, 8, 4, "partial"),
        (3, 7, 5, "partial"),  # around a hole
        (6, 7, 1, "partial"),  # its own name is known
        (5, 9, 4, "partial"),  # more trades than ids are free
        (5, 9, 3, ""),  # what was left of an aggregate around two known ids
        (5, 6, 2, ""),
        (7, 8, 2, "duplicate"),
        (1, 2, 2, ""),
        (10, 12, 3, ""),
    ],
)
def test_an_aggregate_of_which_a_part_is_known_is_refused_and_its_other_ids_stay_missing(
    implementation: Any, first: int, last: int, count: int, why: str
) -> None:
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR))
    driven.ingest([Trade(id, SEAMS[0], 5, 1) for id in (3, 4, 7, 8)])
    before = driven.core.ranges()[:, :2].tolist()
    aggregate = Trade(last, SEAMS[0], 5, 1, first=first, spans=count)
    found = driven.ingest([aggregate], covers=[(first, last)])
    if why == "duplicate":
        assert found.rejects[:2].sum() == 1 and not len(found.accepted)  # a conflict where its content is compared
    else:
        assert found.rejects.tolist() == [int(name == why) for name in REJECTS]
    taken = set(range(first, last + 1)) if not why else set()
    covered = {id for low, high in driven.core.ranges()[:, :2].tolist() for id in range(low, high + 1)}
    assert covered == taken | {id for low, high in before for id in range(low, high + 1)}


@sampled(150)
@given(st.data())
def test_no_mix_of_trades_and_aggregates_counts_an_id_twice(implementation: Any, data: Any) -> None:
    """Each id has the size 1 in whatever record it comes: what is covered is what the candles hold."""
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR))
    spans = st.tuples(st.integers(0, 25), st.sampled_from([0, 0, 1, 2, 5, 12]))
    for batch in data.draw(st.lists(st.lists(spans, min_size=1, max_size=8), min_size=1, max_size=6)):
        records = [
            Trade(low + more, SEAMS[0] + low * SECOND, 5, more + 1, first=low, spans=more + 1) for low, more in batch
        ]
        vouched = [(t.first_id, t.id) for t in records] if data.draw(st.booleans()) else None
        driven.ingest(records, covers=vouched)
        covered = sum(high - low + 1 for low, high in driven.core.ranges()[:, :2].tolist())
        day = driven.core.live()
        [row] = day[day["tf"] == BY_INDEX[-1].index] if len(day) else [None]
        assert row is not None and int(row["volume_lo"]) == int(row["trades"]) == covered
        if data.draw(st.booleans()):
            driven.commit()


def test_oracle_rounds_may_have_size_zero(implementation: Any) -> None:
    core = implementation(1, SLACK, GRACE, HOUR)
    one = [np.array([v], np.int64) for v in (1, 1, 1, SEAMS[0], 7, 0, 0)]
    assert len(core.ingest(*one, allow_zero=True).accepted) == 1
    assert values(core.take().rows[0])[4] == 0


@sampled(30)
@given(st.data())
def test_extremes_are_exact(implementation: Any, data: Any) -> None:
    """Eight digits before and after the point, and beyond: products near 2**96, sums past 2**64."""
    price = st.one_of(st.just(99_999_999_99999999), st.integers(2**60, 2**63 - 1))
    prices = data.draw(st.lists(price, min_size=1, max_size=20))
    tape = []
    for i, p in enumerate(prices):
        limit = (2**96 - 1) // p
        tape.append(Trade(i, SEAMS[0] + i, p, data.draw(st.sampled_from([limit, limit - 1, 1])), 1))
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR))
    assert len(driven.ingest(tape).accepted) == len(tape)
    driven.commit()
    assert driven.values == candles(tape)


def test_rescale_multiplies_everything_held(implementation: Any) -> None:
    start = SEAMS[0]
    tape = [Trade(i, start + i * 20 * SECOND, 100 + i, 7 + i, 1) for i in range(12)]
    wide = [t._replace(price=t.price * 10, size=t.size * 1000) for t in tape]
    driven, expected = (Driven(lambda: implementation(1, SLACK, GRACE, HOUR)) for _ in range(2))
    for part in (slice(0, 5), slice(5, 9)):
        driven.ingest(tape[part])
        driven.take() if part.start == 0 else None
    driven.core.rescale(10, 1000)
    for part in (slice(0, 5), slice(5, 9)):
        expected.ingest(wide[part])
        expected.take() if part.start == 0 else None
    for each in (driven, expected):
        assert each.ingest(wide[8:]).rejects.tolist() == [1] + [0] * (len(REJECTS) - 1), (
            "a duplicate at the wider scale is no conflict"
        )
    assert driven.core.live().tobytes() == expected.core.live().tobytes()
    assert driven.core.take().rows.tobytes() == expected.core.take().rows.tobytes()


@pytest.mark.parametrize(("price_factor", "size_factor"), [(10**18, 1), (1, 10**18), (10**8, 10**18)])
def test_rescale_that_overflows_changes_nothing(implementation: Any, price_factor: int, size_factor: int) -> None:
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR))
    driven.ingest([Trade(0, SEAMS[0], 100, 100, 1)])
    before = driven.core.live().tobytes()
    with pytest.raises(OverflowError, match="wider scale"):
        driven.core.rescale(price_factor, size_factor)
    assert driven.core.live().tobytes() == before


def test_unique_ids_prove_nothing(implementation: Any) -> None:
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR, False))
    driven.ingest([Trade(9, start, 5, 1), Trade(3, start + SECOND, 6, 1)], clock=start + DAY)
    driven.commit()
    row = driven.store.rows[ONE_MINUTE, start]
    assert (row["state"], row["complete"], row["trades"]) == (State.CLOSED, -1, 2)
    assert not len(driven.core.ranges())


def test_live_is_the_stored_row_and_the_pending_trades(implementation: Any) -> None:
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR))
    tape = [Trade(i, start + i * SECOND // 2, 5 + i, 1) for i in range(9)]
    driven.ingest(tape[:5])
    driven.commit()
    driven.ingest(tape[5:])
    live = {int(row["tf"]): row for row in driven.core.live()}
    expected = candles(tape)
    assert sorted(live) == list(range(18))
    for tf, row in live.items():
        if tf:
            assert values(row) == expected[tf, int(row["open_time"])]
            assert (row["pos"], row["state"], row["rev"]) == (1, State.OPEN, 0)
    assert live[0]["open_time"] == start + 4 * SECOND and live[0]["trades"] == 1
    driven.ingest([], clock=start + 2 * MINUTE)
    assert {int(row["tf"]) for row in driven.core.live()} == set(range(18)) - {ONE_MINUTE}, (
        "what has closed is not live"
    )


def test_restart_goes_on_where_the_store_is(implementation: Any) -> None:
    start = SEAMS[0]
    driven = Driven(lambda: implementation(1, SLACK, GRACE, HOUR), DictStore())
    driven.ingest([Trade(i, start + i * SECOND, 5, 1) for i in range(90)])
    driven.commit()
    core = driven.core
    driven.restart()
    assert driven.core is not core
    for name in ("seq", "pos", "watermark", "newest_ts", "pending"):
        assert getattr(driven.core, name) == getattr(core, name), name
    live, expected = driven.core.live(), core.live()
    assert live.tobytes() == expected[expected["tf"] > 0].tobytes()


def test_a_fresh_tape_is_empty(implementation: Any) -> None:
    core = implementation(1, SLACK, GRACE, HOUR)
    assert (core.seq, core.pos, core.watermark, core.newest_ts, core.pending) == (0, 0, NO_TIME, NO_TIME, False)
    assert len(core.live()) == len(core.ranges()) == 0
    assert [len(x) for x in core.missing()] == [0, 0]
    rows, put, gone, holes_changed = core.take()
    assert (len(rows), put.shape, gone.shape, holes_changed) == (0, (0, 4), (0,), False)


@pytest.mark.parametrize(("where", "absurd"), [(1, -(2**63)), (1, 2**63 - 1), (33, 2**63 - 1)])
def test_absurd_times_inside_a_long_run_are_refused(implementation: Any, where: int, absurd: int) -> None:
    """Differences of such times wrap around in 64 bits; the run must not pass for an ordered one."""
    n = 40
    ids, ones = np.arange(n), np.ones(n, np.int64)
    ts = np.full(n, SEAMS[0])
    ts[where], ts[where + 1] = absurd, -1
    core = implementation(1, SLACK, GRACE, HOUR)
    found = core.ingest(ids, ids, ones, ts, ones, ones, ones)
    assert found.rejects.tolist() == [2 * int(name == "bad_time") for name in REJECTS]
    assert core.newest_ts == SEAMS[0]


def test_threads_share_a_core(both: Any) -> None:
    """The native core works without the GIL; callers in several threads must not tear it."""
    core = both[0](1, SLACK, GRACE, HOUR)
    tape = [Trade(i, SEAMS[0] + i * SECOND, 5, 1) for i in range(4_000)]
    batches = [columns(tape[i : i + 100]) for i in range(0, len(tape), 100)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda batch: (core.ingest(*batch), core.live(), core.pending), batches)
        assert sum(len(ingested.accepted) for ingested, _, _ in found) == len(tape)
    assert core.ranges()[:, :2].tolist() == [[0, len(tape) - 1]]
