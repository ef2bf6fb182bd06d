"""What ``doctor`` looks for in a store that opens: invariants that every commit keeps.

Cheap by design: heads, ledger and counts of every instrument, the arithmetic of candles on
the newest rows of a few.
"""

from __future__ import annotations

import duckdb
import numpy as np
import numpy.typing as npt

from tapewick.model import I64, Candles, Instrument
from tapewick.stores._duckdb_rows import CANDLE_COLUMNS, fetch_candles, instruments
from tapewick.timeframe import BY_INDEX, TREE, buckets

__all__ = ["problems"]

SAMPLE = 8  # instruments whose candles are added up
NEWEST = 1000  # rows per timeframe that are

_RULES = {
    "the head is not at the last trade (seq {0}, trades {1}, last {2})": """
        SELECT i.id, h.seq, count(t.seq), max(t.seq) FROM tape_head h JOIN instruments i USING (number)
        LEFT JOIN trades t USING (number) GROUP BY ALL
        HAVING h.seq <> coalesce(max(t.seq), 0) OR count(t.seq) <> coalesce(max(t.seq) - min(t.seq) + 1, 0)
    """,
    "covered ranges overlap or touch at id {0}": """
        SELECT i.id, from_id FROM
        (SELECT *, lag(to_id) OVER (PARTITION BY number ORDER BY from_id) AS before FROM coverage)
        JOIN instruments i USING (number) WHERE to_id < from_id OR from_id <= before + 1
    """,
    "trades stand for {0} ids, the ledger covers {1}": """
        SELECT i.id, t.ids, c.ids FROM (SELECT number, sum(count) AS ids FROM trades GROUP BY number) t
        LEFT JOIN (SELECT number, sum(to_id - from_id + 1) AS ids FROM coverage GROUP BY number) c USING (number)
        JOIN instruments i USING (number)
        WHERE i.id_kind = 'contiguous' AND t.ids > coalesce(c.ids, 0)
    """,
    "candles are newer than the head (pos {0}, seq {1})": """
        SELECT i.id, max(c.pos), max(c.last_seq) FROM candle_rows c JOIN tape_head h USING (number)
        JOIN instruments i USING (number) WHERE origin = 0 GROUP BY i.id, h.pos, h.seq
        HAVING max(c.pos) > h.pos OR max(c.last_seq) > h.seq
    """,
    "an open candle is also stored as closed (timeframe {0}, opened {1})": """
        SELECT i.id, o.tf, o.open_time FROM open_candles o JOIN candles c USING (number, tf, open_time, origin)
        JOIN instruments i USING (number)
    """,
}


def problems(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """One line per broken invariant, naming the instrument."""
    found = [
        f"{id}: {rule.format(*values)}"
        for rule, sql in _RULES.items()
        for id, *values in connection.execute(sql).fetchall()
    ]
    for number, instrument in instruments(connection)[:SAMPLE]:
        found += _sums(connection, number, instrument)
    return found


def _sums(connection: duckdb.DuckDBPyConnection, number: int, instrument: Instrument) -> list[str]:
    """Compare the newest candles of each timeframe with the sums of those they were made of."""
    newest = {tf.index: _tape(connection, number, tf.index) for tf in BY_INDEX[1:]}
    found = []
    for child, parent in TREE:
        parts, wholes = newest[child], newest[parent]
        if not len(parts):
            continue
        owner = buckets(BY_INDEX[parent], np.ascontiguousarray(parts["open_time"]))
        wholes = wholes[wholes["open_time"] > owner[0]]  # the first may have parts outside the sample
        wrong = wholes["open_time"][_differs(wholes, parts, owner)]
        if len(wrong):
            names = BY_INDEX[parent].name, BY_INDEX[child].name
            first = np.datetime64(int(wrong[0]), "ns")
            found.append(
                f"{instrument.id}: {len(wrong)} of the newest {names[0]} candles are not the sum of their {names[1]} "
                f"candles, the first opens at {first}"
            )
    return found


def _differs(wholes: Candles, parts: Candles, owner: I64) -> npt.NDArray[np.bool_]:
    """Per whole, whether its trades or sums (their low 64 bits: wrong ones differ there too) are not its parts'."""
    differs = np.zeros(len(wholes), bool)
    at = np.searchsorted(wholes["open_time"], owner)
    inside = np.flatnonzero(np.isin(owner, wholes["open_time"]))
    for name in ("trades", "volume_lo", "quote_volume_lo", "taker_buy_volume_lo", "taker_buy_quote_volume_lo"):
        total = np.zeros(len(wholes), parts[name].dtype)
        np.add.at(total, at[inside], parts[name][inside])
        differs |= total != wholes[name]
    return differs


def _tape(connection: duckdb.DuckDBPyConnection, number: int, tf: int) -> Candles:
    newest = (
        f"SELECT {CANDLE_COLUMNS} FROM candle_rows WHERE number = {number} AND tf = {tf} AND origin = 0 "
        f"ORDER BY open_time DESC LIMIT {NEWEST}"
    )
    return fetch_candles(connection.execute(newest))[::-1]
