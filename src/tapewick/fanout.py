"""One channel to many readers: encoded once, each reader bounded, none waited for.

A ``Fanout`` listens to one channel of the market while anybody has subscribed to it. Durable
events go out once per turn of the loop, joined; of provisional candles the first goes out at
once, then the newest every ``flush_s``. A new reader loads history first and is then moved, with
nothing missing and nothing twice, to those that all get the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from tapewick import metrics
from tapewick.channel import Batch, Channel, Page, Seam, Since, span
from tapewick.market import Market
from tapewick.model import I64, CandleBatch, Candles, Change, Head, Reason, State, TradeBatch, position
from tapewick.outbox import Frame, Limits, Outbox

__all__ = ["Admitted", "Fanout", "Request"]

KINDS = {Change.CLOSED: "closed", Change.FINAL: "final", Change.REVISED: "revised"}


class Request(NamedTuple):
    """A wish to follow ``channel``: after ``since``, or from time ``start`` (ns), or from a snapshot
    of the newest ``snapshot`` records (0: none)."""

    channel: Channel
    snapshot: int
    since: Since | None = None
    start: int | None = None


class Admitted(NamedTuple):
    """A request that can be served. ``cursor``: the offset to go on after, None for a snapshot.
    ``recovered``: whether a resume is exact; if not, ``gap`` tells the client what it may have missed."""

    request: Request
    pos: str
    recovered: bool
    cursor: int | None = None
    replayed: int | None = None
    gap: dict[str, object] | None = None


class Fanout:
    """The readers of one channel."""

    def __init__(self, market: Market, channel: Channel, limits: Limits) -> None:
        self.channel, self.name, self.users = channel, channel.name, 0
        self._market, self._limits = market, limits
        self._loop = asyncio.get_running_loop()
        self._key = msgspec.json.encode(channel.name)
        self._groups: dict[Frame, set[Outbox]] = {}
        self._joining: dict[Outbox, Seam] = {}
        self._opened: asyncio.Task[Head] | None = None
        self._epoch = ""
        self._last = self._flushed = 0  # offset of the newest event; where everything up to it is written out
        self._events: list[bytes] = []
        self._flush_soon: asyncio.Handle | None = None
        self._latest: dict[int, CandleBatch] = {}  # by open time; two at most
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # -- readers come and go -----------------------------------------------------------------

    async def open(self) -> None:
        """Listen to the market; every user calls this first."""
        if self._opened is None:
            self._opened = self._loop.create_task(self._attach(), name=f"open {self.name}")
        await asyncio.shield(self._opened)

    async def _attach(self) -> Head:
        head = await self._market.attach(self.channel, self)
        self._epoch = head.epoch
        self._last = self._flushed = self._offset(head)
        return head

    @property
    def _ahead(self) -> int:
        """Every event of this channel up to this offset has been handed to ``durable``."""
        return self._offset(self._market.forwarded(self.channel.instrument))

    def close(self) -> None:
        """Nobody reads any more."""
        self._market.detach(self.channel, self)
        for handle in (self._flush_soon, self._timer):
            if handle is not None:
                handle.cancel()

    def _offset(self, head: Head) -> int:
        return head.seq if self.channel.tf is None else head.pos

    def text_position(self, offset: int) -> str:
        return position(self._epoch, offset)

    async def join(self, outbox: Outbox, admitted: Admitted) -> None:
        """History, then live, for one reader. Returns when it is live or has left."""
        request, offset = admitted.request, admitted.cursor
        has_open = offset is None
        if offset is None:
            offset = await self._send_snapshot(outbox, request)
        if offset is not None:
            await self.rejoin(outbox, offset, stale=not has_open)

    async def _send_snapshot(self, outbox: Outbox, request: Request) -> int | None:
        """Send the snapshot; the offset from which live data goes on, None if the reader left.

        The first page's: rows of one page may change while the next is read.
        """
        first: int | None = None
        start = request.start
        while True:
            await outbox.drained()
            if self.name not in outbox.channels:
                return None
            page = await self._market.snapshot(self.channel, request.snapshot, start)
            outbox.raw(outbox.frame(self._snapshot_text(page)))
            first = page.offset if first is None else first
            if not page.more:
                return first
            if isinstance(page.batch, TradeBatch):
                return page.offset
            start = int(page.batch.rows["open_time"][-1]) + 1

    async def rejoin(self, outbox: Outbox, offset: int, *, stale: bool = True) -> None:
        """Everything after ``offset``, then live. ``stale``: the reader lacks the newest open candle."""
        while True:
            await outbox.drained()
            if self.name not in outbox.channels or outbox.closed:
                return
            seam = self._joining[outbox] = Seam(stale=stale)
            try:
                page = await self._market.page(self.channel, offset)
            except BaseException:
                self._joining.pop(outbox, None)
                raise
            if self._joining.get(outbox) is not seam:
                return  # it left meanwhile
            self._send(outbox, page.batch, replay=True)
            offset = page.offset
            if page.more or seam.broken:
                del self._joining[outbox]
                stale = stale or seam.stale
                continue
            for batch in seam.settle(offset):
                self._send(outbox, batch)
            if self._ahead >= offset:
                self._promote(outbox)
            return

    def _promote(self, outbox: Outbox) -> None:
        """The reader has seen all that was handled: from now on it gets what all get."""
        self._flush()
        seam = self._joining.pop(outbox)
        self._groups.setdefault(outbox.frame, set()).add(outbox)
        if seam.stale and self.channel.tf is not None:
            candle = self._market.open_candle(self.channel.instrument, self.channel.tf)
            if candle is not None:
                outbox.raw(outbox.frame(self._update_text(candle, candle.rows)))

    def leave(self, outbox: Outbox) -> None:
        """Send this reader nothing more."""
        self._joining.pop(outbox, None)
        group = self._groups.get(outbox.frame)
        if group is not None:
            group.discard(outbox)
            if not group:
                del self._groups[outbox.frame]
        outbox.forget(self)

    # -- live data ---------------------------------------------------------------------------

    def durable(self, batch: Batch) -> None:
        before, self._last = self._last, max(self._last, span(batch)[1])
        if self._groups:
            self._events += self._texts(batch, before)
            if self._flush_soon is None:
                self._flush_soon = self._loop.call_soon(self._flush)
            self._drop_settled(batch)
        for outbox, seam in list(self._joining.items()):
            rest = seam.live(batch)
            if rest is not None:
                self._send(outbox, rest)
        self._promote_settled()

    def _promote_settled(self) -> None:
        """Those whose history reached further than the live data then had, and now does not."""
        for outbox, seam in list(self._joining.items()):
            if seam.floor is not None and seam.floor <= self._ahead:
                self._promote(outbox)

    def provisional(self, batch: CandleBatch) -> None:
        for seam in self._joining.values():
            seam.stale = True
        self._promote_settled()
        if not self._groups:
            return
        open_time = int(batch.rows["open_time"][0])
        self._latest[open_time] = batch
        while len(self._latest) > 2:  # a bucket's last value is news too; older ones are not
            del self._latest[min(self._latest)]
        now = self._loop.time()
        if now >= self._due:
            self._flush_latest()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._due, self._flush_latest)

    def restarted(self) -> None:
        self._events.clear()
        self._latest.clear()
        head = self._market.forwarded(self.channel.instrument)
        gap = {
            "type": "gap",
            "ch": self.name,
            "from": self.text_position(self._flushed),
            "to": position(head.epoch, self._offset(head)),
            "reason": "epoch",
        }
        self._epoch = head.epoch
        self._last = self._flushed = self._offset(head)
        readers = [outbox for group in self._groups.values() for outbox in group] + list(self._joining)
        self._groups.clear()
        self._joining.clear()
        afresh = Admitted(Request(self.channel, 100), "", False)
        for outbox in readers:
            outbox.control(gap)
            outbox.work(lambda outbox=outbox: self.join(outbox, afresh))  # type: ignore[misc]

    def _drop_settled(self, batch: Batch) -> None:
        """A waiting open candle that has been closed since is no news."""
        if isinstance(batch, CandleBatch) and self._latest:
            settled = batch.rows["open_time"][batch.rows["state"] != State.OPEN]
            for open_time in settled.tolist():
                self._latest.pop(open_time, None)

    def _flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        events, self._events = self._events, []
        if events:
            metrics.frames.inc(len(events))
            for frame, group in self._groups.items():
                data = b"".join(map(frame, events))
                metrics.wire_bytes.inc(len(data) * len(group))
                behind = [outbox for outbox in group if not outbox.event(data)]
                for outbox in behind:
                    group.discard(outbox)
                    outbox.left_behind(self, self._flushed)
        self._flushed = self._ahead

    def _flush_latest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        latest, self._latest = self._latest, {}
        if not latest:
            return
        self._flush()
        self._due = self._loop.time() + self._limits.flush_s
        batches = [latest[open_time] for open_time in sorted(latest)]
        rows = batches[0].rows if len(batches) == 1 else np.concatenate([batch.rows for batch in batches])
        text = self._update_text(batches[-1], rows)
        metrics.frames.inc()
        for frame, group in self._groups.items():
            data = frame(text)
            metrics.wire_bytes.inc(len(data) * len(group))
            for outbox in group:
                outbox.latest(self, data)

    def _send(self, outbox: Outbox, batch: Batch, *, replay: bool = False) -> None:
        for text in self._texts(batch, max(0, span(batch)[0] - 1), replay=replay):
            outbox.raw(outbox.frame(text))

    # -- texts -------------------------------------------------------------------------------

    def _head(self, kind: str, offset: int, extra: bytes = b"") -> bytes:
        pos = position(self._epoch, offset).encode()
        ts = self._market.now() // 1_000_000
        return b'{"type":"%s","ch":%s,"pos":"%s"%s,"ts":%d,"data":' % (kind.encode(), self._key, pos, extra, ts)

    def _snapshot_text(self, page: Page) -> bytes:
        return self._head("snapshot", page.offset) + self._market.encode(page.batch) + b"}"

    def _update_text(self, batch: CandleBatch, rows: Candles) -> bytes:
        """Open candles; ``pos`` is where the channel stands durably, which this does not advance."""
        part = CandleBatch(
            instrument=batch.instrument, rows=rows, price_scale=batch.price_scale, size_scale=batch.size_scale
        )
        return self._head("update", self._ahead) + self._market.encode(part) + b"}"

    def _texts(self, batch: Batch, before: int, *, replay: bool = False) -> Iterator[bytes]:
        """The event frames of a durable batch; ``before``: the offset that precedes it."""
        if isinstance(batch, TradeBatch):
            first, last = span(batch)
            if last >= 0:
                extra = b',"from":"%s"' % position(self._epoch, first).encode()
                extra += b',"late":true' if batch.late else b""
                yield self._head("event", last, extra) + self._market.encode(batch) + b"}"
            return
        yield from self._candle_texts(batch, before, replay=replay)

    def _candle_texts(self, batch: CandleBatch, before: int, *, replay: bool) -> Iterator[bytes]:
        """One frame per run of rows of the same kind, in order of ``pos``.

        Rows of one commit share a ``pos``. A frame that is not the last of its commit prints the
        position before it: a reader cut off in between must get the whole commit again.
        """
        rows = batch.rows[np.argsort(batch.rows["pos"], kind="stable")]
        changes = _changes(rows)
        if not replay:  # an open row is news on the provisional lane only
            rows, changes = rows[changes != Change.OPEN], changes[changes != Change.OPEN]
        if not len(rows):
            return
        reasons = np.where(changes == Change.REVISED, rows["reason"], 0)
        cuts = (changes[1:] != changes[:-1]) | (reasons[1:] != reasons[:-1])
        starts = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(rows)]
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
            data = self._market.encode(part) + b"}"
            change, reason = Change(int(changes[start])), Reason(int(reasons[start]))
            if change == Change.OPEN:
                yield self._head("update", offset) + data
            else:
                because = b"" if reason == Reason.PROOF else b',"reason":"%s"' % reason.name.lower().encode()
                yield self._head("event", offset, b',"kind":"%s"%s' % (KINDS[change].encode(), because)) + data


def _changes(rows: Candles) -> I64:
    """The ``Change`` of each row; a row read from the store may not tell, its state and ``rev`` do."""
    told = rows["change"].astype(np.int64)
    later = np.where(rows["state"] == State.FINAL, Change.FINAL, Change.REVISED)
    derived = np.where(rows["rev"] == 0, Change.CLOSED, later)
    return np.where(rows["state"] == State.OPEN, Change.OPEN, np.where(told != Change.OPEN, told, derived))
