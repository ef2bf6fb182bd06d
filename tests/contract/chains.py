"""A chain in memory for store tests: blocks with events, the orders they fold to, and the steps a scanner makes."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

from tapewick.scans import Announcement, Block, Order, OrderEvent, ScanCommit

__all__ = ["COMPONENT", "CONTRACT", "USER", "Chain", "fold", "step_of"]

CONTRACT = "0x" + "c0" * 20
COMPONENT = f"31337/{CONTRACT}"
USER = "0x" + "aa" * 20
SECOND = 10**9
_forks = count()


class Chain:
    """A chain in memory whose end can be replaced. Each block has some events, each of an own transaction."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.blocks: list[Block] = []
        self.events: dict[str, list[OrderEvent]] = {}
        self.spare: list[OrderEvent] = []  # of blocks that were replaced: their transactions may come again
        self._transactions = count(1)

    def grow(self, n: int = 1, events: int = 2) -> list[Block]:
        """Add blocks; the new ones."""
        for _ in range(n):
            number, fork = len(self.blocks) + 1, next(_forks)
            parent = self.blocks[-1].hash if self.blocks else "0x00"
            block = Block(number, f"0x{number:04x}{fork:08x}", parent, number * 12 * SECOND)
            self.blocks.append(block)
            self.events[block.hash] = [self._event(block, index) for index in range(events)]
        return self.blocks[-n:]

    def _event(self, block: Block, index: int) -> OrderEvent:
        tx = f"0x{next(self._transactions):064x}"
        if self.spare and self.rng.random() < 0.5:
            tx = self.spare.pop().tx_hash
        order_id = str(self.rng.choice((0, 7, 2**256 - 1, 10**30)) if self.rng.random() < 0.5 else block.number)
        fields = {"user": USER, "amountIn": str(10**25 + block.number), "order.createdAt": "1"}
        return OrderEvent(CONTRACT, block.number, block.hash, tx, index, block.ts, "created", order_id, fields)

    def cut(self, n: int) -> list[Block]:
        """Take the last blocks away; those."""
        gone = self.blocks[-n:]
        self.blocks = self.blocks[:-n]
        self.spare = [event for block in gone for event in self.events[block.hash]]
        return gone

    @property
    def canonical(self) -> list[OrderEvent]:
        return [event for block in self.blocks for event in self.events[block.hash]]


def fold(events: list[OrderEvent]) -> dict[str, Order]:
    """Orders as this test understands them: how many events each has is its amount."""
    orders: dict[str, Order] = {}
    for event in events:
        known = orders.get(event.order_id)
        amount = str(int(known.amount_in) + 1) if known else "1"
        orders[event.order_id] = Order(
            contract=CONTRACT,
            order_id=event.order_id,
            status="PENDING",
            user=USER,
            amount_in=amount,
            block=known.block if known else event.block,
            created_at=known.created_at if known else event.ts,
            last_block=event.block,
            last_block_hash=event.block_hash,
        )
    return orders


def told(kind: Any, event: OrderEvent) -> Announcement:
    return Announcement(
        component=COMPONENT, kind=kind, order_id=event.order_id, finality="pending", confirmations=0, event=event
    )


def step_of(chain: Chain, expected: str, added: list[Block], orphaned: list[Block] = [], **fields: Any) -> ScanCommit:  # noqa: B006
    """The step from ``expected`` to the chain's end."""
    new = [event for block in added for event in chain.events[block.hash]]
    old = [event for block in orphaned for event in chain.events[block.hash]]
    orders, touched = fold(chain.canonical), {event.order_id for event in (*new, *old)}
    last = chain.blocks[-1]
    given: dict[str, Any] = {
        "cursor": last.number,
        "cursor_hash": last.hash,
        "confirmed": max(0, last.number - 2),
        "finalized": max(0, last.number - 5),
        "blocks": tuple(added),
        "orphaned": tuple(block.hash for block in orphaned),
        "events": tuple(new),
        "orders": tuple(orders[one] for one in sorted(touched & orders.keys())),
        "gone": tuple(sorted(touched - orders.keys())),
        "news": (*(told("order.reverted", one) for one in old), *(told("order.created", one) for one in new)),
    }
    return ScanCommit(component=COMPONENT, expected=expected, **(given | fields))
