"""What a scanner found, made into the one step that is committed: events, the orders they change, and the news."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tapewick.chain.contract import ContractReader
from tapewick.chain.orders import Fold, is_known, place
from tapewick.chain.window import Window, level, named
from tapewick.scans import Announcement, Block, Order, OrderEvent, ScanCommit

if TYPE_CHECKING:
    from tapewick.protocols import ScanStore

__all__ = ["Found", "Steps"]


@dataclass(kw_only=True)
class Found:
    """What one pass over the chain brought. ``events`` may hold some that are stored already."""

    cursor: int
    cursor_hash: str
    confirmed: int
    finalized: int
    blocks: Sequence[Block] = ()
    orphaned: Sequence[Block] = ()
    events: list[OrderEvent] = field(default_factory=list)
    again: frozenset[str] = frozenset()
    """Hashes of the blocks that were looked at a second time."""


class _History:
    """All canonical events of one order, and their fold."""

    def __init__(self) -> None:
        self.events: list[OrderEvent] = []
        self._fold = Fold()

    def add(self, event: OrderEvent) -> Order | None:
        """The order after ``event``."""
        late = bool(self.events) and place(event) < place(self.events[-1])
        self.events.append(event)
        if late:
            self.events.sort(key=place)
            self._refold()
        else:
            self._fold.take(event)
        return self._fold.order()

    def remove(self, event: OrderEvent) -> Order | None:
        """The order without ``event``."""
        self.events = [other for other in self.events if named([other]) != named([event])]
        self._refold()
        return self._fold.order()

    def order(self) -> Order | None:
        return self._fold.order()

    def knows_before(self, event: OrderEvent) -> bool:
        """Whether an earlier event tells what was ordered."""
        return any(is_known(other) and place(other) < place(event) for other in self.events)

    def _refold(self) -> None:
        self._fold = Fold()
        for each in self.events:
            self._fold.take(each)


class Steps:
    """Makes steps of ``component``; reads what the store knows of the orders and the contract of the events."""

    def __init__(self, component: str, store: ScanStore, reader: ContractReader) -> None:
        self._component = component
        self._store = store
        self._reader = reader

    async def made(self, window: Window, found: Found) -> ScanCommit:
        """The step from ``window`` to what was ``found``. Raises what reading the contract raises."""
        orphaned = frozenset(block.hash for block in found.orphaned)
        lost = [event for event in window.events if event.block_hash in orphaned and event.kind != "raw"]
        ripe = [
            event for event in window.ripening(found.confirmed, found.finalized) if event.block_hash not in orphaned
        ]
        ids = {event.order_id for event in (*lost, *ripe, *found.events)}
        stored = await self._store.events_of(self._component, ids) if ids else []
        histories: dict[str, _History] = defaultdict(_History)
        for event in stored:
            histories[event.order_id].add(event)
        there = named(event for event in stored if event.block_hash not in orphaned)
        news = [self._reverted(window, found, event, histories) for event in sorted(lost, key=place, reverse=True)]
        fresh: list[OrderEvent] = []
        for event in sorted(found.events, key=place):
            if named([event]).isdisjoint(there):
                fresh.append(await self._taken(event, histories[event.order_id]))
                there |= named([event])
                news += self._told(found, fresh[-1], f"order.{event.kind}", histories)
        for event in ripe:
            news += self._told(found, event, "order.finality", histories)
        changed = {event.order_id: histories[event.order_id].order() for event in (*lost, *fresh) if event.order_id}
        return window.step(
            self._component,
            cursor=found.cursor,
            cursor_hash=found.cursor_hash,
            confirmed=found.confirmed,
            finalized=found.finalized,
            blocks=tuple(found.blocks),
            orphaned=tuple(block.hash for block in found.orphaned),
            events=tuple(fresh),
            orders=tuple(order for order in changed.values() if order is not None),
            gone=tuple(id for id, order in changed.items() if order is None),
            news=tuple(news),
        )

    async def let_go(self, window: Window, ids: Sequence[str]) -> ScanCommit:
        """The step of a reset that lets go of these orders (of "" the raw events), all of their events reverted."""
        stored = await self._store.events_of(self._component, ids)
        newest = {event.order_id: event for event in stored}
        news = (
            Announcement(
                component=self._component,
                kind="order.reverted",
                order_id=id,
                finality=level(newest[id].block, window.confirmed, window.finalized) if id in newest else "pending",
                confirmations=0,
                event=newest.get(id),
            )
            for id in ids
            if id
        )
        return window.step(
            self._component,
            status="RESET",
            orphaned=tuple(dict.fromkeys(event.block_hash for event in stored)),
            gone=tuple(id for id in ids if id),
            news=tuple(news),
        )

    async def _taken(self, event: OrderEvent, history: _History) -> OrderEvent:
        if event.kind == "raw":
            return event
        if event.kind == "created" or not history.knows_before(event):
            event = await self._reader.completed(event)
        history.add(event)
        return event

    def _reverted(
        self, window: Window, found: Found, event: OrderEvent, histories: dict[str, _History]
    ) -> Announcement:
        return Announcement(
            component=self._component,
            kind="order.reverted",
            order_id=event.order_id,
            finality=level(event.block, window.confirmed, window.finalized),
            confirmations=0,
            event=event,
            order=histories[event.order_id].remove(event),
        )

    def _told(self, found: Found, event: OrderEvent, kind: Any, histories: dict[str, _History]) -> list[Announcement]:
        """One announcement, none for a raw event."""
        if event.kind == "raw":
            return []
        told = Announcement(
            component=self._component,
            kind=kind,
            order_id=event.order_id,
            finality=level(event.block, found.confirmed, found.finalized),
            confirmations=max(0, found.cursor - event.block),
            event=event,
            order=histories[event.order_id].order(),
        )
        return [told]
