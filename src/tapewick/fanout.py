"""One channel to many readers: encoded once, each reader bounded, none waited for.

A ``Fanout`` listens to one channel of the market while anybody has subscribed to it. Durable
events go out once per turn of the loop, joined; of provisional candles the first goes out at
once, then the newest every ``flush_s`` (``Rhythm``). A new reader loads history first and is then moved, with
nothing missing and nothing twice, to those that all get the same bytes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from tapewick import metrics
from tapewick.channel import Batch, Channel, Page, Seam, span
from tapewick.crowd import Crowd
from tapewick.frames import Frames, Text
from tapewick.market import Market
from tapewick.model import CandleBatch, Head, State, TradeBatch, position
from tapewick.outbox import Frame, Limits, Outbox
from tapewick.readers import Admitted, Request
from tapewick.rhythm import Rhythm

__all__ = ["Fanout"]

QUIET = 1.0  # seconds without another late trade after which a run of them is told to those who skip them


@dataclass(slots=True)
class Skipped:
    """A run of late trades that readers who do not want them have not been told of yet."""

    first: int = 0
    last: int = 0

    def add(self, text: Text) -> None:
        self.first, self.last = self.first or text.first, text.last

    def take(self) -> tuple[int, int] | None:
        """First and last offset of the run, which has ended; None if there was none."""
        run = (self.first, self.last) if self.first else None
        self.first = self.last = 0
        return run


@dataclass(slots=True)
class Replay:
    """How far the history of one reader has been sent. ``stale``: it lacks the newest open candle."""

    offset: int
    stale: bool
    skipped: Skipped = field(default_factory=Skipped)
    seam: Seam | None = None


class Fanout:
    """The readers of one channel. ``every``: no open candle is replaced by a newer one before it was sent."""

    def __init__(
        self, market: Market, channel: Channel, limits: Limits, frames: type[Frames] = Frames, *, every: bool = False
    ) -> None:
        self.channel, self.name, self.users = channel, channel.name, 0
        self._market, self._limits, self._every = market, limits, every
        self._loop = asyncio.get_running_loop()
        self._frames = frames(market, channel)
        self._groups: dict[tuple[Frame, bool], Crowd] = {}  # by framing, and whether late trades are skipped
        self._skipping: set[Outbox] = set()
        self._skipped, self._told = Skipped(), 0  # their run of late trades, and what they were told before it
        self._quiet: asyncio.TimerHandle | None = None
        self._joining: dict[Outbox, Seam] = {}
        self._opened: asyncio.Task[Head] | None = None
        self._last = self._flushed = 0  # offset of the newest event; where everything up to it is written out
        self._events: list[Text] = []
        self._flush_soon: asyncio.Handle | None = None
        self._latest: dict[int, CandleBatch] = {}  # by open time; two at most
        self._rhythm = Rhythm(limits.flush_s)
        self._timer: asyncio.TimerHandle | None = None

    # -- readers come and go -----------------------------------------------------------------

    async def open(self) -> None:
        """Listen to the market; every user calls this first."""
        if self._opened is None or _failed(self._opened):
            self._opened = self._loop.create_task(self._attach(), name=f"open {self.name}")
        await asyncio.shield(self._opened)

    async def _attach(self) -> Head:
        head = await self._market.attach(self.channel, self)
        self._frames.epoch = head.epoch
        self._last = self._flushed = self._told = self._offset(head)
        return head

    @property
    def _ahead(self) -> int:
        """Every event of this channel up to this offset has been handed to ``durable``."""
        return self._offset(self._market.forwarded(self.channel.instrument))

    def close(self) -> None:
        """Nobody reads any more."""
        if self._opened is not None:
            self._opened.cancel()  # it would listen after all
        self._market.detach(self.channel, self)
        for handle in (self._flush_soon, self._timer, self._quiet):
            if handle is not None:
                handle.cancel()

    def _offset(self, head: Head) -> int:
        return head.seq if self.channel.tf is None else head.pos

    def text_position(self, offset: int) -> str:
        return position(self._frames.epoch, offset)

    async def join(self, outbox: Outbox, admitted: Admitted) -> None:
        """History, then live, for one reader: its snapshot and the first page at once, more in turns."""
        request, offset = admitted.request, admitted.cursor
        has_open = offset is None
        if request.skip:
            self._skipping.add(outbox)
        if offset is None:
            offset = await self._send_snapshot(outbox, request)
        if offset is not None:
            await self.rejoin(outbox, offset, stale=not has_open)

    async def _send_snapshot(self, outbox: Outbox, request: Request) -> int | None:
        """Send the snapshot; the offset from which live data goes on, None if the reader left.

        The first page's: rows of one page may change while the next is read. A reader cut off between two pages
        of candles lacks rows of any age: up to the last page it stands at the beginning.
        """
        first: int | None = None
        start = request.start
        while True:
            await outbox.drained()
            if self.name not in outbox.channels:
                return None
            page = await self._frames.history(request.snapshot, start)
            first = page.offset if first is None else first
            if isinstance(page.batch, CandleBatch):
                page = page._replace(offset=0 if page.more else first)
            self._record(outbox, Text(self._frames.snapshot(page), position=self._frames.position(page.offset)))
            if not page.more or isinstance(page.batch, TradeBatch):
                return page.offset
            start = int(page.batch.rows["open_time"][-1]) + 1

    async def rejoin(self, outbox: Outbox, offset: int, *, stale: bool = True) -> None:
        """Everything after ``offset``, then live. ``stale``: the reader lacks the newest open candle."""
        await self._replay(outbox, Replay(offset, stale))

    async def _replay(self, outbox: Outbox, replay: Replay) -> None:
        """One page of history; behind the last one, live. The reader's other channels go on between two pages."""
        await outbox.drained()
        if outbox.channels.get(self.name) is not self or outbox.closed:
            return
        if replay.seam is not None and self._joining.get(outbox) is not replay.seam:
            return  # it left meanwhile, or began anew
        seam = replay.seam = self._joining[outbox] = Seam(stale=replay.stale)
        if replay.offset == self._ahead:  # nothing lies between: the store need not be asked
            self._end_run(outbox, replay.skipped)
            self._promote(outbox)
            return
        try:
            page = await self._market.page(self.channel, replay.offset)
            floor = await self._market.floor(self.channel)  # asked last: what the page lacks was let go of before
        except BaseException:
            self._joining.pop(outbox, None)
            raise
        if self._joining.get(outbox) is not seam:
            return
        if replay.offset < floor.offset and not self._continues(page, replay.offset):
            outbox.control(self._expired(replay.offset, floor.offset))
        self._send(outbox, page.batch, replay.skipped, replay=True)
        replay.offset = page.offset
        if page.more or seam.broken:
            replay.stale = replay.stale or seam.stale
            seam.abandon()
            outbox.next_turn(lambda: self._replay(outbox, replay))
            return
        for batch in seam.settle(replay.offset):
            self._send(outbox, batch, replay.skipped)
        self._end_run(outbox, replay.skipped)
        if self._ahead >= replay.offset:
            self._promote(outbox)

    def _continues(self, page: Page, offset: int) -> bool:
        """Whether ``page`` surely lacks nothing behind ``offset``: its trades join on to it."""
        return isinstance(page.batch, TradeBatch) and span(page.batch)[0] == offset + 1

    def _expired(self, first: int, last: int) -> dict[str, object]:
        """That records behind offset ``first``, up to ``last``, have been let go of while they were replayed."""
        ends = {"from": self.text_position(first), "to": self.text_position(last)}
        return {"type": "gap", "ch": self.name, **ends, "reason": "history_expired"}

    def _promote(self, outbox: Outbox) -> None:
        """The reader has seen all that was handled: from now on it gets what all get."""
        self._flush()
        seam = self._joining.pop(outbox)
        skips = outbox in self._skipping
        if skips:
            self._tell_skipped()  # the others' run: it begins before this reader's
        self._groups.setdefault((outbox.frame, skips), Crowd()).add(outbox)
        if seam.stale and self.channel.tf is not None:
            candle = self._market.open_candle(self.channel.instrument, self.channel.tf)
            if candle is not None:
                outbox.raw(outbox.frame(self._frames.update(candle, candle.rows)))

    def leave(self, outbox: Outbox) -> None:
        """Send this reader nothing more."""
        self._joining.pop(outbox, None)
        key = (outbox.frame, outbox in self._skipping)
        group = self._groups.get(key)
        if group is not None:
            group.discard(outbox)
            if not group:
                del self._groups[key]
        self._skipping.discard(outbox)
        outbox.forget(self)

    # -- live data ---------------------------------------------------------------------------

    def durable(self, batch: Batch) -> None:
        before, self._last = self._last, max(self._last, span(batch)[1])
        if self._groups:
            self._events += self._frames.events(batch, before)
            if self._events and self._flush_soon is None:
                self._flush_soon = self._loop.call_soon(self._flush)
            self._drop_settled(batch)
        for outbox, seam in list(self._joining.items()):
            rest = seam.live(batch)
            if rest is not None:
                skipped = Skipped()
                self._send(outbox, rest, skipped)
                self._end_run(outbox, skipped)
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
        if now >= self._rhythm.due:
            self._flush_latest()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._rhythm.last, self._flush_latest)

    def restarted(self) -> None:
        self._events.clear()
        self._skipped.take()
        self._latest.clear()
        head = self._market.forwarded(self.channel.instrument)
        gap = {
            "type": "gap",
            "ch": self.name,
            "from": self.text_position(self._flushed),
            "to": position(head.epoch, self._offset(head)),
            "reason": "epoch",
        }
        self._frames.epoch = head.epoch
        self._last = self._flushed = self._told = self._offset(head)
        readers = [outbox for group in self._groups.values() for outbox in group] + list(self._joining)
        for group in self._groups.values():
            for outbox in list(group):
                group.discard(outbox)
        self._groups.clear()
        self._joining.clear()
        afresh = Admitted(Request(self.channel, 100), "", False)  # who skips late trades goes on skipping them
        for outbox in readers:
            outbox.control(gap)
            outbox.work(lambda outbox=outbox: self.join(outbox, afresh))  # type: ignore[misc]

    def _drop_settled(self, batch: Batch) -> None:
        """A waiting open candle that has been closed since is no news."""
        if isinstance(batch, CandleBatch) and self._latest:
            for state, open_time in zip(batch.rows["state"].tolist(), batch.rows["open_time"].tolist(), strict=True):
                if state != State.OPEN:
                    self._latest.pop(open_time, None)

    def _flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        events, self._events = self._events, []
        if events:
            metrics.frames.inc(len(events))
            sparing = self._without_late(events)
            for frame, skips in list(self._groups):
                texts = sparing if skips else events
                self._write((frame, skips), texts, self._told if skips else self._flushed)
        self._flushed = self._ahead
        self._told = self._skipped.first - 1 if self._skipped.first else self._flushed

    def _write(self, key: tuple[Frame, bool], texts: list[Text], before: int) -> None:
        """Send to a group what follows offset ``before``; who has no room for it is caught up later."""
        frame, group = key[0], self._groups[key]
        parts = [(frame(text.data, text.position), text.position) for text in texts]
        if not parts:
            return
        data = parts[0][0] if len(parts) == 1 else b"".join([part for part, _ in parts])
        metrics.wire_bytes.inc(len(data) * len(group))
        for outbox in [outbox for outbox in group.send(data) if not outbox.records(self, data, parts)]:
            group.discard(outbox)
            outbox.left_behind(self, before)

    # -- late trades that some do not want ---------------------------------------------------

    def _without_late(self, events: list[Text]) -> list[Text]:
        """What those get who skip late trades: one frame per run of them, once it has ended."""
        texts: list[Text] = []
        if not any(skips for _, skips in self._groups):
            self._skipped.take()
            return texts
        for text in events:
            if text.late:
                self._skipped.add(text)
                continue
            if (run := self._skipped.take()) is not None:
                texts.append(self._skip(*run))
            texts.append(text)
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = self._loop.call_later(QUIET, self._tell_skipped) if self._skipped.first else None
        return texts

    def _tell_skipped(self) -> None:
        """The run ends here: nothing follows it yet."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if (run := self._skipped.take()) is not None:
            for frame, skips in list(self._groups):
                if skips:
                    self._write((frame, skips), [self._skip(*run)], self._told)
            self._told = run[1]

    def _end_run(self, outbox: Outbox, skipped: Skipped) -> None:
        if (run := skipped.take()) is not None:
            self._record(outbox, self._skip(*run))

    def _skip(self, first: int, last: int) -> Text:
        return Text(self._frames.skip(first, last), position=self._frames.position(last))

    def _record(self, outbox: Outbox, text: Text) -> None:
        """Send one frame to one reader."""
        outbox.record(self, outbox.frame(text.data, text.position), text.position)

    def _flush_latest(self) -> None:
        waited = self._timer is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        latest, self._latest = self._latest, {}
        if not latest:
            return
        self._flush()
        self._rhythm.sent(self._loop.time(), waited=waited)
        batches = [latest[open_time] for open_time in sorted(latest)]
        rows = batches[0].rows if len(batches) == 1 else np.concatenate([batch.rows for batch in batches])
        text = self._frames.update(batches[-1], rows)
        metrics.frames.inc()
        if self._every:
            for key in list(self._groups):
                self._write(key, [Text(text)], self._flushed)
            return
        for (frame, _), group in self._groups.items():
            data = frame(text)
            metrics.wire_bytes.inc(len(data) * len(group))
            for outbox in group.send(data):
                outbox.latest(self, data)

    def _send(self, outbox: Outbox, batch: Batch, skipped: Skipped, *, replay: bool = False) -> None:
        for text in self._frames.events(batch, max(0, span(batch)[0] - 1), replay=replay):
            if text.late and outbox in self._skipping:
                skipped.add(text)
            else:
                self._end_run(outbox, skipped)
                self._record(outbox, text)


def _failed(opening: asyncio.Task[Head]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)
