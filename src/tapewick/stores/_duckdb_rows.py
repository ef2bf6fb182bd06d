"""Columns between the model and DuckDB: numpy arrays in both directions, never a row at a time.

A dict of arrays is a table to DuckDB when a Python variable of the queried name holds it:
SQL here and in ``_duckdb_write`` calls its input ``batch``, the parameter of ``put``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from tapewick.errors import ModelError
from tapewick.model import CANDLE, Candles, Head, Instrument, Origin, TapeCommit, TradeBatch

__all__ = [
    "CANDLE_COLUMNS",
    "CANDLE_NAMES",
    "INSTRUMENT_NAMES",
    "TRADE_COLUMNS",
    "candle_columns",
    "candle_rows",
    "fetch_candles",
    "instruments",
    "put",
    "trade_batch",
    "trade_columns",
]

Columns = Mapping[str, npt.NDArray[Any]]

INSTRUMENT_NAMES = (
    "id", "venue", "symbol", "base", "quote", "price_scale", "size_scale", "status", "id_kind", "granularity",
)  # fmt: skip
CANDLE_NAMES = (
    "number", "tf", "open_time", "origin", "open", "high", "low", "close",
    "volume_lo", "volume_hi", "quote_volume_lo", "quote_volume_hi",
    "taker_buy_volume_lo", "taker_buy_volume_hi", "taker_buy_quote_volume_lo", "taker_buy_quote_volume_hi",
    "trades", "first_id", "last_id", "first_ts", "last_ts", "first_key", "last_seq", "pos", "rev", "state",
    "complete", "change", "reason",
)  # fmt: skip
"""The stored fields of ``CANDLE`` in the order of the table; ``filled`` rows are never stored."""
CANDLE_COLUMNS = ", ".join(CANDLE_NAMES)
TRADE_NAMES = ("seq", "trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side")
TRADE_COLUMNS = ", ".join((*TRADE_NAMES, "late"))
_TRADE_TYPES: dict[str, type] = {"count": np.int32, "side": np.int8, "late": np.bool_}


def put(connection: duckdb.DuckDBPyConnection, sql: str, batch: Columns) -> duckdb.DuckDBPyConnection:
    """Run SQL that reads ``batch`` as a table."""
    return connection.execute(sql)


def instruments(
    connection: duckdb.DuckDBPyConnection, condition: str = "true", values: Sequence[object] = ()
) -> list[tuple[int, Instrument]]:
    """Instruments that meet an SQL condition with their numbers, ascending."""
    rows = connection.execute(
        f"SELECT number, {', '.join(INSTRUMENT_NAMES)} FROM instruments WHERE {condition} ORDER BY number", list(values)
    ).fetchall()
    return [(number, Instrument(**dict(zip(INSTRUMENT_NAMES, rest, strict=True)))) for number, *rest in rows]


def trade_columns(group: Sequence[TapeCommit]) -> Columns:
    """The trades of a commit group as one table. Raises ``ModelError`` for a batch without seq."""
    owners = [(commit.number, batch) for commit in group for batch in commit.trades if len(batch)]
    batches = [batch for _, batch in owners]
    if any(batch.seq is None for batch in batches):
        raise ModelError("trades are numbered by the engine before they are stored: seq is missing")
    if not batches:
        return {}
    lengths = [len(batch) for batch in batches]
    columns: dict[str, npt.NDArray[Any]] = {"number": np.repeat(np.array([n for n, _ in owners], np.int32), lengths)}
    for name in TRADE_NAMES:
        columns[name] = np.concatenate([getattr(batch, name) for batch in batches]).astype(
            _TRADE_TYPES.get(name, np.int64), copy=False
        )
    columns["late"] = np.repeat(np.array([batch.late for batch in batches]), lengths)
    return columns


def trade_batch(parts: Sequence[Columns], instrument: Instrument, head: Head) -> TradeBatch:
    """Fetched columns as one batch, ascending by seq; at scales and epoch of the tape."""
    columns = {
        name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0, _TRADE_TYPES.get(name, np.int64))
        for name in (*TRADE_NAMES, "late")
    }
    seq = columns["seq"]
    if len(seq) > 1 and bool((seq[1:] <= seq[:-1]).any()):
        order = np.argsort(seq, kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
    return TradeBatch(
        instrument=instrument.id,
        trade_id=columns["trade_id"],
        first_id=columns["first_id"],
        count=columns["count"],
        ts_event=columns["ts_event"],
        ts_recv=columns["ts_recv"],
        price=columns["price"],
        size=columns["size"],
        side=columns["side"],
        price_scale=instrument.price_scale,
        size_scale=instrument.size_scale,
        seq=columns["seq"],
        epoch=head.epoch,
        late_rows=columns["late"],
    )


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


def candle_columns(rows: Candles, names: Sequence[str] = CANDLE_NAMES) -> Columns:
    """Candle rows as a table with the given columns."""
    return {name: np.ascontiguousarray(rows[name]) for name in names}


def fetch_candles(answer: duckdb.DuckDBPyConnection) -> Candles:
    """What a query for ``CANDLE_COLUMNS`` answered."""
    columns = answer.fetchnumpy()
    rows = np.zeros(len(columns["open_time"]), CANDLE)
    for name in CANDLE_NAMES:
        rows[name] = columns[name]
    return rows
