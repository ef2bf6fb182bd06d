"""The ``replay`` source: recorded frames as if they were live, at recorded speed, faster, or at once.

Files are merged by receive time, so an instrument's trades come in the order they were
received whatever the order and overlap of the files. The recorded receive time is the
source's clock: it closes candles, never the wall clock.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tapewick.clock import RecordedClock
from tapewick.errors import BadPayload, ConfigError
from tapewick.model import I64, Event, Instrument, TradeBatch
from tapewick.sources._recordings import Part, Recording
from tapewick.timeframe import SECOND

__all__ = ["ReplaySource"]

LARGEST = 65_536  # trades in one batch
BLOCK = 4 << 20  # 20,000 trades: of 100 instruments still 200 each, which a batch needs to be cheap
PACED_BLOCK = 64 << 10  # when paced, read little ahead
STEP = 10_000_000  # ns between wake-ups when paced: what a person or a chart cannot tell from live


class _Reader:
    """Reads a recording in a thread, one part ahead of its use."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.until = recording.start
        self.waiting: list[TradeBatch] = []
        self._next: asyncio.Future[Part | None] | None = None

    async def read(self) -> Part | None:
        self._next = self._next or self._start()
        part = await asyncio.shield(self._next)
        self._next = self._start() if part is not None else None
        return part

    def _start(self) -> asyncio.Future[Part | None]:
        return asyncio.get_running_loop().run_in_executor(None, self.recording.read)

    async def close(self) -> None:
        """Wait for the thread, then release the file."""
        if self._next is not None:
            await asyncio.wait([self._next])
            self._next.exception()  # a reader that is stopped early has nobody left to tell
        self.recording.close()


class ReplaySource:
    """Trades from recorded files, as recorder lines or capture lines, plain, ``.gz`` or ``.zst``.

    ``venue``: ``binance``, ``binance-usdm``, ``binance-coinm`` or ``sim``; None: told from the files.
    ``speed``: times real time, None = as fast as possible; ``clock`` is moved along the recording.
    While it runs, ``lines`` = ``trades`` + all of ``others`` (frames that are no trades, by kind)
    + all of ``rejects`` (malformed ones, by reason), and ``bytes_read`` of ``bytes_total``
    stored bytes are read.

    ``events`` raises ``BadPayload`` before the first event for a file of no known format; for one
    that is damaged or cut short, after everything readable of all files was yielded.
    """

    name = "replay"
    pull = True

    def __init__(
        self,
        files: Sequence[Path],
        *,
        venue: str | None = None,
        speed: float | None = 1.0,
        clock: RecordedClock | None = None,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ConfigError(f"speed {speed} is not positive; give a factor such as 1 or 60, or max")
        if not files:
            raise ConfigError("nothing to replay; give at least one recorded file")
        self.clock = clock or RecordedClock(speed)
        self.lines = self.trades = 0
        self.others: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self._files, self._venue, self._paced = list(files), venue, speed is not None
        self._step = SECOND if speed is None else max(int(min(STEP * speed, SECOND)), 1)
        self._recordings: list[Recording] = []
        self._kinds: dict[str, str] = {}
        self._ticked: dict[str, int] = {}

    @property
    def bytes_read(self) -> int:
        """Stored bytes consumed so far."""
        return sum(recording.bytes_read for recording in self._recordings)

    @property
    def bytes_total(self) -> int:
        """Stored bytes of all files; those that cannot be opened count 0."""
        return sum(path.stat().st_size for path in self._files if path.is_file())

    async def events(self) -> AsyncGenerator[Event, None]:
        """Instruments before their first batch, then batches until every file is read."""
        block = PACED_BLOCK if self._paced else BLOCK
        self._recordings = [await asyncio.to_thread(Recording, path, self._venue, block) for path in self._files]
        later = sorted(self._recordings, key=lambda recording: recording.start, reverse=True)
        active: list[_Reader] = []
        if later[-1].start:
            await self.clock.reach(later[-1].start)
        try:
            while active or later:
                ended = await self._advance(active, later)
                horizon = min((reader.until for reader in active), default=ended)
                ready = _due(active, horizon)
                for edge in self._edges(horizon):
                    await self.clock.reach(edge)
                    due, ready = _split(ready, edge)
                    for event in self._emit(due, edge, flush=bool(ended) and edge == horizon):
                        yield event
        finally:
            for reader in active:
                await reader.close()
        if faults := [recording.fault for recording in self._recordings if recording.fault]:
            raise BadPayload("; ".join(faults))

    async def _advance(self, active: list[_Reader], later: list[Recording]) -> int:
        """Read on in every file whose waiting trades are used up, and begin files whose time has come.

        Returns the latest receive time of the files that ended meanwhile, 0 if none did.
        """
        ended = 0
        if not active:
            active.append(_Reader(later.pop()))
        behind = [min(active, key=lambda reader: reader.until)]
        while behind:
            for reader in behind:
                part = await reader.read()
                if part is None:
                    active.remove(reader)
                    ended = max(ended, reader.until)
                else:
                    reader.waiting += self._accept(part)
                    reader.until = part.until
            behind = []
            horizon = min((reader.until for reader in active), default=ended)
            while later and later[-1].start <= horizon:
                active.append(_Reader(later.pop()))
                behind.append(active[-1])
        return ended

    def _accept(self, part: Part) -> list[TradeBatch]:
        """Count a part; its batches of the granularity their instrument began with."""
        self.lines += part.lines
        self.trades += part.trades
        self.others.update(part.others)
        self.rejects.update(part.rejects)
        kept = []
        for kind, batch in part.batches:
            if self._kinds.setdefault(batch.instrument, kind) == kind:
                kept.append(batch)
            else:
                self.trades -= len(batch)
                self.others["granularity"] += len(batch)
        return kept

    def _edges(self, horizon: int) -> Iterator[int]:
        """The recorded times (ns) to stop at on the way to ``horizon``."""
        if self._paced and self.clock.now():
            yield from range(self.clock.now() + self._step, horizon, self._step)
        if horizon:
            yield horizon

    def _emit(self, batches: list[TradeBatch], now: int, *, flush: bool) -> Iterator[Event]:
        """Batches received by ``now``, and the time for instruments that had none for a while.

        Paced, an instrument hears the time every recorded second; else with ``flush``, where a file ends.
        """
        for batch in batches:
            if batch.instrument not in self._ticked:
                yield self._instrument(batch)
            yield from _pieces(batch, now)
            self._ticked[batch.instrument] = now
        for instrument, last in self._ticked.items():
            if last < now and (flush or (self._paced and now - last >= SECOND)):
                self._ticked[instrument] = now
                yield TradeBatch.empty(instrument, clock=now, source=self.name)

    def _instrument(self, batch: TradeBatch) -> Instrument:
        venue, _, symbol = batch.instrument.partition(":")
        return Instrument(
            id=batch.instrument,
            venue=venue,
            symbol=symbol,
            price_scale=batch.price_scale,
            size_scale=batch.size_scale,
            granularity="agg" if self._kinds[batch.instrument] == "aggTrade" else "raw",
        )


def _due(active: list[_Reader], horizon: int) -> list[TradeBatch]:
    """What all files received by ``horizon``, one batch per instrument and scale, by receive time."""
    found: dict[tuple[str, int, int], list[TradeBatch]] = {}
    for reader in active:
        due, reader.waiting = _split(reader.waiting, horizon)
        for batch in due:
            found.setdefault((batch.instrument, batch.price_scale, batch.size_scale), []).append(batch)
    return [_joined(batches) for batches in found.values()]


def _split(batches: list[TradeBatch], until: int) -> tuple[list[TradeBatch], list[TradeBatch]]:
    """Batches of what was received by ``until``, and of the rest."""
    due, rest = [], []
    for batch in batches:
        inside = batch.ts_recv <= until
        if inside.all():
            due.append(batch)
            continue
        rest.append(replace(batch.select(np.flatnonzero(~inside)), covers=None) if inside.any() else batch)
        if inside.any():
            due.append(batch.select(np.flatnonzero(inside)))
    return due, rest


def _joined(batches: list[TradeBatch]) -> TradeBatch:
    """One batch of several files' trades of one instrument, stable by receive time."""
    if len(batches) == 1:
        return batches[0]
    names = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side")
    columns: dict[str, Any] = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}
    whole = replace(
        batches[0],
        **columns,
        covers=tuple(pair for batch in batches for pair in batch.covers or ()) or None,
    )
    order: I64 = np.argsort(whole.ts_recv, kind="stable")
    return whole.select(order)


def _pieces(batch: TradeBatch, clock: int) -> Iterator[TradeBatch]:
    """The batch in pieces of at most ``LARGEST`` trades; the last one carries ``clock``."""
    for start in range(0, max(len(batch), 1), LARGEST):
        rows = np.arange(start, min(start + LARGEST, len(batch)))
        if len(rows) == len(batch):
            batch.clock = clock  # in place: with many instruments a copy each is most of the work
            yield batch
        else:
            last = rows[-1] + 1 == len(batch)
            piece = batch.select(rows)
            yield replace(
                piece, clock=clock if last else int(piece.ts_recv[-1]), covers=batch.covers if start == 0 else None
            )
