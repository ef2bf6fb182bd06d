"""What is known of trades by their names: of unique ones 128-bit hashes, kept for good; of numbered ones their rows."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from tapewick.model import I64, TapeCommit, TradeBatch
from tapewick.stores._duckdb_rows import put
from tapewick.stores._likeness import Found

__all__ = ["holds", "numbered", "write_names"]

Connection = duckdb.DuckDBPyConnection

_HELD = """
SELECT DISTINCT batch.place FROM batch JOIN trade_keys k ON k.hi = batch.hi AND k.lo = batch.lo WHERE k.number = {}
"""
_NUMBERED = """
SELECT batch.place, t.price, t.size, t.side FROM batch JOIN trades t ON t.trade_id = batch.id AND t.ts_event = batch.ts
WHERE t.number = {} AND t.seq > {}
"""
_SCALES = "SELECT price_scale, size_scale FROM instruments WHERE number = ?"
_ADD = "INSERT INTO trade_keys SELECT number, hi, lo FROM batch"


def holds(connection: Connection, number: int, names: I64) -> npt.NDArray[np.bool_]:
    """Which of ``names`` (n, 2) the tape was ever given."""
    held = np.zeros(len(names), np.bool_)
    if len(names):
        asked = {"hi": names[:, 0].copy(), "lo": names[:, 1].copy(), "place": np.arange(len(names))}
        held[put(connection, _HELD.format(number), asked).fetchnumpy()["place"]] = True
    return held


def numbered(connection: Connection, number: int, batch: TradeBatch, since: int) -> tuple[list[Found], tuple[int, int]]:
    """Stored trades after seq ``since`` with an id and time of ``batch``, and the scales of their numbers."""
    asked = {"id": batch.trade_id, "ts": batch.ts_event, "place": np.arange(len(batch))}
    found = put(connection, _NUMBERED.format(number, since), asked).fetchall()
    scales = connection.execute(_SCALES, [number]).fetchone()
    assert scales is not None
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in found], (int(scales[0]), int(scales[1]))


def write_names(connection: Connection, group: Sequence[TapeCommit]) -> None:
    """Keep the names of a commit group's trades."""
    parts = [part for part in group if len(part.names)]
    if parts:
        names = np.concatenate([part.names for part in parts])
        numbers = np.repeat(np.array([part.number for part in parts], np.int32), [len(part.names) for part in parts])
        put(connection, _ADD, {"number": numbers, "hi": names[:, 0].copy(), "lo": names[:, 1].copy()})
