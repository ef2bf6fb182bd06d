"""From what the decoder found to what travels on the bus: trade batches, and the newest quotes."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tapewick.engine import Group, QuoteGroup
from tapewick.model import I64, Quote, TradeBatch

__all__ = ["Batches", "ranges"]


class Batches:
    """Makes batches and quotes of ``source``; ``jumps`` counts holes seen in ids, by instrument."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._newest: dict[str, int] = {}
        self._quoted: dict[str, int] = {}
        self.jumps: Counter[str] = Counter()

    def trades(self, instrument: str, group: Group, clock: int) -> TradeBatch:
        """The group's columns as a batch; ids the venue used for no trade are vouched for."""
        covers = None
        if len(group.voids):
            covers = ranges(group.first_id, group.trade_id, group.voids)
        elif len(group.trade_id):
            self._count_jumps(instrument, group.first_id, group.trade_id)
        return TradeBatch(
            instrument=instrument,
            trade_id=group.trade_id,
            first_id=group.first_id,
            count=group.count,
            ts_event=group.ts_event,
            ts_recv=group.ts_recv,
            price=group.price,
            size=group.size,
            side=group.side,
            price_scale=group.price_scale,
            size_scale=group.size_scale,
            covers=covers,
            clock=clock,
            source=self._source,
        )

    def quote(self, instrument: str, group: QuoteGroup) -> Quote | None:
        """The newest best bid and ask of the group; None if a newer one went out before (another connection's)."""
        at = len(group) - 1
        id = int(group.update_id[at])
        if id <= self._quoted.get(instrument, -1):
            return None
        self._quoted[instrument] = id
        return Quote(
            instrument=instrument,
            update_id=id,
            bid=int(group.bid[at]),
            bid_size=int(group.bid_size[at]),
            ask=int(group.ask[at]),
            ask_size=int(group.ask_size[at]),
            ts_event=int(group.ts_event[at]),
            ts_recv=int(group.ts_recv[at]),
            price_scale=group.price_scale,
            size_scale=group.size_scale,
            source=self._source,
        )

    def reconnected(self) -> None:
        """Update ids may have begun anew."""
        self._quoted.clear()

    def _count_jumps(self, instrument: str, first_id: I64, trade_id: I64) -> None:
        newest, last = self._newest.get(instrument), trade_id.item(-1)
        holes = int(newest is not None and first_id.item(0) > newest + 1)
        if len(trade_id) > 1:
            holes += int(np.count_nonzero(first_id[1:] > trade_id[:-1] + 1))
        if holes:
            self.jumps[instrument] += holes
        if newest is None or last > newest:
            self._newest[instrument] = last


def ranges(first_id: I64, last_id: I64, voids: I64) -> tuple[tuple[int, int], ...]:
    """Closed id ranges that trades and void ids cover together, ascending and merged."""
    starts = np.concatenate([first_id, voids])
    ends = np.concatenate([last_id, voids])
    merged: list[tuple[int, int]] = []
    for at in np.argsort(starts, kind="stable").tolist():
        start, end = int(starts[at]), int(ends[at])
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)
