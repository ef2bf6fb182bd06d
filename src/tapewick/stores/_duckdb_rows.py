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

from tapewick.model import CANDLE, Candles, Head, Instrument, TapeCommit, TradeBatch
from tapewick.stores import _rows
from tapewick.stores._rows import INSTRUMENT_NAMES, Known, batches_of

__all__ = [
    "CANDLE_COLUMNS",
    "CANDLE_NAMES",
    "TRADE_COLUMNS",
    "candle_columns",
    "fetch_candles",
    "instruments",
    "put",
    "trade_batch",
    "trade_columns",
]

Columns = Mapping[str, npt.NDArray[Any]]

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
) -> list[Known]:
    """Instruments that meet an SQL condition with their numbers, ascending."""
    rows = connection.execute(
        f"SELECT number, {', '.join(INSTRUMENT_NAMES)} FROM instruments WHERE {condition} ORDER BY number", list(values)
    ).fetchall()
    return [(number, Instrument(**dict(zip(INSTRUMENT_NAMES, rest, strict=True)))) for number, *rest in rows]


def trade_columns(group: Sequence[TapeCommit]) -> Columns:
    """The trades of a commit group as one table. Raises ``ModelError`` for a batch without seq."""
    owners = batches_of(group)
    batches = [batch for _, batch in owners]
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
    """Fetched parts as one batch, ascending by seq; at scales and epoch of the tape."""
    columns = {
        name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0, _TRADE_TYPES.get(name, np.int64))
        for name in (*TRADE_NAMES, "late")
    }
    return _rows.trade_batch(columns, instrument, head)


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
