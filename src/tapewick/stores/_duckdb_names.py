"""The names of trades whose ids are unique, kept for good: two words of a 128-bit hash each."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from tapewick.model import I64, TapeCommit
from tapewick.stores._duckdb_rows import put

__all__ = ["holds", "write_names"]

Connection = duckdb.DuckDBPyConnection

_HELD = """
SELECT DISTINCT batch.place FROM batch JOIN trade_keys k ON k.hi = batch.hi AND k.lo = batch.lo WHERE k.number = {}
"""
_ADD = "INSERT INTO trade_keys SELECT number, hi, lo FROM batch"


def holds(connection: Connection, number: int, names: I64) -> npt.NDArray[np.bool_]:
    """Which of ``names`` (n, 2) the tape was ever given."""
    held = np.zeros(len(names), np.bool_)
    if len(names):
        asked = {"hi": names[:, 0].copy(), "lo": names[:, 1].copy(), "place": np.arange(len(names))}
        held[put(connection, _HELD.format(number), asked).fetchnumpy()["place"]] = True
    return held


def write_names(connection: Connection, group: Sequence[TapeCommit]) -> None:
    """Keep the names of a commit group's trades."""
    parts = [part for part in group if len(part.names)]
    if parts:
        names = np.concatenate([part.names for part in parts])
        numbers = np.repeat(np.array([part.number for part in parts], np.int32), [len(part.names) for part in parts])
        put(connection, _ADD, {"number": numbers, "hi": names[:, 0].copy(), "lo": names[:, 1].copy()})
