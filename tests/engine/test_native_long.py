"""The native engine against the readable one: the same bytes for any sequence of calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.model import CANDLE
from tapewick.timeframe import BY_INDEX, SECOND, bucket, bucket_end

from .brute import DictStore

EDGE = 1_709_164_800 * SECOND  # 2024-02-29T00:00Z: a leap day
INT64 = [-(2**63), -1, 0, 1, 2**62, 2**63 - 1]

offsets = st.one_of(
    st.integers(-300, 300).map(lambda s: s * SECOND),
    st.integers(-3 * 86_400, 3 * 86_400).map(lambda s: s * SECOND + s % 7),
    st.sampled_from([-SECOND, -1, 0, 1, 60 * SECOND - 1, 60 * SECOND, 86_400 * SECOND - 1, 86_400 * SECOND]),
)
ids = st.one_of(st.integers(0, 60), st.integers(0, 60).map(lambda i: i + 1024))  # 1024 apart share a ring slot


@st.composite
def records(draw: Any) -> tuple[int, ...]:
    """(trade_id, first_id, count, ts, price, size, side), now and then with one absurd field."""
    id = draw(ids)
    span = draw(st.sampled_from([0, 0, 0, 0, 1, 3]))
    record = [
        id,
        max(0, id - span),
        draw(st.integers(1, 1 + min(id, span))),
        EDGE + draw(offsets),
        draw(st.one_of(st.integers(1, 50), st.integers(1, 2**50))),
        draw(st.one_of(st.integers(0, 50), st.integers(1, 2**46), st.just(2**62))),
        draw(st.sampled_from([-1, 0, 1])),
    ]
    if draw(st.integers(0, 14)) == 0:
        record[draw(st.integers(0, 6))] = draw(st.sampled_from(INT64))
    return tuple(record)


bounds = st.one_of(ids, st.sampled_from([-5, 0, 2**63 - 1]))
pairs = st.one_of(st.tuples(ids, st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1])), st.tuples(bounds, bounds))
clocks = st.one_of(st.just(0), offsets.map(lambda o: EDGE + o), st.sampled_from(INT64))
disturbed = st.tuples(
    st.just("ingest"),
    st.lists(records(), max_size=8),
    st.one_of(st.none(), st.lists(pairs, max_size=3)),
    st.sampled_from([2**63 - 1, EDGE + 86_400 * SECOND]),
    clocks,
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from(["plain", "wide", "unaligned", "strided"]),
)
rescales = st.tuples(st.just("rescale"), st.sampled_from([1, 10, 1000]), st.sampled_from([1, 10, 10**6]))
simple = st.sampled_from([("take",), ("live",), ("restart",), ("load",)])
lengths = st.one_of(st.integers(1, 12), st.integers(32, 48))  # the reference folds long runs by column


@st.composite
def scripts(draw: Any) -> list[tuple[Any, ...]]:
    """A tape that mostly goes on, id by id and in time, and is disturbed now and then."""
    id, ts, script = draw(st.sampled_from([0, 0, 1, 20])), EDGE + draw(offsets), []
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["on", "on", "on", "tick", "commit", "commit", "simple", "disturbed", "rescale"]))
        if kind == "on":
            step = draw(st.sampled_from([0, SECOND // 2, SECOND, 20 * SECOND, 61 * SECOND, 700 * SECOND]))
            id += draw(st.sampled_from([0, 0, 0, 2]))
            run = [(id + i, id + i, 1, ts + i * step, 100 + i % 3, 5 + i, i % 3 - 1) for i in range(draw(lengths))]
            id, ts = run[-1][0] + 1, run[-1][3] + step
            if draw(st.integers(0, 4)) == 0:
                run[draw(st.integers(0, len(run) - 1))] = draw(records())
            reason = draw(st.sampled_from([0, 2]))
            script += [("ingest", run, None, 2**63 - 1, 0, reason, False, "plain"), ("commit",)][
                : draw(st.integers(1, 2))
            ]
        elif kind == "tick":
            ts += draw(st.sampled_from([2, 30, 62, 130, 700, 8000])) * SECOND
            script.append(("ingest", [], None, 2**63 - 1, ts, 0, False, "plain"))
        elif kind == "commit":
            script.append(("commit",))
        else:
            script.append(draw({"simple": simple, "disturbed": disturbed, "rescale": rescales}[kind]))
    return script


def column(values: list[int], dtype: str, shape: str) -> Any:
    """The values as an array of one of the memory layouts ``ingest`` must accept."""
    plain = np.array(values, "<i8" if shape == "wide" or dtype == "<i8" else dtype)
    if shape == "unaligned":
        return np.frombuffer(b"x" + plain.tobytes(), np.uint8)[1:].view(plain.dtype)
    if shape == "strided":
        return np.repeat(plain, 3)[::3]
    return plain


class Run:
    """One implementation executing a script; ``step`` returns everything an outsider can see."""

    def __init__(self, make: Any) -> None:
        self.make = make
        self.core = make()
        self.store = DictStore()

    def step(self, op: tuple[Any, ...]) -> tuple[Any, ...]:
        out = getattr(self, op[0])(*op[1:])
        core = self.core
        state = (core.seq, core.pos, core.watermark, core.newest_ts, core.pending)
        return (out, state, _bytes(core.missing()), core.ranges().tolist())

    def ingest(self, rows: Any, covers: Any, latest: int, clock: int, reason: int, zero: bool, shape: str) -> Any:
        fields = list(zip(*rows, strict=True)) or [()] * 7
        fits = all(-(2**31) <= c < 2**31 for c in fields[2]) and all(-128 <= s < 128 for s in fields[6])
        dtypes = ["<i8"] * 7 if not fits else ["<i8", "<i8", "<i4", "<i8", "<i8", "<i8", "i1"]
        columns = [column(list(f), d, shape) for f, d in zip(fields, dtypes, strict=True)]
        vouched = None if covers is None else np.array(covers, np.int64).reshape(-1, 2)
        return _bytes(self.core.ingest(*columns, vouched, latest, clock, reason, zero))

    def load(self) -> None:
        self.core.load(self.store.load(*self.core.missing()))

    def take(self) -> Any:
        """Without loading, and its result lost: as a caller that errs would."""
        return _bytes(self.core.take())

    def commit(self) -> Any:
        self.load()
        taken = self.core.take()
        for row in taken.rows:
            self.store.rows[int(row["tf"]), int(row["open_time"])] = row.copy()
        self.store.ranges = {r[0]: tuple(r) for r in self.core.ranges().tolist()}
        self.store.seq, self.store.pos, self.store.watermark = self.core.seq, self.core.pos, self.core.watermark
        return _bytes(taken)

    def live(self) -> bytes:
        return bytes(self.core.live().tobytes())

    def restart(self) -> None:
        self.core = self.make()
        self.store.restore(self.core)

    def rescale(self, price_factor: int, size_factor: int) -> str:
        try:
            self.core.rescale(price_factor, size_factor)
        except OverflowError:
            return "overflow"
        return "rescaled"


def _bytes(found: tuple[Any, ...]) -> list[Any]:
    return [x.tobytes() if isinstance(x, np.ndarray) else x for x in found]


@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    scripts(),
    st.sampled_from([0, 1, 2 * SECOND]),
    st.sampled_from([0, 60 * SECOND]),
    st.sampled_from([0, 600 * SECOND, 7200 * SECOND]),
    st.sampled_from([True, True, True, False]),
)
def test_native_equals_reference(
    both: Any, script: Any, lateness: int, grace: int, keep: int, contiguous: bool
) -> None:
    native, reference = (Run(lambda c=c: c(7, lateness, grace, keep, contiguous)) for c in both)
    for op in script:
        assert native.step(op) == reference.step(op), op


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 17), st.integers(-(2**62), 2**62))
def test_native_calendar(both: Any, index: int, t: int) -> None:
    from tapewick.engine import _native

    tf = BY_INDEX[index]
    open_time = bucket(tf, t)
    assert _native.bucket(index, t) == (open_time, bucket_end(tf, open_time))


def test_native_calendar_every_month(both: Any) -> None:
    from tapewick.engine import _native

    month = BY_INDEX[17]
    open_time = bucket(month, -(2**62))
    while open_time < 2**62:
        end = bucket_end(month, open_time)
        assert _native.bucket(17, open_time) == _native.bucket(17, end - 1) == (open_time, end)
        open_time = end


def test_refused_arguments(implementation: Any) -> None:
    none = np.empty(0, np.int64)
    core = implementation(1, 0, 0, 0)
    with pytest.raises(ValueError, match="same length"):
        core.ingest(np.array([1]), none, none, none, none, none, none)
    with pytest.raises(ValueError, match="at least 1"):
        core.rescale(0, 1)
    with pytest.raises(ValueError, match="below 2"):
        implementation(1, -1, 0, 0)
    with pytest.raises(IndexError):
        core.load(np.array([(0,) * 22 + (18,) + (0,) * 7 + (b"",)], CANDLE))
    assert (core.seq, core.pos, core.pending) == (0, 0, False)


def test_native_refuses_lossy_columns(both: Any) -> None:
    one = np.array([1])
    with pytest.raises(TypeError, match="safe"):
        both[0](1, 0, 0, 0).ingest(one, one, one, one, np.array([1.5]), one, one)
    with pytest.raises(TypeError, match="CANDLE"):
        both[0](1, 0, 0, 0).load(one)
