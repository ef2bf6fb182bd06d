"""The frames of a channel of trades or candles: encoded once, the same for every reader.

``Frames`` writes JSON; a subclass may write ``data`` and ``skip`` in another format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from tapewick.channel import Batch, Channel, Page, span
from tapewick.market import Market
from tapewick.model import I64, CandleBatch, Candles, Change, Reason, State, TradeBatch, position

__all__ = ["Frames", "NsFrames", "Text"]

MOST_ROWS = 10_000  # in one frame; gRPC clients take no message above 4 MiB
KINDS = {Change.CLOSED: "closed", Change.FINAL: "final", Change.REVISED: "revised"}


class Text(NamedTuple):
    """One encoded event: ``late`` trades, from offset ``first`` to ``last``. ``position``: where a reader
    stands that has seen it; empty if that does not change."""

    data: bytes
    late: bool = False
    first: int = 0
    last: int = 0
    position: bytes = b""


class Frames:
    """Writes the frames of ``channel``; ``epoch`` is that of its tape."""

    ns = False

    def __init__(self, market: Market, channel: Channel) -> None:
        self._market, self._channel, self._key = market, channel, msgspec.json.encode(channel.name)
        self.epoch = ""

    def data(
        self,
        type: str,
        offset: int | None,
        batch: Batch,
        *,
        first: int = 0,
        late: bool = False,
        kind: str = "",
        why: str = "",
    ) -> bytes:
        """One frame with rows. ``offset``: of its last record, None for a frame that has no position; ``first``: of
        its first record, where it is told; ``why``: the reason."""
        extra = "" if offset is None else f',"pos":"{position(self.epoch, offset)}"'
        extra += f',"from":"{position(self.epoch, first)}"' if first else ""
        extra += ',"late":true' if late else ""
        extra += f',"kind":"{kind}"' if kind else ""
        extra += f',"reason":"{why}"' if why else ""
        head = b'{"type":"%s","ch":%s%s,"ts":%d,"data":'
        ts = self._market.now() // 1_000_000
        return head % (type.encode(), self._key, extra.encode(), ts) + self._market.encode(batch, ns=self.ns) + b"}"

    async def history(self, count: int, start: int | None = None) -> Page:
        """What a snapshot of ``count`` records shows, as ``Market.snapshot``."""
        return await self._market.snapshot(self._channel, count, start)

    def position(self, offset: int) -> bytes:
        return position(self.epoch, offset).encode()

    def snapshot(self, page: Page) -> bytes:
        return self.data("snapshot", page.offset, page.batch)

    def update(self, batch: CandleBatch, rows: Candles) -> bytes:
        """Open candles: provisional, so that the frame has no position; each row tells that of its stored version."""
        part = CandleBatch(
            instrument=batch.instrument, rows=rows, price_scale=batch.price_scale, size_scale=batch.size_scale
        )
        return self.data("update", None, part)

    def events(self, batch: Batch, before: int, *, replay: bool = False) -> Iterator[Text]:
        """The event frames of a durable batch; ``before``: the offset that precedes it."""
        if isinstance(batch, TradeBatch):
            for part in _runs(batch):
                first, last = span(part)
                text = self.data("event", last, part, first=first, late=part.late)
                yield Text(text, part.late, first, last, self.position(last))
            return
        yield from self._candles(batch, before, replay=replay)

    def _candles(self, batch: CandleBatch, before: int, *, replay: bool) -> Iterator[Text]:
        """One frame per run of rows of the same kind, in order of ``pos``.

        Rows of one commit share a ``pos``. A frame that is not the last of its commit prints the
        position before it: a reader cut off in between must get the whole commit again.
        """
        if not replay and not any(batch.rows["state"].tolist()):  # all open: so are almost all that commits bring
            return
        rows = batch.rows[np.argsort(batch.rows["pos"], kind="stable")]
        changes = _changes(rows)
        if not replay:  # an open row is news on the provisional lane only
            rows, changes = rows[changes != Change.OPEN], changes[changes != Change.OPEN]
        if not len(rows):
            return
        reasons = np.where(changes == Change.REVISED, rows["reason"], 0)
        cuts = (changes[1:] != changes[:-1]) | (reasons[1:] != reasons[:-1])
        edges = {*(np.flatnonzero(cuts) + 1).tolist(), *range(0, len(rows), MOST_ROWS), len(rows)}
        starts = sorted(edges)
        pos = rows["pos"].tolist()
        for start, end in zip(starts, starts[1:], strict=False):
            part = CandleBatch(
                instrument=batch.instrument,
                rows=rows[start:end],
                price_scale=batch.price_scale,
                size_scale=batch.size_scale,
            )
            offset = pos[end - 1]
            if end < len(rows) and pos[end] == offset:
                offset = next((p for p in reversed(pos[:end]) if p < offset), before)
            change, reason = Change(int(changes[start])), Reason(int(reasons[start]))
            if change == Change.OPEN:
                yield Text(self.data("update", None, part))
            else:
                why = "" if reason == Reason.PROOF else reason.name.lower()
                text = self.data("event", offset, part, kind=KINDS[change], why=why)
                yield Text(text, position=self.position(offset))

    def skip(self, first: int, last: int) -> bytes:
        """Late trades from ``first`` to ``last``, told by their number only."""
        text = b'{"type":"skip","ch":%s,"from":"%s","to":"%s","count":%d}'
        ends = (position(self.epoch, offset).encode() for offset in (first, last))
        return text % (self._key, *ends, last - first + 1)


class NsFrames(Frames):
    """Frames whose rows tell times as decimal texts of ns."""

    ns = True


def _runs(batch: TradeBatch) -> list[TradeBatch]:
    """Trades cut where late ones and others follow each other, and where there are too many for one frame."""
    if batch.seq is None or not len(batch):
        return []
    late, rows = batch.late_rows, np.arange(len(batch), dtype=np.int64)
    mixed = late is not None and bool(late.any())
    if not mixed and len(batch) <= MOST_ROWS:
        return [batch]
    late = late if late is not None and mixed else np.full(len(batch), batch.late)
    edges = {*(np.flatnonzero(late[1:] != late[:-1]) + 1).tolist(), *range(MOST_ROWS, len(batch), MOST_ROWS)}
    runs = np.split(rows, sorted(edges))
    return [replace(batch.select(run), late=bool(late[run[0]]), late_rows=None) for run in runs]


def _changes(rows: Candles) -> I64:
    """The ``Change`` of each row; a row read from the store may not tell, its state and ``rev`` do."""
    told = rows["change"].astype(np.int64)
    later = np.where(rows["state"] == State.FINAL, Change.FINAL, Change.REVISED)
    derived = np.where(rows["rev"] == 0, Change.CLOSED, later)
    return np.where(rows["state"] == State.OPEN, Change.OPEN, np.where(told != Change.OPEN, told, derived))
