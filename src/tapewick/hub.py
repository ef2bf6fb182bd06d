"""Fan-out of live data: who follows what, and whether a resume can be exact.

The channels themselves are in ``fanout``; a gateway brings its connections as outboxes.
"""

from __future__ import annotations

from dataclasses import replace

from tapewick import metrics
from tapewick.book_fanout import BookFanout, LatestBook
from tapewick.channel import Channel, Since, span
from tapewick.fanout import Fanout
from tapewick.frames import Frames, NsFrames
from tapewick.health_fanout import HealthFanout
from tapewick.market import Market
from tapewick.model import Head, position
from tapewick.outbox import Limits, Outbox
from tapewick.proto_books import BookReaders, QuoteReaders
from tapewick.proto_frames import ClosedFrames, ProtoFrames
from tapewick.readers import Admitted, Readers, Request
from tapewick.ticker_fanout import TickerFanout

__all__ = ["Admitted", "Hub", "Request"]

TICKER_PACE = 1.0  # seconds between two states of a ticker, at least


class Hub:
    """All channels somebody follows. ``name`` tells its clients from those of others in the metrics."""

    def __init__(self, market: Market, limits: Limits, name: str = "") -> None:
        self._market, self.limits = market, limits
        self._fanouts: dict[tuple[Channel, object], Fanout | Readers] = {}  # by channel and ``Request.variant``
        self.outboxes: set[Outbox] = set()
        metrics.watch_queue(f"clients {name}".strip(), self, lambda hub: sum(outbox.queued for outbox in hub.outboxes))

    @property
    def channels(self) -> list[str]:
        """Names of the channels somebody follows."""
        return [channel.name for channel, _ in self._fanouts]

    def enter(self, outbox: Outbox) -> None:
        """A connection has come."""
        self.outboxes.add(outbox)
        metrics.clients.inc()

    async def admit(self, request: Request) -> Admitted:
        """Check a request against the tape. Raises ``NotFound`` for an unknown instrument."""
        channel, since = request.channel, request.since
        if not channel.durable:
            if channel.instrument:
                await self._market.instrument(channel.instrument)
            return Admitted(request, "", False)
        asked = self._market.standing if since is None else self._market.head  # a position may be ahead of live data
        head = await asked(channel.instrument)
        offset = head.seq if channel.tf is None else head.pos
        here = position(head.epoch, offset)
        # Without a snapshot live data begin right behind the position the reply prints.
        fresh = None if request.snapshot else offset
        if since is None:
            return Admitted(
                request, here, request.start is not None and await self._kept(channel, request.start), fresh
            )
        reason = await self._refusal(channel, since, head, offset)
        metrics.resumes.labels(str(reason is None).lower()).inc()
        if reason is None:
            return Admitted(request, here, True, since.offset, head.seq - since.offset if channel.tf is None else None)
        missed = position(since.epoch or head.epoch, since.offset)
        gap: dict[str, object] = {"type": "gap", "ch": channel.name, "from": missed, "to": here, "reason": reason}
        return Admitted(request._replace(since=None), here, False, fresh, gap=gap)

    async def _kept(self, channel: Channel, start: int) -> bool:
        """Whether all there ever was from ``start`` (ns) on is still there."""
        floor = await self._market.floor(channel)
        return not floor.offset or start >= floor.time

    async def _refusal(self, channel: Channel, since: Since, head: Head, offset: int) -> str | None:
        """Why a resume cannot be exact; None if it can."""
        if since.epoch not in (None, head.epoch):
            return "epoch"
        if since.offset > offset:
            return "future"
        if channel.tf is not None and channel.tf.index == 0:
            return "not_stored"
        if channel.tf is None and since.offset < head.seq:
            next_one, _ = await self._market.trades(channel.instrument, since=since.offset, limit=1)
            if span(next_one)[0] != since.offset + 1:  # none left counts as expired too
                return "history_expired"
        if channel.tf is not None and since.offset < (await self._market.floor(channel)).offset:
            return "history_expired"
        return None

    async def follow(self, outbox: Outbox, admitted: Admitted) -> None:
        """Serve an admitted request; a channel already followed starts anew."""
        channel = admitted.request.channel
        self.unfollow(outbox, channel.name)
        key = channel, admitted.request.variant
        fanout = self._fanouts.get(key)
        if fanout is None:
            fanout = self._fanouts[key] = self._made(admitted.request)
        fanout.users += 1
        outbox.channels[channel.name] = fanout
        metrics.subscriptions.inc()
        if admitted.gap is not None:
            outbox.control(admitted.gap)
        await fanout.open()
        await fanout.join(outbox, admitted)

    def _made(self, request: Request) -> Fanout | Readers:
        channel, limits, every = request.channel, self.limits, request.pace == 0
        if request.pace is not None:
            limits = replace(limits, flush_s=request.pace)
        if channel.kind == "ticker":
            return TickerFanout(self._market, channel, max(TICKER_PACE, request.pace or 0.0), proto=request.proto)
        if channel.kind == "health":
            return HealthFanout(self._market, channel, proto=request.proto)
        if request.proto:
            return self._made_proto(request, limits, every)
        if channel.kind == "book":
            return BookFanout(self._market, channel, request.levels)
        if channel.kind in ("book_top", "bbo"):
            return LatestBook(self._market, channel, limits, request.levels, every=every)
        return Fanout(self._market, channel, limits, NsFrames if request.ns else Frames, every=every)

    def _made_proto(self, request: Request, limits: Limits, every: bool) -> Fanout | Readers:
        channel = request.channel
        if channel.kind in ("book", "book_top"):
            return BookReaders(self._market, channel, limits, request.levels, every=every)
        if channel.kind == "bbo":
            return QuoteReaders(self._market, channel, limits, every=every)
        return Fanout(self._market, channel, limits, ProtoFrames if request.include_open else ClosedFrames, every=every)

    def unfollow(self, outbox: Outbox, name: str) -> bool:
        """Send nothing more of a channel; whether it was followed."""
        fanout = outbox.channels.pop(name, None)
        if not isinstance(fanout, Fanout | Readers):
            return False
        metrics.subscriptions.dec()
        fanout.leave(outbox)
        fanout.users -= 1
        if fanout.users == 0:
            fanout.close()
            self._fanouts = {key: one for key, one in self._fanouts.items() if one is not fanout}
        return True

    def drop(self, outbox: Outbox) -> None:
        """The connection is gone, or is to get nothing more."""
        if outbox in self.outboxes:
            self.outboxes.remove(outbox)
            metrics.clients.dec()
        outbox.close()
        for name in list(outbox.channels):
            self.unfollow(outbox, name)
