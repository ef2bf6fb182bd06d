"""The tapes of one engine: batches in, commit groups out. Pure: no I/O, no asyncio.

``Engine`` holds one ``Tape`` per instrument. A tape brings each batch to the instrument's
scales, lets the core dedupe, number and fold it, and turns what changed into a
``TapeCommit``: rows, ledger, gaps and head of one instrument, written together or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt

from tapewick.engine import REJECTS, TapeCore
from tapewick.engine._batches import fitting, joined, scaled
from tapewick.engine._doubts import Doubts
from tapewick.engine._gaps import Gaps
from tapewick.model import (
    I64,
    NO_TIME,
    CandleBatch,
    Candles,
    Head,
    Instrument,
    Reason,
    TapeCommit,
    TapeState,
    TradeBatch,
    Wanted,
)
from tapewick.timeframe import SECOND

__all__ = ["Engine", "Tape"]

NO_NAMES = np.empty((0, 2), np.int64)
TOLERANCE = 5 * SECOND  # how far a trade may lie ahead of its source's clock


class Tape:
    """One instrument's tape in memory; a copy of the store's until a commit succeeds."""

    def __init__(self, state: TapeState, *, lateness: int, grace: int, keep: int, attempts: int) -> None:
        self.instrument = state.instrument
        self.number, self.epoch, self.owner = state.number, state.epoch, state.owner
        contiguous = state.instrument.id_kind == "contiguous"
        self._core = TapeCore(state.number, lateness, grace, keep, contiguous)
        self._core.restore(state.seq, state.pos, state.watermark, state.ranges, state.rows, state.newest)
        self.committed = self.head
        """The head as the store has it: what clients may be told of positions."""
        self.gaps = Gaps(self.instrument.id, state.gaps, state.ranges.tolist(), attempts)
        self._cause = "restart" if len(state.ranges) else "stream"
        self._cut = -1  # seq of the last trade before the connection was lost
        self._batches: list[TradeBatch] = []
        self._coming: tuple[int, int] | None = None
        self.doubts = None if contiguous else Doubts()
        """Trades that the store must be asked about; None where the ledger tells trades apart."""
        self._names: list[I64] = []
        self._asked_keys: set[tuple[int, int]] = set()
        self._asked_windows: set[tuple[int, int]] = set()

    @property
    def head(self) -> Head:
        """Where the tape stands, uncommitted work included."""
        core = self._core
        return Head(
            instrument=self.instrument.id,
            epoch=self.epoch,
            seq=core.seq,
            pos=core.pos,
            watermark=core.watermark,
            price_scale=self.instrument.price_scale,
            size_scale=self.instrument.size_scale,
        )

    @property
    def pending(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._core.pending or self.gaps.pending)

    @property
    def open_gaps(self) -> int:
        """How many holes the tape has now."""
        return len(self.gaps)

    @property
    def ranges(self) -> I64:
        """The coverage ledger, uncommitted work included: shape (n, 4) from_id, to_id, from_ts, to_ts."""
        return self._core.ranges()

    def wanted(self) -> Wanted | None:
        """The id ranges to ask the venue for, oldest first; None when nothing is missing that may be had."""
        return self.gaps.wanted()

    def ask(self, wanted: Wanted) -> None:
        """Ask for these ranges, of which only what is missing is wanted; without any, again for all that is missing.

        What had been given up there gets new attempts.
        """
        ranges = self._core.ranges().tolist()
        if not wanted.ranges:
            self.gaps.retry()
        times = wanted.since or (NO_TIME,) * len(wanted.ranges)
        for (low, high), since in zip(wanted.ranges, times, strict=True):
            self.gaps.ask(low, high, since, ranges)

    def disconnected(self, cause: str = "reconnect") -> None:
        """The source lost its connection, or the bus messages: a hole found next is its doing."""
        if self._cause == "stream":
            self._cause, self._cut = cause, self._core.seq

    def ingest(self, batch: TradeBatch, latest: int, rejects: Counter[str]) -> int:
        """Take in new trades; returns how many were new and counts the others by reason.

        Where ids are ``unique`` nothing is taken in before the store was asked: see ``settle``.
        """
        if self.doubts is not None:
            self.doubts.add(batch, latest)
            return 0
        return self._fold(batch, latest, rejects)

    def settle(self, known: npt.NDArray[np.bool_], rejects: Counter[str]) -> int:
        """Take in what ``doubts`` asked about and the store does not know; returns how many were new."""
        assert self.doubts is not None, "ids are contiguous: the ledger knows"
        new = 0
        for batch, latest, repeated in self.doubts.settle(known):
            if repeated:
                rejects["duplicate"] += repeated
            new += self._fold(batch, latest, rejects)
        return new

    def _fold(self, batch: TradeBatch, latest: int, rejects: Counter[str]) -> int:
        batch = self._scaled(batch, rejects)
        watermark = self._core.watermark
        covers = None if batch.covers is None else np.array(batch.covers, np.int64).reshape(-1, 2)
        accepted, counts = self._core.ingest(
            batch.trade_id,
            batch.first_id,
            batch.count,
            batch.ts_event,
            batch.price,
            batch.size,
            batch.side,
            covers,
            latest,
            batch.clock,
            Reason.REPAIR if batch.late else Reason.LATE,
            self.instrument.venue == "chainlink",
        )
        new = len(accepted)
        if new < len(batch):
            for reason, count in zip(REJECTS, counts.tolist(), strict=True):
                if count:
                    rejects[reason] += count
        if new:
            # In place where all are new: this runs for every trade that comes alone.
            kept = batch if new == len(batch) else batch.select(accepted)
            last = self._core.seq
            newest = max(kept.ts_event.tolist()) if new < 32 else int(kept.ts_event.max())
            kept.late = batch.late or newest < watermark
            kept.seq, kept.epoch, kept.covers = np.arange(last - new + 1, last + 1), self.epoch, None
            if self.doubts is not None:
                self._names.append(kept.names)
                kept.key = None
            self._batches.append(kept)
        return new

    def _scaled(self, batch: TradeBatch, rejects: Counter[str]) -> TradeBatch:
        """The batch at the tape's scales; records that would overflow are counted out."""
        own = self.instrument
        has, needs = (batch.price_scale, batch.size_scale), (own.price_scale, own.size_scale)
        most = self._coming or needs
        if not len(batch) or has == most:
            return batch
        fits = fitting(batch, 10 ** (most[0] - has[0]), 10 ** (most[1] - has[1]))
        if not fits.all():
            rejects["overflow"] += int((~fits).sum())
            # What is dropped here must not be vouched for: fall back to the records' own ids.
            batch = replace(batch.select(np.flatnonzero(fits)), covers=None)
        return batch if has == needs else scaled(batch, 10 ** (needs[0] - has[0]), 10 ** (needs[1] - has[1]), own)

    def widened(self, batch: TradeBatch) -> tuple[int, int] | None:
        """The scales the tape must take before ``batch`` can be ingested, None if it fits."""
        own = self.instrument
        if not len(batch) or (batch.price_scale <= own.price_scale and batch.size_scale <= own.size_scale):
            return None
        return max(batch.price_scale, own.price_scale), max(batch.size_scale, own.size_scale)

    def expect(self, scales: tuple[int, int] | None) -> None:
        """From now on count out what does not fit ``scales``, which are being given to the stored tape; None: no
        longer."""
        self._coming = scales

    def rescale(self, instrument: Instrument) -> None:
        """Adopt wider scales, also for what is not committed yet.

        Raises ``OverflowError``, and changes nothing, where something the tape holds does not fit them.
        """
        own = self.instrument
        price_factor = 10 ** (instrument.price_scale - own.price_scale)
        size_factor = 10 ** (instrument.size_scale - own.size_scale)
        for batch in self._batches:
            if not fitting(batch, price_factor, size_factor).all():
                raise OverflowError("a trade that is not committed yet does not fit 64 bits at the wider scale")
        self._core.rescale(price_factor, size_factor)
        self._batches = [scaled(batch, price_factor, size_factor, instrument) for batch in self._batches]
        self.instrument = instrument

    def describe(self, instrument: Instrument) -> None:
        """Note what its venue says of the instrument now. The tape's scales stay: ``rescale`` changes those."""
        own = self.instrument
        self.instrument = msgspec.structs.replace(instrument, price_scale=own.price_scale, size_scale=own.size_scale)

    def missing(self) -> tuple[I64, I64] | None:
        """Stored rows to ``load`` before ``take``: keys (k, 2) and windows (j, 2); None if none.

        What was asked once is not asked again before the next ``take``: the store has no such row.
        """
        keys, windows = self._core.missing()
        if not len(keys) and not len(windows):
            return None
        new_keys = [k for k in map(tuple, keys.tolist()) if k not in self._asked_keys]
        new_windows = [w for w in map(tuple, windows.tolist()) if w not in self._asked_windows]
        if not new_keys and not new_windows:
            return None
        self._asked_keys.update(new_keys)
        self._asked_windows.update(new_windows)
        return np.array(new_keys, np.int64).reshape(-1, 2), np.array(new_windows, np.int64).reshape(-1, 2)

    def load(self, rows: Candles) -> None:
        """Bring in what the store had for ``missing``."""
        self._core.load(rows)

    def take(self) -> TapeCommit:
        """Everything changed since the last ``take``, as one commit."""
        expected = self._core.pos
        taken = self._core.take()
        if taken.holes_changed or self.gaps.reaching:
            self.gaps.update(self._core.ranges().tolist(), self._cause)
        batches, self._batches = self._batches, []
        names, self._names = self._names, []
        if batches and self._core.seq > self._cut:
            self._cause = "stream"
        self._asked_keys.clear()
        self._asked_windows.clear()
        return TapeCommit(
            number=self.number,
            instrument=self.instrument.id,
            owner=self.owner,
            expected_pos=expected,
            head=self.head,
            trades=list(joined(batches)),
            rows=taken.rows,
            ranges_put=taken.ranges_put,
            ranges_gone=taken.ranges_gone,
            gaps=self.gaps.take(),
            names=np.concatenate(names) if names else NO_NAMES,
        )

    def live(self) -> CandleBatch | None:
        """The open candles of all timeframes as of now: the provisional lane.

        They tell no ``pos`` or ``last_seq`` that is not committed: after a crash it could name something else.
        """
        rows = self._core.live()
        if not len(rows):
            return None
        if self._core.pos > self.committed.pos:
            rows["pos"] = np.minimum(rows["pos"], self.committed.pos)
        rows["last_seq"] = np.minimum(rows["last_seq"], self.committed.seq)
        own = self.instrument
        return CandleBatch(
            instrument=own.id,
            rows=rows,
            price_scale=own.price_scale,
            size_scale=own.size_scale,
            provisional=True,
            epoch=self.epoch,
        )


class Engine:
    """All tapes of one engine process.

    Times in ns: ``lateness`` how far watermarks stay behind, ``grace`` from a candle's end to
    final, ``keep`` how long settled candles stay in memory. A gap is given up after ``attempts`` failures in a row.
    """

    def __init__(
        self,
        *,
        lateness: int = 2 * SECOND,
        grace: int = 60 * SECOND,
        keep: int = 600 * SECOND,
        attempts: int = 30,
    ) -> None:
        self._lateness, self._grace, self._keep, self._attempts = lateness, grace, keep, attempts
        self.tapes: dict[str, Tape] = {}
        self.rejects: Counter[str] = Counter()
        self.pending_bytes = 0
        self._touched: set[str] = set()
        self._doubtful: set[str] = set()
        self.fed: set[str] = set()
        """Instruments that were given batches."""

    def add(self, states: Iterable[TapeState]) -> None:
        """Own these tapes from what the store holds."""
        for state in states:
            self.tapes[state.instrument.id] = Tape(
                state, lateness=self._lateness, grace=self._grace, keep=self._keep, attempts=self._attempts
            )
            self._touched.add(state.instrument.id)

    def touch(self, instrument: str) -> None:
        """Have the next ``take`` look at this tape: something was changed beside its trades."""
        self._touched.add(instrument)

    def ingest(self, batch: TradeBatch, now: int) -> int:
        """Take in a batch; returns the number of new trades. ``now`` (ns) is the wall clock.

        A batch of an instrument that was never announced is counted as ``unknown_instrument``. One whose ids are
        ``unique`` waits for ``settle``.
        """
        tape = self.tapes.get(batch.instrument)
        if tape is None:
            self.rejects["unknown_instrument"] += len(batch)
            return 0
        new = tape.ingest(batch, (batch.clock or now) + TOLERANCE, self.rejects)
        self._touched.add(batch.instrument)
        self.fed.add(batch.instrument)
        self.pending_bytes += new * 61
        if tape.doubts is not None:
            self._doubtful.add(batch.instrument)
            self.pending_bytes += batch.nbytes
        return new

    def waits(self, instrument: str) -> bool:
        """Whether batches of this tape wait for ``settle``."""
        return instrument in self._doubtful

    def doubtful(self) -> list[tuple[Tape, I64]]:
        """Tapes with batches that wait, and the names (n, 2) to ask the store about; then ``settle`` each."""
        tapes = [self.tapes[id] for id in sorted(self._doubtful) if id in self.tapes]
        self._doubtful.clear()
        found = []
        for tape, names in [(tape, tape.doubts.ask()) for tape in tapes if tape.doubts is not None]:
            if names is not None and len(names):
                found.append((tape, names))
            elif names is not None:  # only the time went on
                self.settle(tape, np.zeros(0, np.bool_))
        return found

    def settle(self, tape: Tape, known: npt.NDArray[np.bool_]) -> int:
        """Take in what the store does not know (``known``, shape (n,), is what it does); returns how many were new."""
        new = tape.settle(known, self.rejects)
        if self.tapes.get(tape.instrument.id) is tape:
            self._touched.add(tape.instrument.id)
        return new

    def missing(self) -> list[tuple[Tape, I64, I64]]:
        """Stored rows each tape needs before ``take``."""
        found = ((tape, tape.missing()) for tape in map(self.tapes.__getitem__, self._touched))
        return [(tape, *need) for tape, need in found if need is not None]

    def take(self) -> list[TapeCommit]:
        """One commit group: every touched tape that has something to write."""
        group = [tape.take() for tape in map(self.tapes.__getitem__, sorted(self._touched)) if tape.pending]
        self._touched.clear()
        waiting = (self.tapes[id].doubts for id in self._doubtful if id in self.tapes)
        self.pending_bytes = sum(doubts.nbytes for doubts in waiting if doubts is not None)
        return group

    def drop(self, instruments: Iterable[str]) -> None:
        """Give tapes up: another engine owns them."""
        for instrument in instruments:
            self.tapes.pop(instrument, None)
            self._touched.discard(instrument)
            self._doubtful.discard(instrument)

    @property
    def newest(self) -> int:
        """The highest watermark (ns), ``NO_TIME`` without tapes."""
        return max((tape.head.watermark for tape in self.tapes.values()), default=NO_TIME)
