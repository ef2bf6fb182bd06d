"""The live side of the read path: what the engine announces, in order and without holes.

The bus may lose messages; the store may not. Offsets tell: a jump of ``seq`` or ``pos``, or a
head ahead of what was forwarded, is filled from the store before anything newer goes out.
Instruments nobody listens to are only followed, never filled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import structlog

from tapewick import metrics
from tapewick.channel import Channel, Listener, rest_of, span
from tapewick.conditions import Conditions
from tapewick.errors import NotFound, StoreError
from tapewick.model import (
    NO_TIME,
    CandleBatch,
    Candles,
    Head,
    Health,
    Instrument,
    Message,
    State,
    TradeBatch,
    Wanted,
    empty_candles,
)
from tapewick.protocols import Delivery, Store

__all__ = ["Feed", "Live"]

log = structlog.get_logger()

PAGE = 1000  # trades read at once while filling
LAGGING = 0.1  # seconds between two looks at a replica that does not have yet what was announced
BURST = 64  # messages taken off the bus before others get the loop


@dataclass(slots=True)
class Feed:
    """One instrument: how far its live data has been forwarded, and to whom."""

    instrument: Instrument
    epoch: str = ""
    seq: int = 0
    pos: int = 0
    newest: int = NO_TIME
    listeners: dict[int, set[Listener]] = field(default_factory=dict)  # by Channel.key
    known: tuple[int, int] = (0, 0)  # highest seq and pos heard of
    filling: asyncio.Task[None] | None = None
    provisional: CandleBatch | None = None
    closed: dict[int, int] = field(default_factory=dict)  # newest closed open time by timeframe

    @property
    def head(self) -> Head:
        """How far live data has been forwarded."""
        own = self.instrument
        return Head(
            instrument=own.id,
            epoch=self.epoch,
            seq=self.seq,
            pos=self.pos,
            watermark=NO_TIME,
            price_scale=own.price_scale,
            size_scale=own.size_scale,
        )

    @property
    def behind(self) -> bool:
        """Whether more is known to be stored than was forwarded."""
        return self.seq < self.known[0] or self.pos < self.known[1]

    def saw(self, ts: int) -> None:
        """Take note of a trade's time (ns); the newest counts."""
        self.newest = max(self.newest, ts)

    def heard(self, seq: int, pos: int) -> None:
        """Take note of how far the tape is stored; the highest counts."""
        self.known = (max(self.known[0], seq), max(self.known[1], pos))

    def listening(self, key: int) -> tuple[Listener, ...]:
        """Who gets the channel ``key`` now; a copy, so listeners may leave while they are told."""
        return tuple(self.listeners.get(key, ()))

    def open_row(self, index: int, head: Head) -> Candles:
        """The open candle as last announced, at the scales of ``head``; none when unknown or closed since."""
        batch = self.provisional
        if batch is None or (batch.price_scale, batch.size_scale) != (head.price_scale, head.size_scale):
            return empty_candles()
        frames = batch.rows["tf"].tolist()
        if index not in frames:
            return empty_candles()
        at = frames.index(index)
        row: Candles = batch.rows[at : at + 1]  # a view: this runs for every trade that comes alone
        return row if int(row["open_time"][0]) > self.closed.get(index, NO_TIME) else empty_candles()

    def batch(self, rows: Candles, head: Head, *, provisional: bool = False) -> CandleBatch:
        """``rows``, read with ``head``, as a batch."""
        return CandleBatch(
            instrument=self.instrument.id,
            rows=rows,
            provisional=provisional,
            price_scale=head.price_scale,
            size_scale=head.size_scale,
            epoch=head.epoch,
            pos=head.pos,
        )


class Live:
    """Follows the bus for all instruments in ``feeds`` and forwards to their listeners."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.feeds: dict[str, Feed] = {}
        self.conditions = Conditions()

    def know(self, instrument: Instrument) -> Feed:
        """Enter or update an instrument."""
        feed = self.feeds.get(instrument.id)
        if feed is None:
            feed = self.feeds[instrument.id] = Feed(instrument)
        feed.instrument = instrument
        return feed

    async def attach(self, channel: Channel, listener: Listener) -> Head:
        """Forward ``channel`` to ``listener`` from the returned head on."""
        feed = self.feeds[channel.instrument]
        if not feed.listeners:
            head = await self._store.head(channel.instrument)
            if not feed.listeners:
                self._follow(feed, head)
        feed.listeners.setdefault(channel.key, set()).add(listener)
        return feed.head

    def detach(self, channel: Channel, listener: Listener) -> None:
        feed = self.feeds[channel.instrument]
        group = feed.listeners.get(channel.key, set())
        group.discard(listener)
        if not group:
            feed.listeners.pop(channel.key, None)

    async def run(self, deliveries: AsyncIterator[Delivery]) -> None:
        """Forward until the bus ends."""
        taken = 0
        async for delivery in deliveries:
            if delivery.lost:
                for feed in self.feeds.values():
                    self._fill(feed)
            self._dispatch(delivery.message)
            delivery.ack()
            taken += 1
            if taken % BURST == 0:
                await asyncio.sleep(0)

    async def stop(self) -> None:
        """End the tasks that fill."""
        tasks = [feed.filling for feed in self.feeds.values() if feed.filling is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Instrument):
            self.know(message)
        elif isinstance(message, Health):
            self.conditions.health(message)
        elif (feed := self.feeds.get(message.instrument)) is None:
            return
        elif isinstance(message, CandleBatch):
            if len(message.rows):
                (self._on_provisional if message.provisional else self._on_candles)(feed, message)
        elif isinstance(message, TradeBatch):
            if message.seq is not None and len(message):
                self._on_trades(feed, message)
        elif isinstance(message, Head):
            self.conditions.moved(message.instrument)
            self._on_head(feed, message)
        elif isinstance(message, Wanted):
            self.conditions.hint(message.instrument)

    def _on_trades(self, feed: Feed, batch: TradeBatch) -> None:
        feed.saw(int(batch.ts_event.max()))
        first, last = span(batch)
        self._enter(feed, batch.epoch, first - 1, feed.pos)
        feed.heard(last, 0)
        if not self._continues(feed, first, feed.seq):
            return
        rest = rest_of(batch, feed.seq)
        feed.seq = max(feed.seq, last)
        if rest is not None:
            for listener in feed.listening(-1):
                listener.durable(rest)

    def _on_candles(self, feed: Feed, batch: CandleBatch) -> None:
        states = batch.rows["state"].tolist()
        if any(states):
            frames, times = (batch.rows[name].tolist() for name in ("tf", "open_time"))
            for state, index, open_time in zip(states, frames, times, strict=True):
                if state != State.OPEN:
                    feed.closed[index] = max(open_time, feed.closed.get(index, NO_TIME))
        first, last = span(batch)
        self._enter(feed, batch.epoch, feed.seq, first - 1)
        feed.heard(0, last)
        if not self._continues(feed, first, feed.pos):
            return
        rest = rest_of(batch, feed.pos)
        feed.pos = max(feed.pos, last)
        if isinstance(rest, CandleBatch):
            self._forward(feed, rest)

    def _forward(self, feed: Feed, batch: CandleBatch) -> None:
        """Each watched frame's rows to its listeners."""
        watched = [key for key in feed.listeners if key > 0]
        frames = batch.rows["tf"].tolist() if watched else []
        for key in watched:
            count = frames.count(key)
            if count:
                at = frames.index(key)  # a view where one will do: numpy copies rows field by field
                rows = batch.rows[at : at + 1] if count == 1 else batch.rows[batch.rows["tf"] == key]
                part = CandleBatch(
                    instrument=batch.instrument,
                    rows=rows,
                    price_scale=batch.price_scale,
                    size_scale=batch.size_scale,
                    provisional=batch.provisional,
                    epoch=batch.epoch,
                    pos=batch.pos,
                )
                for listener in feed.listening(key):
                    listener.durable(part)

    def _on_provisional(self, feed: Feed, batch: CandleBatch) -> None:
        feed.saw(int(batch.rows["last_ts"][0]))
        feed.provisional = batch
        watched = [key for key in feed.listeners if key >= 0]
        if not watched:
            return
        head = feed.head
        for key in watched:
            row = feed.open_row(key, head)
            if len(row):
                part = feed.batch(row, head, provisional=True)
                for listener in feed.listening(key):
                    listener.provisional(part)

    def _on_head(self, feed: Feed, head: Head) -> None:
        self._enter(feed, head.epoch, head.seq, head.pos)
        feed.heard(head.seq, head.pos)
        if not feed.listeners:
            self._follow(feed, head)
        elif feed.behind:
            self._fill(feed)

    def _follow(self, feed: Feed, head: Head) -> None:
        """Nobody listens: take the head as forwarded."""
        self._enter(feed, head.epoch, head.seq, head.pos)
        feed.seq, feed.pos = max(feed.seq, head.seq), max(feed.pos, head.pos)

    def _enter(self, feed: Feed, epoch: str, seq: int, pos: int) -> None:
        """Start over when the tape's identity changed."""
        if epoch == feed.epoch:
            return
        old, feed.epoch = feed.epoch, epoch
        feed.seq, feed.pos, feed.known = seq, pos, (seq, pos)
        if old:
            feed.provisional = None
            feed.closed.clear()
            for listener in {one for group in feed.listeners.values() for one in group}:
                listener.restarted()

    def _continues(self, feed: Feed, first: int, forwarded: int) -> bool:
        """Whether a live batch joins on to what was forwarded; if not, the store tells what came before."""
        if not feed.listeners or (feed.filling is None and first <= forwarded + 1):
            return True
        self._fill(feed)
        return False

    def _fill(self, feed: Feed) -> None:
        if feed.filling is None and feed.listeners:
            metrics.fills.inc()
            feed.filling = asyncio.create_task(self._refill(feed), name=f"fill {feed.instrument.id}")

    async def _refill(self, feed: Feed) -> None:
        """Forward from the store until nothing announced is missing; live batches wait."""
        delay = 0.1
        while True:
            done: bool | None = None
            before = feed.seq, feed.pos
            try:
                done = await self._refill_once(feed)
            except (StoreError, NotFound) as error:
                if delay == 0.1:
                    log.error("cannot fill live data from the store", instrument=feed.instrument.id, cause=str(error))
            except Exception:  # else the instrument would stay silent: nothing forwards while a fill is under way
                log.exception("cannot fill live data", instrument=feed.instrument.id)
            if done is None:
                await asyncio.sleep(delay)
                delay = min(2 * delay, 5.0)
                continue
            if done or not feed.listeners:
                feed.filling = None
                return
            if (feed.seq, feed.pos) == before:
                await asyncio.sleep(LAGGING)

    async def _refill_once(self, feed: Feed) -> bool:
        """One page of trades and what changed in each watched frame; whether that was all."""
        id, epoch = feed.instrument.id, feed.epoch
        head = await self._store.head(id)
        if head.epoch != epoch:
            self._enter(feed, head.epoch, head.seq, head.pos)
            return True
        trades, _ = await self._store.trades(id, since=feed.seq, limit=PAGE)
        frames = [key for key in feed.listeners if key > 0]
        changed = [(await self._store.candles(id, key, since_pos=feed.pos))[0] for key in frames]
        if feed.epoch != epoch:
            return False
        rest = rest_of(trades, feed.seq)
        if rest is not None:
            feed.seq = span(rest)[1]
            for listener in feed.listening(-1):
                listener.durable(rest)
        rows = np.concatenate([empty_candles(), *changed])
        rows = rows[(rows["pos"] > feed.pos) & (rows["pos"] <= head.pos)]
        feed.pos = max(feed.pos, head.pos)
        self._forward(feed, feed.batch(rows[np.argsort(rows["pos"], kind="stable")], head))
        return len(trades) < PAGE and not feed.behind
