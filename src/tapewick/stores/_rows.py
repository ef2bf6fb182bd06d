"""What every SQL store does with rows before and after its driver: windows, names, order, commit groups."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from tapewick.errors import ModelError
from tapewick.model import CANDLE, Candles, Head, Instrument, Origin, TapeCommit, TradeBatch

__all__ = [
    "INSTRUMENT_NAMES",
    "MAX_TIME",
    "MIN_TIME",
    "Known",
    "Window",
    "batches_of",
    "bigint",
    "candle_rows",
    "merged",
    "new_epoch",
    "one_each",
    "trade_batch",
]

INSTRUMENT_NAMES = (
    "id", "venue", "symbol", "base", "quote", "price_scale", "size_scale", "status", "id_kind", "granularity",
)  # fmt: skip
MIN_TIME, MAX_TIME = -(2**63), 2**63 - 1

Known = tuple[int, Instrument]
"""A stored instrument with its number."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Window(NamedTuple):
    """Which rows a caller wants: ``start`` ≤ time < ``end``, at most ``limit`` (0 = all) from either end."""

    start: int | None = None
    end: int | None = None
    limit: int = 0
    newest: bool = False

    @property
    def direction(self) -> str:
        return "DESC" if self.newest else "ASC"

    def within(self, column: str) -> str:
        """The SQL condition on a time column."""
        conditions = []
        if self.start is not None:
            conditions.append(f"{column} >= {bigint(self.start)}")
        if self.end is not None:
            conditions.append(f"{column} < {bigint(self.end)}")
        return " AND ".join(conditions) or "true"


def bigint(value: int) -> str:
    """An int64 as SQL writes it; what lies beyond becomes the nearest."""
    return f"'{min(max(int(value), MIN_TIME), MAX_TIME)}'::BIGINT"


def new_epoch() -> str:
    """A name for a tape that no other tape has: 8 characters of Crockford base32."""
    return "".join(secrets.choice(_CROCKFORD) for _ in range(8))


def merged(wanted: Instrument, known: Instrument) -> Instrument:
    """What is stored when ``wanted`` is put over ``known``: status, and base and quote where given."""
    return replace(known, status=wanted.status, base=wanted.base or known.base, quote=wanted.quote or known.quote)


def batches_of(group: Sequence[TapeCommit]) -> list[tuple[int, TradeBatch]]:
    """The trades of a commit group with their instruments' numbers. Raises ``ModelError`` for a batch without seq."""
    owners = [(commit.number, batch) for commit in group for batch in commit.trades if len(batch)]
    if any(batch.seq is None for _, batch in owners):
        raise ModelError("trades are numbered by the engine before they are stored: seq is missing")
    return owners


def candle_rows(group: Sequence[TapeCommit]) -> Candles:
    """The candles of a commit group as one array, marked as tape rows of their instruments."""
    parts = [commit.rows for commit in group if len(commit.rows)]
    if not parts:
        return np.empty(0, CANDLE)
    # Joined as bytes: numpy copies structured arrays field by field, fifty times slower for many small parts.
    rows = np.frombuffer(bytearray().join(part.tobytes() for part in parts), CANDLE)
    rows["number"] = np.repeat([c.number for c in group if len(c.rows)], [len(part) for part in parts])
    rows["origin"] = Origin.TAPE
    return rows


def one_each(rows: Candles, window: Window) -> Candles:
    """One row per open time, ascending, inside the limit: the tape's where complete, else the import's, else the
    tape's. ``rows``: contiguous, in any order."""
    rank = np.where(rows["origin"] == Origin.IMPORT, 1, np.where(rows["complete"] == 1, 0, 2))
    order = np.lexsort((rank, rows["open_time"]))
    times = rows["open_time"][order]
    shown = np.ones(len(rows), bool)
    shown[1:] = times[1:] != times[:-1]
    # Taken as bytes: numpy copies structured arrays field by field, ten times slower.
    rows = rows.view(f"V{CANDLE.itemsize}")[order[shown]].view(CANDLE)
    if window.limit:
        rows = rows[-window.limit :] if window.newest else rows[: window.limit]
    return rows


def trade_batch(
    columns: Mapping[str, npt.NDArray[Any]] | npt.NDArray[np.void], instrument: Instrument, head: Head
) -> TradeBatch:
    """Fetched columns as one batch, ascending by seq; at scales and epoch of the tape."""
    seq = columns["seq"]
    order = np.argsort(seq, kind="stable") if len(seq) > 1 and bool((seq[1:] <= seq[:-1]).any()) else slice(None)

    def column(name: str, dtype: type[Any] = np.int64) -> npt.NDArray[Any]:
        return columns[name][order].astype(dtype, copy=False)

    return TradeBatch(
        instrument=instrument.id,
        trade_id=column("trade_id"),
        first_id=column("first_id"),
        count=column("count", np.int32),
        ts_event=column("ts_event"),
        ts_recv=column("ts_recv"),
        price=column("price"),
        size=column("size"),
        side=column("side", np.int8),
        price_scale=instrument.price_scale,
        size_scale=instrument.size_scale,
        seq=column("seq"),
        epoch=head.epoch,
        late_rows=column("late", np.bool_),
    )
