"""What scanners of chains found: one transaction per step, and how it is read again.

A step holds the row of its scanner from the beginning, so of two scanners one waits and then finds another cursor than
it expected; last of all the lease is looked at by the server's clock, and held until the step is durable.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

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
    from asyncpg import Connection

    from tapewick.stores._postgres_pool import Database

__all__ = ["PostgresScans"]

# A step whose process stands still is ended after seconds: it holds the lease's row, which others wait for.
_SOON = "SET LOCAL idle_in_transaction_session_timeout = '2s'"
_COLUMNS = "cursor, cursor_hash, confirmed, finalized, status, detail, first_block"
_STATE = f"({_COLUMNS}, updated_at) = ($2, $3, $4, $5, $6, $7, $8, now())"
_UNCHANGED = "s.cursor_hash = $9 AND (s.status NOT IN ('RESET', 'RECOVERY') OR s.status = $10)"
_FIRST = f"""
INSERT INTO scanner_state AS s (component, {_COLUMNS}, seq) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)
ON CONFLICT (component) DO UPDATE SET {_STATE} WHERE {_UNCHANGED} RETURNING seq
"""
_NEXT = f"UPDATE scanner_state s SET {_STATE} WHERE component = $1 AND {_UNCHANGED} RETURNING seq"
_SAID = "UPDATE scanner_state SET said = greatest(said, $2) WHERE component = $1"
_HELD = """
SELECT FROM leases WHERE name = $1 AND holder = $2 AND expires_at > clock_timestamp() FOR SHARE
"""
_ORPHAN_EVENTS = "UPDATE order_events SET canonical = false WHERE component = $1 AND block_hash = ANY($2::TEXT[])"
_ORPHAN_BLOCKS = "UPDATE blocks SET canonical = false WHERE component = $1 AND hash = ANY($2::TEXT[])"
_PUT_BLOCKS = """
INSERT INTO blocks SELECT $1, h, n, p, t, true FROM unnest($2::BIGINT[], $3::TEXT[], $4::TEXT[], $5::BIGINT[])
AS new(n, h, p, t) ON CONFLICT (component, hash) DO UPDATE SET canonical = true
"""
_PRUNE = "DELETE FROM blocks WHERE component = $1 AND number < $2"
_PUT_EVENTS = """
INSERT INTO order_events SELECT *, true FROM unnest(
    $1::TEXT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::TEXT[], $6::BIGINT[], $7::BIGINT[], $8::TEXT[], $9::TEXT[],
    $10::JSONB[]
) ON CONFLICT (chain, block_hash, tx_hash, log_index) DO UPDATE SET canonical = true, component = excluded.component,
block = excluded.block, ts = excluded.ts, kind = excluded.kind, order_id = excluded.order_id, fields = excluded.fields
WHERE NOT order_events.canonical RETURNING tx_hash, log_index
"""
_PUT_ORDERS = """
INSERT INTO orders SELECT * FROM unnest(
    $1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::BIGINT[], $7::BIGINT[], $8::BIGINT[], $9::JSONB[]
) ON CONFLICT (component, order_key) DO UPDATE SET status = excluded.status, user_address = excluded.user_address,
last_block = excluded.last_block, created_at = excluded.created_at, updated_at = excluded.updated_at,
body = excluded.body
"""
_GONE = "DELETE FROM orders WHERE component = $1 AND order_key = ANY($2::TEXT[])"
_PUT_NEWS = "INSERT INTO order_log SELECT * FROM unnest($1::TEXT[], $2::BIGINT[], $3::TEXT[], $4::TEXT[], $5::TEXT[])"
_EVENTS = f"SELECT {EVENT_COLUMNS} FROM order_events WHERE component = $1 AND canonical"
_ORDERS = """
SELECT o.component, o.body, s.cursor, s.confirmed, s.finalized FROM orders o JOIN scanner_state s USING (component)
WHERE ($1 = '' OR o.component = $1) AND ($2 = '' OR o.status = $2) AND ($3 = '' OR o.user_address = $3)
AND ($4 = '' OR o.order_key = $4) AND o.last_block <= s.{lead}
AND ($5::BIGINT IS NULL OR (o.created_at, o.component COLLATE "C", o.order_key) < ($5, $6::TEXT, $7::TEXT))
ORDER BY o.created_at DESC, o.component COLLATE "C" DESC, o.order_key DESC LIMIT $8 OFFSET $9
"""


class PostgresScans:
    """The part of a ``PostgresStore`` that is ``protocols.ScanStore``."""

    _database: Database

    async def scanned(self, component: str) -> Scanned | None:
        """What a scanner restarts from, as the primary has it; None before its first step."""
        return await self._database.read(partial(_scanned, component=component), primary=True)

    async def events_of(self, component: str, orders: Collection[str]) -> list[OrderEvent]:
        """Canonical events of these orders by block and log index, as the primary has them."""
        job = partial(_events, component=component, orders=list(orders))
        return await self._database.read(job, primary=True)

    async def commit_scan(self, step: ScanCommit, *, holder: str) -> int:
        """Store a step whole, or raise; the number of the newest announcement. ``Fenced``: ``holder`` does not hold
        the lease, the stored cursor is another than the step expects, or an operator ordered something since."""
        return await self._database.write(partial(_commit, step=step, holder=holder))

    async def said(self, component: str, seq: int) -> None:
        """Remember that announcements up to number ``seq`` are on a bus."""

        async def remember(connection: Connection) -> None:
            await connection.execute(_SAID, component, seq)

        await self._database.write(remember)

    async def orders(
        self, component: str, *, status: str = "", user: str = "", limit: int = 100, offset: int = 0
    ) -> list[Order]:
        """Orders, newest first."""
        wanted = OrderFilter(component, status, user, limit=limit, offset=offset)
        return [one.order for one in await self._database.read(partial(_placed, wanted=wanted), primary=True)]

    async def placed_orders(self, wanted: OrderFilter) -> list[Placed]:
        """Orders with their finality, newest first."""
        return await self._database.read(partial(_placed, wanted=wanted))

    async def seen_events(self, component: str, order_id: str) -> list[Seen]:
        """Canonical events of one order with their finality, the first first."""
        return await self._database.read(partial(_seen, component=component, order_id=order_id))

    async def order_log(self, component: str, since: int, limit: int) -> list[Announcement]:
        """What was announced after number ``since``, ascending."""
        return await self._database.read(partial(_log, component=component, since=since, limit=limit), primary=True)


def _columns(found: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*found, strict=True)]


async def _commit(connection: Connection, step: ScanCommit, holder: str) -> int:
    own = step.component
    await connection.execute(_SOON)
    seq = await _advance(connection, step)
    if step.orphaned:
        await connection.execute(_ORPHAN_EVENTS, own, list(step.orphaned))
        await connection.execute(_ORPHAN_BLOCKS, own, list(step.orphaned))
    if step.blocks:
        await connection.execute(_PUT_BLOCKS, own, *_columns(step.blocks))
    await connection.execute(_PRUNE, own, step.finalized)
    if step.events:
        new = await connection.fetch(_PUT_EVENTS, *_columns(rows.event_rows(step)))
        if len(new) < len(step.events):
            known = {(one.tx_hash, one.log_index) for one in step.events} - {(row[0], row[1]) for row in new}
            raise StoreError(rows.double(own, sorted(known)))
    if step.gone:
        await connection.execute(_GONE, own, [rows.order_key(one) for one in step.gone])
    if step.orders:
        await connection.execute(_PUT_ORDERS, *_columns(rows.order_rows(step)))
    if step.news:
        await connection.execute(_PUT_NEWS, *_columns(rows.news_rows(step, seq)))
        seq += len(step.news)
        await connection.execute("UPDATE scanner_state SET seq = $2 WHERE component = $1", own, seq)
    if await connection.fetchrow(_HELD, lease_name(own), holder) is None:
        raise Fenced(frozenset({own}))
    return seq


async def _advance(connection: Connection, step: ScanCommit) -> int:
    """Move the cursor from where it is expected; the newest number so far. Raises ``Fenced``."""
    sql = _NEXT if step.expected else _FIRST
    state = (*rows.state_row(step), step.expected, step.follows)
    seq: int | None = await connection.fetchval(sql, step.component, *state)
    if seq is None:
        raise Fenced(frozenset({step.component}))
    return seq


async def _scanned(connection: Connection, component: str) -> Scanned | None:
    row = await connection.fetchrow(f"SELECT {_COLUMNS}, seq, said FROM scanner_state WHERE component = $1", component)
    if row is None:
        return None
    blocks = await connection.fetch(
        "SELECT number, hash, parent, ts FROM blocks WHERE component = $1 AND canonical AND number >= $2 "
        "ORDER BY number",
        component,
        row["finalized"],
    )
    events = await connection.fetch(f"{_EVENTS} AND block > $2 ORDER BY block, log_index", component, row["finalized"])
    return Scanned(
        **dict(row),
        blocks=tuple(Block(*block) for block in blocks),
        events=tuple(rows.event(component, one) for one in events),
    )


async def _events(connection: Connection, component: str, orders: list[str]) -> list[OrderEvent]:
    found = await connection.fetch(
        f"{_EVENTS} AND order_id = ANY($2::TEXT[]) ORDER BY block, log_index", component, orders
    )
    return [rows.event(component, row) for row in found]


async def _seen(connection: Connection, component: str, order_id: str) -> list[Seen]:
    state = await connection.fetchrow(
        "SELECT cursor, confirmed, finalized FROM scanner_state WHERE component = $1", component
    )
    if state is None:
        return []
    found = await connection.fetch(f"{_EVENTS} AND order_id = $2 ORDER BY block, log_index", component, order_id)
    return [rows.seen(component, row, Heights(*state)) for row in found]


async def _placed(connection: Connection, wanted: OrderFilter) -> list[Placed]:
    created_at, component, order_id = wanted.before or (None, "", "")
    found = await connection.fetch(
        _ORDERS.format(lead=wanted.lead),
        wanted.component,
        wanted.status,
        wanted.user,
        rows.order_key(wanted.order_id) if wanted.order_id else "",
        created_at,
        component,
        rows.order_key(order_id),
        wanted.limit,
        wanted.offset,
    )
    return [rows.placed(row[0], row[1], Heights(*row[2:5])) for row in found]


async def _log(connection: Connection, component: str, since: int, limit: int) -> list[Announcement]:
    found = await connection.fetch(
        "SELECT seq, body FROM order_log WHERE component = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        component,
        since,
        limit,
    )
    return [rows.announcement(row["seq"], row["body"]) for row in found]
