"""The names of trades whose ids are unique, kept for good: two words of a 128-bit hash each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tapewick.model import I64, TapeCommit
from tapewick.stores._postgres_copy import Layout
from tapewick.stores._postgres_rows import copy_in

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["holds", "write_names"]

NAMES = Layout({"hi": "i8", "lo": "i8", "number": "i4"})
_HELD = """
SELECT asked.place FROM unnest($2::BIGINT[], $3::BIGINT[]) WITH ORDINALITY AS asked(hi, lo, place)
WHERE EXISTS (SELECT FROM trade_keys k WHERE k.number = $1 AND k.hi = asked.hi AND k.lo = asked.lo)
"""


async def holds(connection: Connection, key: int, names: I64) -> npt.NDArray[np.bool_]:
    """Which of ``names`` (n, 2) the tape was ever given."""
    held = np.zeros(len(names), np.bool_)
    rows = await connection.fetch(_HELD, key, names[:, 0].tolist(), names[:, 1].tolist())
    held[[row["place"] - 1 for row in rows]] = True
    return held


async def write_names(connection: Connection, group: Sequence[TapeCommit]) -> None:
    """Keep the names of a commit group's trades. One that is there already is a breach of the table's key."""
    parts = [part for part in group if len(part.names)]
    if parts:
        names = np.concatenate([part.names for part in parts])
        numbers = np.repeat(np.array([part.number for part in parts], np.int32), [len(part.names) for part in parts])
        columns = {"hi": names[:, 0], "lo": names[:, 1], "number": numbers}
        await copy_in(connection, "trade_keys", NAMES, columns, len(names))
