"""What both SQL stores make of orders, events and announcements: rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from tapewick.scans import Announcement, Finality, Order, OrderEvent, Placed, ScanCommit, Seen, chain_of

__all__ = [
    "EVENT_COLUMNS",
    "Heights",
    "ORDERED",
    "announcement",
    "double",
    "event",
    "event_rows",
    "news_rows",
    "order_key",
    "order_rows",
    "placed",
    "seen",
    "state_row",
]

EVENT_COLUMNS = "block_hash, tx_hash, log_index, block, ts, kind, order_id, fields"
ORDERED = frozenset({"RESET", "RECOVERY"})
"""What an operator writes into a scanner's status, for the scanner to obey."""
_DIGITS = 78  # of the largest uint256


class Heights(NamedTuple):
    """How far a scanner is: what decides about the finality of what it found."""

    cursor: int
    confirmed: int
    finalized: int

    def finality(self, block: int) -> Finality:
        if block <= self.finalized:
            return "finalized"
        return "confirmed" if block <= self.confirmed else "pending"

    def confirmations(self, block: int) -> int:
        return max(0, self.cursor - block)


def order_key(order_id: str) -> str:
    """An order's id as text that sorts as numbers do."""
    return order_id.zfill(_DIGITS)


def state_row(step: ScanCommit) -> list[Any]:
    """Where a scanner is after a step: cursor, its hash, confirmed, finalized, status, detail, first block."""
    heights = [step.cursor, step.cursor_hash, step.confirmed, step.finalized]
    return [*heights, step.status, step.detail, step.first_block]


def order_rows(step: ScanCommit) -> list[tuple[Any, ...]]:
    """Rows of table ``orders``."""
    return [
        (
            step.component,
            order_key(one.order_id),
            one.order_id,
            one.status,
            one.user,
            one.last_block,
            one.created_at,
            one.updated_at,
            msgspec.json.encode(one).decode(),
        )
        for one in step.orders
    ]


def event_rows(step: ScanCommit) -> list[tuple[Any, ...]]:
    """Rows of table ``order_events`` without ``canonical``."""
    chain = chain_of(step.component)
    return [
        (
            chain,
            one.block_hash,
            one.tx_hash,
            one.log_index,
            step.component,
            one.block,
            one.ts,
            one.kind,
            one.order_id,
            msgspec.json.encode(one.fields).decode(),
        )
        for one in step.events
    ]


def news_rows(step: ScanCommit, seq: int) -> list[tuple[Any, ...]]:
    """Rows of table ``order_log``, numbered on from ``seq``."""
    return [
        (step.component, number, one.kind, one.order_id, msgspec.json.encode(one).decode())
        for number, one in enumerate(step.news, seq + 1)
    ]


def event(component: str, row: Sequence[Any]) -> OrderEvent:
    """The event of a row of ``EVENT_COLUMNS``."""
    contract = component.partition("/")[2]
    block_hash, tx_hash, log_index, block, ts, kind, order_id, fields = row
    return OrderEvent(
        contract=contract,
        block=block,
        block_hash=block_hash,
        tx_hash=tx_hash,
        log_index=log_index,
        ts=ts,
        kind=kind,
        order_id=order_id,
        fields=msgspec.json.decode(fields, type=dict[str, str]),
    )


def seen(component: str, row: Sequence[Any], heights: Heights) -> Seen:
    """The same with its finality."""
    one = event(component, row)
    return Seen(one, heights.finality(one.block), heights.confirmations(one.block))


def placed(component: str, body: str, heights: Heights) -> Placed:
    """The order of a stored body."""
    order = msgspec.json.decode(body, type=Order)
    return Placed(component, order, heights.finality(order.last_block), heights.confirmations(order.last_block))


def announcement(seq: int, body: str) -> Announcement:
    """The announcement of a stored body."""
    return msgspec.structs.replace(msgspec.json.decode(body, type=Announcement), seq=seq)


def double(component: str, names: Iterable[tuple[str, int]]) -> str:
    """What to say of logs that are there already."""
    told = ", ".join(f"{tx}/{index}" for tx, index in names)
    return f"the scanner of {component} found logs that count already ({told}): restart it, and report it"
