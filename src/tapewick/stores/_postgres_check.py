"""What ``doctor`` looks for in a store that answers: invariants that every commit keeps.

Only what indexes answer: a server with years of trades is asked as quickly as an empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["problems"]

_RULES = {
    "the head is not at the last trade (seq {0}, last {1})": """
        SELECT i.id, h.seq, t.last FROM tape_head h JOIN instruments i USING (number)
        CROSS JOIN LATERAL (SELECT max(seq) AS last FROM trades WHERE trades.number = h.number) t
        WHERE coalesce(t.last, 0) > h.seq OR (coalesce(t.last, 0) < h.seq AND NOT EXISTS (
            SELECT FROM retention_floors f WHERE f.number = h.number AND f.tf = 0 AND t.last IS NULL))
    """,
    "covered ranges overlap or touch at id {0}": """
        SELECT i.id, from_id FROM
        (SELECT *, lag(to_id) OVER (PARTITION BY number ORDER BY from_id) AS before FROM coverage) c
        JOIN instruments i USING (number) WHERE to_id < from_id OR from_id <= before + 1
    """,
    "candles are newer than the head (pos {0})": """
        SELECT i.id, max(c.newest) FROM tape_head h JOIN instruments i USING (number)
        CROSS JOIN generate_series(1, 17) AS t
        CROSS JOIN LATERAL (
            (SELECT pos AS newest FROM candles
             WHERE number = h.number AND tf = t AND origin = 0 ORDER BY pos DESC LIMIT 1)
            UNION ALL
            SELECT max(pos) FROM open_candles WHERE number = h.number AND tf = t
        ) c GROUP BY i.id, h.pos HAVING max(c.newest) > h.pos
    """,
    "an open candle is also stored as closed (timeframe {0}, opened {1})": """
        SELECT i.id, o.tf, o.open_time FROM open_candles o JOIN candles c USING (number, tf, open_time, origin)
        JOIN instruments i USING (number)
    """,
}


async def problems(connection: Connection) -> list[str]:
    """One line per broken invariant, naming the instrument."""
    return [
        f"{id}: {rule.format(*values)}" for rule, sql in _RULES.items() for id, *values in await connection.fetch(sql)
    ]
