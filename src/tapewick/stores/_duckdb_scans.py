"""What scanners of chains found: one transaction per step on the one writer, and how it is read again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb

from tapewick.errors import Fenced, StoreError
from tapewick.scans import (
    Announcement,
    Block,
    Order,
    OrderEvent,
    OrderFilter,
    Placed,
    ScanCommit,
    Scanned,
    Seen,
    lease_name,
)
from tapewick.stores import _scan_rows as rows
from tapewick.stores._scan_rows import EVENT_COLUMNS, Heights

if TYPE_CHECKING:
    from tapewick.stores._duckdb_file import DuckDBFile
    from tapewick.stores._duckdb_leases import LeaseTable

__all__ = ["DuckDBScans"]

Connection = duckdb.DuckDBPyConnection

_STATE = "cursor, cursor_hash, confirmed, finalized, status, detail, first_block"
_EVENTS = f"SELECT {EVENT_COLUMNS} FROM order_events WHERE component = ? AND canonical"
_ORPHAN_EVENTS = "UPDATE order_events SET canonical = false WHERE component = ? AND list_contains(?, block_hash)"
_ORPHAN_BLOCKS = "UPDATE blocks SET canonical = false WHERE component = ? AND list_contains(?, hash)"
_DROP_BLOCKS = "DELETE FROM blocks WHERE component = ? AND (number < ? OR list_contains(?, hash))"
_KNOWN = """
SELECT tx_hash, log_index FROM order_events WHERE chain = ? AND canonical
AND list_contains(?, tx_hash || '/' || log_index)
"""
_DROP_EVENTS = """
DELETE FROM order_events WHERE chain = ? AND list_contains(?, block_hash || '/' || tx_hash || '/' || log_index)
"""
_ORDERS = """
SELECT o.component, o.body, s.cursor, s.confirmed, s.finalized FROM orders o JOIN scanner_state s USING (component)
WHERE ($1 = '' OR o.component = $1) AND ($2 = '' OR o.status = $2) AND ($3 = '' OR o.user_address = $3)
AND ($4 = '' OR o.order_key = $4) AND o.last_block <= s.{lead}
AND ($5::BIGINT IS NULL OR (o.created_at, o.component, o.order_key) < ($5::BIGINT, $6, $7))
ORDER BY o.created_at DESC, o.component DESC, o.order_key DESC LIMIT $8 OFFSET $9
"""


class DuckDBScans:
    """The part of a ``DuckDBStore`` that is ``protocols.ScanStore``."""

    _file: DuckDBFile
    _leases: LeaseTable

    async def scanned(self, component: str) -> Scanned | None:
        """What a scanner restarts from; None before its first step."""
        return await self._file.read(partial(_scanned, component=component))

    async def events_of(self, component: str, orders: Collection[str]) -> list[OrderEvent]:
        """Canonical events of these orders by block and log index."""
        return await self._file.read(partial(_events, component=component, orders=list(orders)))

    async def commit_scan(self, step: ScanCommit, *, holder: str) -> int:
        """Store a step whole, or raise; the number of the newest announcement. ``Fenced``: ``holder`` does not hold
        the lease, the stored cursor is another than the step expects, or an operator ordered something since."""
        held = partial(self._leases.holds, lease_name(step.component), holder)
        return await self._file.write(partial(_commit, step=step, held=held))

    async def said(self, component: str, seq: int) -> None:
        """Remember that announcements up to number ``seq`` are on a bus."""
        sql = "UPDATE scanner_state SET said = greatest(said, ?) WHERE component = ?"
        await self._file.write(partial(_execute, sql=sql, values=[seq, component]))

    async def orders(
        self, component: str, *, status: str = "", user: str = "", limit: int = 100, offset: int = 0
    ) -> list[Order]:
        """Orders, newest first."""
        wanted = OrderFilter(component, status, user, limit=limit, offset=offset)
        return [one.order for one in await self.placed_orders(wanted)]

    async def placed_orders(self, wanted: OrderFilter) -> list[Placed]:
        """Orders with their finality, newest first."""
        return await self._file.read(partial(_placed, wanted=wanted))

    async def seen_events(self, component: str, order_id: str) -> list[Seen]:
        """Canonical events of one order with their finality, the first first."""
        return await self._file.read(partial(_seen, component=component, order_id=order_id))

    async def order_log(self, component: str, since: int, limit: int) -> list[Announcement]:
        """What was announced after number ``since``, ascending."""
        return await self._file.read(partial(_log, component=component, since=since, limit=limit))


def _insert(connection: Connection, table: str, found: Sequence[tuple[Any, ...]]) -> None:
    """Add rows in one statement."""
    if found:
        places = ", ".join("?" * len(found[0]))
        values = ", ".join([f"({places})"] * len(found))
        connection.execute(f"INSERT INTO {table} VALUES {values}", [value for row in found for value in row])


def _execute(connection: Connection, sql: str, values: list[Any]) -> None:
    connection.execute(sql, values)


def _commit(connection: Connection, step: ScanCommit, held: Callable[[], bool]) -> int:
    own = step.component
    seq = _advance(connection, step)
    if step.orphaned:
        connection.execute(_ORPHAN_EVENTS, [own, list(step.orphaned)])
        connection.execute(_ORPHAN_BLOCKS, [own, list(step.orphaned)])
    connection.execute(_DROP_BLOCKS, [own, step.finalized, [block.hash for block in step.blocks]])
    _insert(connection, "blocks", [(own, b.hash, b.number, b.parent, b.ts, True) for b in step.blocks])
    _put_events(connection, step)
    keys = [rows.order_key(one) for one in (*step.gone, *(order.order_id for order in step.orders))]
    connection.execute("DELETE FROM orders WHERE component = ? AND list_contains(?, order_key)", [own, keys])
    _insert(connection, "orders", rows.order_rows(step))
    _insert(connection, "order_log", rows.news_rows(step, seq))
    seq += len(step.news)
    connection.execute("UPDATE scanner_state SET seq = ? WHERE component = ?", [seq, own])
    if not held():
        raise Fenced(frozenset({own}))
    return seq


def _advance(connection: Connection, step: ScanCommit) -> int:
    """Move the cursor from where it is expected; the newest number so far. Raises ``Fenced``."""
    row = connection.execute(
        "SELECT cursor_hash, status, seq FROM scanner_state WHERE component = ?", [step.component]
    ).fetchone()
    expected, status, seq = row or ("", step.follows, 0)
    if expected != step.expected or status in rows.ORDERED - {step.follows}:
        raise Fenced(frozenset({step.component}))
    state = rows.state_row(step)
    if row is None:
        connection.execute(
            f"INSERT INTO scanner_state (component, {_STATE}, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
            [step.component, *state],
        )
    else:
        connection.execute(
            "UPDATE scanner_state SET cursor = ?, cursor_hash = ?, confirmed = ?, finalized = ?, status = ?, "
            "detail = ?, first_block = ?, updated_at = now() WHERE component = ?",
            [*state, step.component],
        )
    return int(seq)


def _put_events(connection: Connection, step: ScanCommit) -> None:
    """Add events; those known of a block that was replaced, and counts again, are written anew."""
    if not step.events:
        return
    wanted = rows.event_rows(step)
    names = [f"{row[2]}/{row[3]}" for row in wanted]
    there = connection.execute(_KNOWN, [wanted[0][0], names]).fetchall()
    if there or len(set(names)) < len(names):
        twice = [(row[2], row[3]) for at, row in enumerate(wanted) if names[at] in names[:at]]
        raise StoreError(rows.double(step.component, sorted({*there, *twice})))
    connection.execute(_DROP_EVENTS, [wanted[0][0], [f"{row[1]}/{row[2]}/{row[3]}" for row in wanted]])
    _insert(connection, "order_events", [(*row, True) for row in wanted])


def _state(connection: Connection, component: str) -> tuple[Any, ...] | None:
    sql = f"SELECT {_STATE}, seq, said FROM scanner_state WHERE component = ?"
    return connection.execute(sql, [component]).fetchone()


def _scanned(connection: Connection, component: str) -> Scanned | None:
    state = _state(connection, component)
    if state is None:
        return None
    told = dict(zip((*_STATE.split(", "), "seq", "said"), state, strict=True))
    blocks = connection.execute(
        "SELECT number, hash, parent, ts FROM blocks WHERE component = ? AND canonical AND number >= ? ORDER BY number",
        [component, told["finalized"]],
    ).fetchall()
    events = connection.execute(
        f"{_EVENTS} AND block > ? ORDER BY block, log_index", [component, told["finalized"]]
    ).fetchall()
    return Scanned(
        **told,
        blocks=tuple(Block(*block) for block in blocks),
        events=tuple(rows.event(component, one) for one in events),
    )


def _events(connection: Connection, component: str, orders: list[str]) -> list[OrderEvent]:
    found = connection.execute(
        f"{_EVENTS} AND list_contains(?, order_id) ORDER BY block, log_index", [component, orders]
    ).fetchall()
    return [rows.event(component, row) for row in found]


def _seen(connection: Connection, component: str, order_id: str) -> list[Seen]:
    state = _state(connection, component)
    if state is None:
        return []
    heights = Heights(state[0], state[2], state[3])
    found = connection.execute(
        f"{_EVENTS} AND order_id = ? ORDER BY block, log_index", [component, order_id]
    ).fetchall()
    return [rows.seen(component, row, heights) for row in found]


def _placed(connection: Connection, wanted: OrderFilter) -> list[Placed]:
    created_at, component, order_id = wanted.before or (None, "", "")
    found = connection.execute(
        _ORDERS.format(lead=wanted.lead),
        [
            wanted.component,
            wanted.status,
            wanted.user,
            rows.order_key(wanted.order_id) if wanted.order_id else "",
            created_at,
            component,
            rows.order_key(order_id),
            wanted.limit,
            wanted.offset,
        ],
    ).fetchall()
    return [rows.placed(row[0], row[1], Heights(*row[2:5])) for row in found]


def _log(connection: Connection, component: str, since: int, limit: int) -> list[Announcement]:
    found = connection.execute(
        "SELECT seq, body FROM order_log WHERE component = ? AND seq > ? ORDER BY seq LIMIT ?",
        [component, since, limit],
    ).fetchall()
    return [rows.announcement(*row) for row in found]
