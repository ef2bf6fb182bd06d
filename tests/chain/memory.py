"""A store of one scanner in memory, strict about the steps it is given."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from tapewick.chain.orders import fold, place
from tapewick.errors import Fenced
from tapewick.scans import (
    Announcement,
    Block,
    Order,
    OrderEvent,
    OrderFilter,
    Placed,
    ScanCommit,
    Scanned,
    ScanStatus,
    Seen,
)

__all__ = ["MemoryScans"]


class MemoryScans:
    """Keeps all of one component. ``steps`` are those that were committed."""

    def __init__(self) -> None:
        self.steps: list[ScanCommit] = []
        self.state: Scanned | None = None
        self.blocks: dict[str, Block] = {}
        self.events: dict[tuple[str, str, int], OrderEvent] = {}
        self.rows: dict[str, Order] = {}
        self.log: list[Announcement] = []
        self.on_bus = 0
        self.fenced = False

    @property
    def canonical(self) -> list[OrderEvent]:
        return sorted(self.events.values(), key=place)

    async def scanned(self, component: str) -> Scanned | None:
        if self.state is None:
            return None
        final = self.state.finalized
        return replace(
            self.state,
            seq=len(self.log),
            said=self.on_bus,
            blocks=tuple(sorted(block for block in self.blocks.values() if block.number >= final)),
            events=tuple(event for event in self.canonical if event.block > final),
        )

    async def events_of(self, component: str, orders: Collection[str]) -> list[OrderEvent]:
        return [event for event in self.canonical if event.order_id in orders]

    async def commit_scan(self, step: ScanCommit, *, holder: str) -> int:
        expected = "" if self.state is None else self.state.cursor_hash
        overruled = self.state is not None and self.state.status in {"RESET", "RECOVERY"} - {step.follows}
        if self.fenced or step.expected != expected or overruled:
            raise Fenced(frozenset([step.component]))
        for hash in step.orphaned:
            self.blocks.pop(hash, None)
        self.events = {name: event for name, event in self.events.items() if event.block_hash not in step.orphaned}
        for block in step.blocks:
            assert block.number not in {held.number for held in self.blocks.values()}, "two blocks at one height"
            self.blocks[block.hash] = block
        for event in step.events:
            name = (event.block_hash, event.tx_hash, event.log_index)
            assert name not in self.events, "an event twice"
            assert (event.tx_hash, event.log_index) not in {(n[1], n[2]) for n in self.events}, "a log applied twice"
            self.events[name] = event
        self.rows |= {order.order_id: order for order in step.orders}
        for order_id in step.gone:
            self.rows.pop(order_id, None)
        self.log += [replace(one, seq=len(self.log) + 1 + i) for i, one in enumerate(step.news)]
        self.state = Scanned(
            cursor=step.cursor,
            cursor_hash=step.cursor_hash,
            confirmed=step.confirmed,
            finalized=step.finalized,
            status=step.status,
            detail=step.detail,
            first_block=step.first_block,
        )
        self.steps.append(step)
        self.check()
        return len(self.log)

    def forget(self, event: OrderEvent) -> None:
        """Lose an event, as no store may."""
        del self.events[event.block_hash, event.tx_hash, event.log_index]
        row = fold(one for one in self.canonical if one.order_id == event.order_id)
        self.rows.pop(event.order_id)
        self.rows |= {} if row is None else {event.order_id: row}

    def order(self, status: ScanStatus) -> None:
        """What an operator orders."""
        assert self.state is not None
        self.state = replace(self.state, status=status)

    def check(self) -> None:
        """Every order is the fold of its canonical events, and there is no other."""
        ids = {event.order_id for event in self.canonical if event.kind != "raw"}
        assert self.rows == {id: fold(e for e in self.canonical if e.order_id == id) for id in ids}

    async def orders(
        self, component: str, *, status: str = "", user: str = "", limit: int = 100, offset: int = 0
    ) -> list[Order]:
        found = [row for row in self.rows.values() if status in ("", row.status) and user in ("", row.user)]
        return sorted(found, key=lambda row: row.created_at, reverse=True)[offset : offset + limit]

    async def said(self, component: str, seq: int) -> None:
        self.on_bus = max(self.on_bus, seq)

    async def order_log(self, component: str, since: int, limit: int) -> list[Announcement]:
        return self.log[since : since + limit]

    async def placed_orders(self, wanted: OrderFilter) -> list[Placed]:
        raise NotImplementedError

    async def seen_events(self, component: str, order_id: str) -> list[Seen]:
        raise NotImplementedError
