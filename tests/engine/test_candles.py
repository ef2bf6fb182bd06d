"""The candle laws: folding, rolling up, filling, choosing."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.engine import candles
from tapewick.engine.candles import SUMS, choose, fill, fold, nests, put_sums, roll_up, roll_up_tree, sums
from tapewick.errors import ModelError
from tapewick.model import CANDLE, Candles, Origin, State, TradeBatch
from tapewick.timeframe import BY_NAME, NAMES, SECOND, STORED, bucket, bucket_end

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
START = int(dt.datetime(2023, 12, 29, 22, 0, tzinfo=dt.UTC).timestamp()) * SECOND  # near week, month and year end
VALUES = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "trades",
    "first_id",
    "last_id",
    "first_ts",
    "last_ts",
    "first_key",
)


def trades(rows: Sequence[tuple[int, int, int, int, int]]) -> TradeBatch:
    """Raw trades (id, ts, price, size, side)."""
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    return TradeBatch(
        instrument="sim:X",
        trade_id=columns[0],
        first_id=columns[0],
        count=np.ones(len(rows), np.int32),
        ts_event=columns[1],
        ts_recv=columns[1],
        price=columns[2],
        size=columns[3],
        side=columns[4].astype(np.int8),
        price_scale=0,
        size_scale=0,
    )


def bars(tf: str, *rows: tuple[int, int, int]) -> Candles:
    """Candles (open_time, price, trades) with a volume of 10 per trade."""
    made = np.zeros(len(rows), CANDLE)
    made["tf"] = BY_NAME[tf].index
    for slot, (open_time, price, count) in zip(made, rows, strict=True):
        slot["open_time"], slot["trades"], slot["volume_lo"] = open_time, count, 10 * count
        for name in ("open", "high", "low", "close"):
            slot[name] = price
    return made


def values(rows: Candles) -> list[tuple[int, ...]]:
    """Everything that trades determine, row by row."""
    columns = [rows[name].tolist() for name in VALUES] + [sums(rows, name) for name in SUMS]
    return list(zip(*columns, strict=True))


def by_hand(rows: Sequence[tuple[int, int, int, int, int]], tf: str) -> list[tuple[int, ...]]:
    """The fold of ``trades`` in plain Python, from the definition."""
    groups: dict[int, list[tuple[int, int, int, int, int]]] = {}
    for row in sorted(rows, key=lambda row: (row[1], row[0])):
        groups.setdefault(bucket(BY_NAME[tf], row[1]), []).append(row)
    made: list[tuple[int, ...]] = []
    for open_time, group in sorted(groups.items()):
        prices = [price for _, _, price, _, _ in group]
        bought = [row for row in group if row[4] > 0]
        first, last = group[0], group[-1]
        made.append(
            (open_time, first[2], max(prices), min(prices), last[2], len(group))
            + (first[0], last[0], first[1], last[1], first[0])
            + (sum(r[3] for r in group), sum(r[2] * r[3] for r in group))
            + (sum(r[3] for r in bought), sum(r[2] * r[3] for r in bought))
        )
    return made


records = st.lists(
    st.tuples(
        st.integers(START, START + 40 * 24 * HOUR),
        st.integers(1, 2**62),
        st.integers(1, 2**34 - 1),
        st.sampled_from((-1, 0, 1)),
    ),
    max_size=40,
)


@given(records, st.sampled_from(NAMES))
def test_fold_equals_the_definition(drawn: list[tuple[int, int, int, int]], tf: str) -> None:
    rows = [(i + 1, *record) for i, record in enumerate(drawn)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert values(fold(trades(shuffled), BY_NAME[tf])) == by_hand(rows, tf)


@settings(max_examples=25)
@given(records)
def test_rolled_up_candles_equal_folded_ones_in_every_frame(drawn: list[tuple[int, int, int, int]]) -> None:
    batch = trades([(i + 1, *record) for i, record in enumerate(drawn)])
    minutes = fold(batch, BY_NAME["1m"])
    for tf in STORED[1:]:
        assert values(roll_up(minutes, tf)) == values(fold(batch, tf))
        for child in STORED:
            if nests(child, tf):
                assert values(roll_up(fold(batch, child), tf)) == values(fold(batch, tf))


def test_equal_times_are_ordered_by_id() -> None:
    made = fold(trades([(2, START, 20, 1, 1), (1, START, 10, 1, 1), (3, START, 30, 1, 1)]), BY_NAME["1m"])
    assert (made["open"][0], made["close"][0]) == (10, 30)


def test_fold_tells_open_from_closed_by_the_watermark() -> None:
    batch = trades([(1, START, 1, 1, 1), (2, START + SECOND, 1, 1, 1)])
    made = fold(batch, BY_NAME["1s"], watermark=START + SECOND)
    assert made["state"].tolist() == [State.CLOSED, State.OPEN]


def test_an_aggregate_counts_its_ids() -> None:
    batch = trades([(12, START, 5, 2, 1)])
    batch.first_id, batch.count = np.array([10]), np.array([3], np.int32)
    made = fold(batch, BY_NAME["1m"])
    assert (made["trades"][0], made["first_id"][0], made["last_id"][0], made["first_key"][0]) == (3, 10, 12, 12)


def test_sums_go_beyond_64_bits() -> None:
    big = 2**62
    made = fold(trades([(i, START + i, 2**33, big, 1) for i in range(1, 9)]), BY_NAME["1m"])
    assert sums(made, "volume") == [8 * big]
    assert sums(made, "quote_volume") == sums(made, "taker_buy_quote_volume") == [8 * big * 2**33]


def test_sums_are_written_and_read_back() -> None:
    rows = np.zeros(3, CANDLE)
    put_sums(rows, "quote_volume", [0, 2**64, 23_097_689_565_880_542_100])
    assert sums(rows, "quote_volume") == [0, 2**64, 23_097_689_565_880_542_100]


def test_a_bar_without_trades_contributes_nothing() -> None:
    hour = HOUR * (START // HOUR)
    rolled = roll_up(bars("1h", (hour, 9999, 0), (hour + HOUR, 50, 3)), BY_NAME["2h"])
    assert (rolled["open"][0], rolled["high"][0], rolled["low"][0], rolled["trades"][0]) == (50, 50, 50, 3)
    assert not len(roll_up(bars("1h", (hour, 9999, 0)), BY_NAME["2h"]))


@pytest.mark.parametrize(
    ("child", "parent", "expected"),
    [
        ("1m", "1M", True), ("45m", "3h", True), ("45m", "1d", True), ("45m", "1h", False), ("2h", "3h", False),
        ("8h", "12h", False), ("12h", "3d", True), ("1d", "1w", True), ("1d", "1M", True), ("3d", "1w", False),
        ("3d", "1M", False), ("1w", "1M", False), ("1h", "1h", False), ("1d", "12h", False), ("1M", "1w", False),
    ],
)  # fmt: skip
def test_which_frames_nest(child: str, parent: str, expected: bool) -> None:
    assert nests(BY_NAME[child], BY_NAME[parent]) is expected


def test_rolling_up_frames_that_do_not_nest_is_refused() -> None:
    with pytest.raises(ModelError, match="1w candles do not add up to 1M"):
        roll_up(bars("1w", (bucket(BY_NAME["1w"], START), 1, 1)), BY_NAME["1M"])


def test_a_tree_holds_only_whole_buckets() -> None:
    hour = bucket(BY_NAME["1h"], START)
    rows = bars("1h", *((hour + i * HOUR, 100 + i, 1) for i in range(1, 30)))
    tree = roll_up_tree(rows, BY_NAME["1h"])
    days = tree[tree["tf"] == BY_NAME["1d"].index]
    assert days["open_time"].tolist() == [bucket(BY_NAME["1d"], START) + 24 * HOUR]
    assert not len(tree[tree["tf"] == BY_NAME["1w"].index])
    four = tree[tree["tf"] == BY_NAME["4h"].index]
    assert four["open_time"].min() >= hour + HOUR
    assert all(bucket_end(BY_NAME["4h"], t) <= hour + 30 * HOUR for t in four["open_time"].tolist())


def test_completeness_rolls_up_as_the_least() -> None:
    hour = bucket(BY_NAME["2h"], START)
    rows = bars("1h", (hour, 1, 1), (hour + HOUR, 1, 1))
    for left, right, expected in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (-1, -1, -1)):
        rows["complete"] = (left, right)
        assert roll_up(rows, BY_NAME["2h"])["complete"][0] == expected


M0 = MINUTE * (START // MINUTE)


def minute(n: int) -> int:
    return M0 + n * MINUTE


def filled(
    *present: int, mode: str = "prev", start: int = 0, end: int = 10, **more: object
) -> list[tuple[int, int, int]]:
    """(minute, close, filled) of the rows ``fill`` gives for 1m candles at minutes ``present``, priced 100 + minute."""
    rows = bars("1m", *((minute(n), 100 + n, 1) for n in present))
    out = candles.fill(rows, BY_NAME["1m"], minute(start), minute(end), mode, **more)  # type: ignore[arg-type]
    return [
        ((int(t) - M0) // MINUTE, int(c), int(f))
        for t, c, f in zip(out["open_time"], out["close"], out["filled"], strict=True)
    ]


def test_prev_repeats_the_last_close_between_trades_only() -> None:
    assert filled(2, 5) == [(2, 102, 0), (3, 102, 1), (4, 102, 1), (5, 105, 0)]


def test_null_has_no_prices() -> None:
    assert filled(2, 4, mode="null") == [(2, 102, 0), (3, 0, 2), (4, 104, 0)]


def test_the_row_before_the_window_gives_the_first_close() -> None:
    assert filled(0, 5, start=3) == [(3, 100, 1), (4, 100, 1), (5, 105, 0)]


def test_filling_goes_on_to_the_watermark_but_not_past_the_window() -> None:
    assert filled(2, watermark=minute(4) + 30 * SECOND) == [(2, 102, 0), (3, 102, 1)]
    assert filled(2, end=4, watermark=minute(9)) == [(2, 102, 0), (3, 102, 1)]


def test_open_gaps_stay_empty() -> None:
    gap = (minute(3) + 5 * SECOND, minute(4) + SECOND)
    assert filled(1, 6, gaps=[gap]) == [(1, 101, 0), (2, 101, 1), (5, 101, 1), (6, 106, 0)]


def test_imported_rows_without_trades_are_filled_over() -> None:
    rows = np.concatenate((bars("1m", (minute(0), 7, 1)), bars("1m", (minute(1), 0, 0)), bars("1m", (minute(2), 8, 1))))
    out = fill(rows, BY_NAME["1m"], minute(0), minute(5), "prev")
    assert out["close"].tolist() == [7, 7, 8]
    assert out["first_id"][1] == out["last_id"][1] == -1


def test_filled_rows_are_complete_between_complete_ones() -> None:
    rows = bars("1m", (minute(0), 1, 1), (minute(2), 1, 1), (minute(4), 1, 1))
    rows["complete"] = (1, 1, 0)
    out = fill(rows, BY_NAME["1m"], minute(0), minute(9), "prev", watermark=minute(6))
    assert out["complete"].tolist() == [1, 1, 1, 0, 0, 0]


def test_months_are_filled_by_the_calendar() -> None:
    month = BY_NAME["1M"]
    january = bucket(month, START + 10 * 24 * HOUR)
    february = bucket_end(month, january)
    rows = bars("1M", (january, 5, 1), (bucket_end(month, february), 6, 1))
    out = fill(rows, month, january, bucket_end(month, bucket_end(month, february)), "prev")
    assert out["open_time"].tolist() == [january, february, bucket_end(month, february)]


@given(records, st.sampled_from(("prev", "null")))
def test_filling_never_changes_a_real_row(drawn: list[tuple[int, int, int, int]], mode: str) -> None:
    rows = fold(trades([(i + 1, *record) for i, record in enumerate(drawn)]), BY_NAME["4h"])
    out = fill(rows, BY_NAME["4h"], START, START + 50 * 24 * HOUR, mode)  # type: ignore[arg-type]
    inside = rows[rows["open_time"] >= START]
    assert out[out["filled"] == 0].tobytes() == inside.tobytes()
    if len(inside):
        assert (np.diff(out["open_time"]) == 4 * HOUR).all()


def test_a_read_takes_the_tape_where_complete_else_the_import() -> None:
    tape = bars("1m", (minute(0), 10, 1), (minute(1), 11, 1), (minute(3), 13, 1))
    tape["complete"] = (1, 0, 0)
    imported = bars("1m", (minute(0), 20, 1), (minute(1), 21, 1), (minute(2), 22, 1))
    imported["origin"] = Origin.IMPORT
    chosen = choose(tape, imported)
    assert chosen["close"].tolist() == [10, 21, 22, 13]
    assert choose(tape, imported[:0]).tobytes() == tape.tobytes()
    assert choose(tape[:0], imported).tobytes() == imported.tobytes()
