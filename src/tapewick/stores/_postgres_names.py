"""What is known of trades by their names: of unique ones 128-bit hashes, kept for good; of numbered ones their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tapewick.errors import NotFound
from tapewick.model import I64, TapeCommit, TradeBatch
from tapewick.stores._likeness import Found
from tapewick.stores._postgres_copy import Layout
from tapewick.stores._postgres_rows import copy_in
from tapewick.timeframe import HOUR

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["holds", "numbered", "write_names"]

NAMES = Layout({"hi": "i8", "lo": "i8", "number": "i4"})
_HELD = """
SELECT id, ARRAY(
    SELECT asked.place FROM unnest($2::BIGINT[], $3::BIGINT[]) WITH ORDINALITY AS asked(hi, lo, place)
    WHERE EXISTS (SELECT FROM trade_keys k WHERE k.number = $1 AND k.hi = asked.hi AND k.lo = asked.lo)
) AS places FROM instruments WHERE number = $1
"""

_NUMBERED = f"""
WITH asked AS (
    SELECT id, ts, place, ts - ts % {HOUR} AS hour
    FROM unnest($2::BIGINT[], $3::BIGINT[]) WITH ORDINALITY AS a(id, ts, place)
), spans AS (
    SELECT h.hour, greatest(h.first_seq, $4::BIGINT + 1) AS first, h.last_seq AS last FROM trade_hours h
    WHERE h.number = $1 AND h.hour IN (SELECT hour FROM asked)
)
SELECT a.place - 1 AS place, t.price, t.size, t.side
FROM spans s JOIN trades t ON t.number = $1 AND t.seq BETWEEN s.first AND s.last
JOIN asked a ON a.hour = s.hour AND a.id = t.trade_id AND a.ts = t.ts_event
"""
_SCALES = "SELECT price_scale, size_scale FROM instruments WHERE number = $1 AND id = $2"


async def holds(connection: Connection, key: int, id: str, names: I64) -> npt.NDArray[np.bool_]:
    """Which of ``names`` (n, 2) the tape was ever given. Raises ``NotFound`` where ``key`` is not its own."""
    held = np.zeros(len(names), np.bool_)
    row = await connection.fetchrow(_HELD, key, names[:, 0].tolist(), names[:, 1].tolist())
    if row is None or row["id"] != id:
        raise NotFound(f"{id} is not in the store any more")
    held[[place - 1 for place in row["places"]]] = True
    return held


async def numbered(
    connection: Connection, key: int, id: str, batch: TradeBatch, since: int
) -> tuple[list[Found], tuple[int, int]]:
    """Stored trades after seq ``since`` with an id and time of ``batch``, and the scales of their numbers. Raises
    ``NotFound`` where ``key`` is not (any more) ``id``'s."""
    scales = await connection.fetchrow(_SCALES, key, id)
    if scales is None:
        raise NotFound(f"{id} is not in the store any more")
    rows = await connection.fetch(_NUMBERED, key, batch.trade_id.tolist(), batch.ts_event.tolist(), since)
    return [tuple(row) for row in rows], tuple(scales)


async def write_names(connection: Connection, group: Sequence[TapeCommit]) -> None:
    """Keep the names of a commit group's trades. One that is there already is a breach of the table's key."""
    parts = [part for part in group if len(part.names)]
    if parts:
        names = np.concatenate([part.names for part in parts])
        numbers = np.repeat(np.array([part.number for part in parts], np.int32), [len(part.names) for part in parts])
        columns = {"hi": names[:, 0], "lo": names[:, 1], "number": numbers}
        await copy_in(connection, "trade_keys", NAMES, columns, len(names))
