"""How far a contract has been scanned, and the part of it the chain may still replace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tapewick.chain.orders import place
from tapewick.scans import Block, Finality, OrderEvent, ScanCommit, Scanned

__all__ = ["Window", "level", "named"]


class Window:
    """Heights, the blocks from the newest final one on, and the events that are watched until they are final.

    ``cursor`` is the last block taken in, with its hash (empty where none is known: nothing was scanned yet).
    ``status`` is the stored one as far as is known here, ``first_block`` where scanning began. ``keep``: blocks below
    the cursor whose events are kept even when final.
    """

    def __init__(self, stored: Scanned, keep: int) -> None:
        self.cursor, self.cursor_hash = stored.cursor, stored.cursor_hash
        self.confirmed, self.finalized = stored.confirmed, stored.finalized
        self.blocks = {block.number: block for block in stored.blocks}
        self.events = list(stored.events)
        self.status, self.first_block = stored.status, stored.first_block
        self._keep = keep

    @property
    def lowest(self) -> Block | None:
        """The oldest block held: the anchor no reorganisation may replace, if it is final."""
        return self.blocks[min(self.blocks)] if self.blocks else None

    def above(self, number: int) -> list[Block]:
        """The blocks held above a height, ascending."""
        return [self.blocks[each] for each in sorted(self.blocks) if each > number]

    def ripening(self, confirmed: int, finalized: int) -> list[OrderEvent]:
        """The events that these heights make confirmed or final."""
        return [
            event
            for event in self.events
            if event.kind != "raw"
            and (self.confirmed < event.block <= confirmed or self.finalized < event.block <= finalized)
        ]

    def step(self, component: str, **fields: Any) -> ScanCommit:
        """A step that follows upon this: it stays here, but for what ``fields`` say."""
        here = {"cursor": self.cursor, "cursor_hash": self.cursor_hash, "first_block": self.first_block}
        heights = {"confirmed": self.confirmed, "finalized": self.finalized}
        known = {"component": component, "expected": self.cursor_hash, "follows": self.status}
        return ScanCommit(**{**known, **here, **heights, **fields})

    def apply(self, step: ScanCommit) -> None:
        """A step was committed."""
        lost = frozenset(step.orphaned)
        self.status, self.first_block = step.status, step.first_block
        self.cursor, self.cursor_hash = step.cursor, step.cursor_hash
        self.confirmed, self.finalized = step.confirmed, step.finalized
        kept = [block for block in self.blocks.values() if block.hash not in lost]
        self.blocks = {block.number: block for block in [*kept, *step.blocks] if block.number >= step.finalized}
        oldest = min(step.finalized, step.cursor - self._keep)
        events = [event for event in [*self.events, *step.events] if event.block_hash not in lost]
        self.events = sorted((event for event in events if event.block > oldest), key=place)


def level(block: int, confirmed: int, finalized: int) -> Finality:
    """How sure an event of ``block`` is at these heights."""
    return "finalized" if block <= finalized else "confirmed" if block <= confirmed else "pending"


def named(events: Iterable[OrderEvent]) -> set[tuple[str, str, int]]:
    """What tells events apart."""
    return {(event.block_hash, event.tx_hash, event.log_index) for event in events}
