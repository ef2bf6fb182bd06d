"""The engine's arithmetic in readable Python: the oracle of every test, and the fallback.

``TapeCore`` is one instrument's tape: it screens and dedupes trades against the coverage
ledger, folds new ones into a delta per minute, and on ``take`` cascades those deltas into
rows of 17 timeframes. The C++ twin in ``native/`` gives the same bytes. No I/O, no clock.

Delta cascade: open, closed and late trades take one path, ``row := row ⊕ delta``; rows, ledger
and head are the whole restart state, so a crash can neither lose nor double a trade.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tapewick.engine._ledger import Ledger, range_rows
from tapewick.engine._row import Row, pack, unpack
from tapewick.engine._runs import Run, plain_run
from tapewick.model import I8, I32, I64, NO_TIME, Candles, Change, Reason, State
from tapewick.timeframe import BY_INDEX, SECOND, STORED, TREE, bucket, bucket_end

__all__ = ["REJECTS", "Ingested", "Taken", "TapeCore"]

REJECTS = ("duplicate", "conflict", "bad_id", "bad_price", "bad_size", "bad_time", "bad_side", "overflow", "partial")
"""Why a trade was not taken, in the order ``Ingested.rejects`` counts them. All but
``duplicate`` mean quarantine; a ``conflict`` is a known id with other content (first wins), ``partial``
an aggregate of which the tape holds some ids already: the others stay missing."""

EARLIEST = 1_230_768_000 * SECOND  # 2009-01-01: nothing traded on chain or venue before
LATEST = 2**62  # in 2116: a time ± any legal setting stays within 64 bits
RING = 1024  # recent trades kept to tell a conflict from a harmless duplicate
_INT64, _INT128 = 2**63 - 1, 2**127 - 1


class Ingested(NamedTuple):
    """``accepted``: indices of the batch's new trades in order; they got the next seqs."""

    accepted: I64
    rejects: I64


class Taken(NamedTuple):
    """One commit's worth of changes, rows ascending by (tf, open_time)."""

    rows: Candles
    ranges_put: I64
    ranges_gone: I64
    holes_changed: bool


@dataclass(slots=True)
class _Rows:
    """Cached rows of one timeframe by open time, and the newest open time ever stored."""

    rows: dict[int, Row] = field(default_factory=dict)
    newest: int = NO_TIME


class TapeCore:
    """One instrument's tape and candles.

    ``number``: the store's number of the instrument, copied into rows. ``lateness`` (ns):
    how far the watermark stays behind; also the slack of completeness proofs. ``grace``
    (ns): from a bucket's end to ``final``. ``keep`` (ns): how long settled rows stay cached.
    ``contiguous``: whether ids prove completeness; if not, every trade given is taken as new.
    Raises ``ValueError`` for a setting below 0 or of 2**61 ns and more.
    """

    def __init__(self, number: int, lateness: int, grace: int, keep: int, contiguous: bool = True) -> None:
        if not all(0 <= setting < 2**61 for setting in (lateness, grace, keep)):
            raise ValueError("lateness, grace and keep must be at least 0 and below 2**61 ns")
        self.number, self.lateness, self.grace, self.keep = number, lateness, grace, keep
        self.contiguous = contiguous
        self.seq = self.pos = 0
        self.watermark = self.newest_ts = NO_TIME
        self._ledger = Ledger(lateness)
        self._recent: dict[int, tuple[int, int, int, int]] = {}  # id, ts, price, size by id modulo RING
        self._deltas: dict[int, Row] = {}  # pending, by 1m open time
        self._second = Row(NO_TIME)  # the newest 1s candle since the start
        self._frames = [_Rows() for _ in BY_INDEX]

    def restore(self, seq: int, pos: int, watermark: int, ranges: I64, rows: Candles, newest: I64) -> None:
        """Start from what a store holds (``TapeState``)."""
        self.seq, self.pos, self.watermark = seq, pos, watermark
        self._ledger.restore(ranges)
        for frame, open_time in zip(self._frames, newest.tolist(), strict=True):
            frame.newest = open_time
        self.load(rows)
        self.newest_ts = max((row.last_ts for f in self._frames for row in f.rows.values()), default=NO_TIME)

    def ingest(
        self,
        trade_id: I64,
        first_id: I64,
        count: I64 | I32,
        ts_event: I64,
        price: I64,
        size: I64,
        side: I64 | I8,
        covers: I64 | None = None,
        latest: int = 2**63 - 1,
        clock: int = 0,
        reason: int = 0,
        allow_zero: bool = False,
    ) -> Ingested:
        """Take new trades (columns of length n) into the pending deltas.

        ``covers`` (m, 2): id ranges vouched for, default the records' own; ids of quarantined records are
        not covered, a pair that is no range of ids is ignored. ``latest``: the highest legal ``ts_event`` and
        ``clock``. ``clock``: the source's time, 0 = none. ``reason``: a ``Reason`` for revisions these trades
        cause (0: ``LATE``). ``allow_zero``: size 0 is legal (oracle rounds).
        Raises ``ValueError``, and takes nothing, when columns differ in length.
        """
        columns = [c.tolist() for c in (trade_id, first_id, count, ts_event, price, size, side)]
        if any(len(c) != len(columns[0]) for c in columns):
            raise ValueError("the columns of a batch must have the same length")
        latest = min(latest, LATEST)
        rejects = np.zeros(len(REJECTS), np.int64)
        accepted: list[int] = []
        quarantined: list[tuple[int, int]] = []
        after = self._ledger.ranges[-1].last if self._ledger.ranges else -1
        run = self.contiguous and plain_run(
            trade_id, first_id, count, ts_event, price, size, side, after=after, window=(EARLIEST, latest)
        )
        if run:
            self._take_run(run, reason or Reason.LATE)
            accepted, columns = list(range(len(run))), [[]] * len(columns)
        for i, record in enumerate(zip(*columns, strict=True)):
            why = self._screen(record, latest, allow_zero)
            if why is None:
                accepted.append(i)
                self._take_in(record, reason or Reason.LATE)
                continue
            rejects[REJECTS.index(why)] += 1
            if why not in ("duplicate", "conflict"):
                quarantined.append((record[1] if 0 <= record[1] <= record[0] else record[0], record[0]))
        for low, high in () if covers is None else covers.tolist():
            if 0 <= low <= high:
                self._cover(low, high, sorted(quarantined))
        if accepted:
            self.watermark = max(self.watermark, self.newest_ts - self.lateness)
        if clock > 0:
            self.watermark = max(self.watermark, min(clock, latest) - self.lateness)
        return Ingested(np.array(accepted, np.int64), rejects)

    def _screen(self, record: tuple[int, ...], latest: int, allow_zero: bool) -> str | None:
        id, first, count, ts, price, size, side = record
        if first < 0 or id < first or not 1 <= count <= min(id - first + 1, 2**31 - 1):
            return "bad_id"
        if price <= 0:
            return "bad_price"
        if size < 0 or (size == 0 and not allow_zero):
            return "bad_size"
        if not EARLIEST <= ts <= latest:
            return "bad_time"
        if side not in (-1, 0, 1):
            return "bad_side"
        if price * size >= 2**96:  # so that 128-bit sums hold 2**31 of the largest trades
            return "overflow"
        covered = self._ledger.covered(first, id) if self.contiguous else 0
        if covered == id - first + 1:
            known = self._recent.get(id % RING)
            return "conflict" if known and known[0] == id and known[1:] != (ts, price, size) else "duplicate"
        # Ids between its own may be another's: it then has no more trades than ids are free.
        if covered and (self._ledger.covers(id) or count > id - first + 1 - covered):
            return "partial"
        return None

    def _take_in(self, record: tuple[int, ...], reason: int) -> None:
        id, first, count, ts, price, size, side = record
        self.seq += 1
        self._recent[id % RING] = (id, ts, price, size)
        if self.contiguous:
            self._ledger.add(first, id, ts)
        buy = size if side > 0 else 0
        delta = Row(
            0, price, price, price, price, size, price * size, buy, price * buy, count, first, id, ts, ts, id, self.seq
        )  # fmt: skip
        delta.reason = reason
        minute, second = bucket(STORED[0], ts), bucket(BY_INDEX[0], ts)
        self._deltas.setdefault(minute, Row(minute)).merge(delta)
        if second > self._second.open_time:
            self._second = Row(second)
        if second == self._second.open_time:
            self._second.merge(delta)
        self.newest_ts = max(self.newest_ts, ts)

    def _take_run(self, run: Run, reason: int) -> None:
        """``_take_in`` for every trade of a plain run, at once."""
        for minute in run.deltas(STORED[0], self.seq, reason):
            self._deltas.setdefault(minute.open_time, Row(minute.open_time)).merge(minute)
        tail = run.newest_second()
        (second,) = tail.deltas(BY_INDEX[0], self.seq + len(run) - len(tail), reason)
        if second.open_time > self._second.open_time:
            self._second = Row(second.open_time)
        if second.open_time == self._second.open_time:
            self._second.merge(second)
        recent = zip(*(c[-RING:].tolist() for c in (run.id, run.ts, run.price, run.size)), strict=True)
        self._recent.update((record[0] % RING, record) for record in recent)
        self._ledger.extend(int(run.id[0]), int(run.id[-1]), int(run.ts[0]), int(run.ts[-1]))
        self.seq += len(run)
        self.newest_ts = max(self.newest_ts, int(run.ts[-1]))

    def _cover(self, first: int, last: int, quarantined: list[tuple[int, int]]) -> None:
        """Cover [first, last] but for the ``quarantined`` ranges (ascending): those ids exist and are not stored."""
        for low, high in quarantined:
            if high < first:
                continue
            if low > last:
                break
            if low > first:
                self._ledger.add(first, low - 1, NO_TIME)
            first = high + 1
        if first <= last:
            self._ledger.add(first, last, NO_TIME)

    @property
    def pending(self) -> bool:
        """Whether ``take`` would return anything to commit."""
        return bool(self._deltas or self._ledger.touched or any(self._due(row, f) for f, row in self._cached()))

    def _cached(self) -> list[tuple[int, Row]]:
        return [(index, row) for index, frame in enumerate(self._frames) for row in frame.rows.values()]

    def _due(self, row: Row, index: int) -> bool:
        end = bucket_end(BY_INDEX[index], row.open_time)
        if row.state == State.OPEN:
            return end <= self.watermark
        return row.state == State.CLOSED and row.complete == 1 and end + self.grace <= self.watermark

    def missing(self) -> tuple[I64, I64]:
        """What ``load`` must bring before ``take``: row keys (k, 2: tf index, open_time) and time windows (j, 2)."""
        keys = {
            (tf.index, open_time)
            for minute in self._deltas
            for tf in STORED
            if (open_time := bucket(tf, minute)) <= self._frames[tf.index].newest
            and open_time not in self._frames[tf.index].rows
        }
        windows = np.array(self._ledger.windows, np.int64).reshape(-1, 2)
        return np.array(sorted(keys), np.int64).reshape(-1, 2), windows

    def load(self, rows: Candles) -> None:
        """Bring stored rows into the cache; a row already there is newer and stays."""
        for index, row in unpack(rows):
            self._frames[index].rows.setdefault(row.open_time, row)

    def take(self) -> Taken:
        """Merge pending deltas into rows, settle states, and return every changed row once.

        Rows reported by ``missing`` must have been loaded; those the store did not have are new.
        """
        for index, delta in self._cascade():
            frame = self._frames[index]
            row = frame.rows.get(delta.open_time)
            if row is None:
                row = frame.rows[delta.open_time] = Row(delta.open_time, complete=0 if self.contiguous else -1)
                frame.newest = max(frame.newest, delta.open_time)
            row.reason = Reason.PROOF
            row.merge(delta)
            row.changed = True
        self._deltas.clear()
        out = []
        for index, frame in enumerate(self._frames):
            for open_time in sorted(frame.rows):
                row = frame.rows[open_time]
                change = self._settle(row, bucket_end(BY_INDEX[index], open_time))
                if change is not None:
                    row.pos = self.pos + 1
                    out.append((index, row, change))
        if out:
            self.pos += 1
        rows = pack(out, self.number)
        for _, row, _ in out:
            row.changed, row.reason = False, Reason.PROOF
        self._prune()
        return self._with_ranges(rows)

    def _cascade(self) -> list[tuple[int, Row]]:
        deltas: list[dict[int, Row]] = [{} for _ in BY_INDEX]
        deltas[1] = self._deltas
        for child, parent in TREE:
            for delta in deltas[child].values():
                open_time = bucket(BY_INDEX[parent], delta.open_time)
                deltas[parent].setdefault(open_time, Row(open_time)).merge(delta)
        return [(index, d) for index, frame in enumerate(deltas) for d in frame.values()]

    def _settle(self, row: Row, end: int) -> Change | None:
        """Move the row along open → closed → final; how it changed, None if it did not."""
        if row.state == State.OPEN and end > self.watermark:
            return Change.OPEN if row.changed else None
        complete = int(self._ledger.proves(row.open_time, end)) if self.contiguous else -1
        state = State.FINAL if complete == 1 and end + self.grace <= self.watermark else State.CLOSED
        if row.state == State.OPEN:
            row.state, row.complete = state, complete
            return Change.CLOSED
        if not row.changed and (state, complete) == (row.state, row.complete):
            return None
        only_final = not row.changed and complete == row.complete
        row.state, row.complete = state, complete
        row.rev += 1
        return Change.FINAL if only_final else Change.REVISED

    def _prune(self) -> None:
        tail = self._ledger.ranges[-1].last_ts if self._ledger.ranges else NO_TIME
        for index, frame in enumerate(self._frames):
            for open_time, row in list(frame.rows.items()):
                end = bucket_end(BY_INDEX[index], open_time)
                waits = row.state == State.OPEN or (
                    row.state == State.CLOSED
                    and (row.complete == 1 or (row.complete == 0 and end + self.lateness > tail))
                )
                if not waits and end <= self.watermark - self.keep:
                    del frame.rows[open_time]

    def _with_ranges(self, rows: Candles) -> Taken:
        holes_changed = self._ledger.holes_changed
        put, gone = self._ledger.drain()
        return Taken(rows, range_rows(put), np.array(gone, np.int64), holes_changed)

    def live(self) -> Candles:
        """The open candle of each timeframe that has one: stored row ⊕ pending deltas, plus ``1s``."""
        out = []
        if self.newest_ts != NO_TIME:
            if self._second.open_time == bucket(BY_INDEX[0], self.newest_ts):
                out.append((0, self._second))
            out += [(tf.index, row) for tf in STORED if (row := self._live_row(tf.index)) is not None]
        rows = pack([(index, row, Change.OPEN) for index, row in out], self.number)
        rows["complete"] = 0 if self.contiguous else -1
        return rows

    def _live_row(self, index: int) -> Row | None:
        tf = BY_INDEX[index]
        open_time = bucket(tf, self.newest_ts)
        end = bucket_end(tf, open_time)
        frame = self._frames[index]
        stored = frame.rows.get(open_time)
        if end <= self.watermark or (stored is None and open_time <= frame.newest):
            return None
        live = Row(open_time)
        if stored is not None:
            live.merge(stored)
            live.pos, live.rev = stored.pos, stored.rev
        for minute, delta in self._deltas.items():
            if open_time <= minute < end:
                live.merge(delta)
        return live if live.trades else None

    def ranges(self) -> I64:
        """The coverage ledger, shape (n, 4): from_id, to_id, from_ts, to_ts."""
        return range_rows(self._ledger.ranges)

    def rescale(self, price_factor: int, size_factor: int) -> None:
        """Multiply every held price and size: the instrument's scales were widened.

        Raises ``OverflowError``, and changes nothing, when one would leave 64 bits (a sum: 128);
        ``ValueError`` for a factor below 1.
        """
        if price_factor < 1 or size_factor < 1:
            raise ValueError("scales are only ever widened: factors must be at least 1")
        rows = [row for _, row in self._cached()] + [*self._deltas.values(), self._second]
        both = price_factor * size_factor
        recent = {
            slot: (id, ts, price * price_factor, size * size_factor)
            for slot, (id, ts, price, size) in self._recent.items()
        }
        if (
            any(row.high * price_factor > _INT64 for row in rows)
            or any(row.volume * size_factor > _INT128 or row.quote_volume * both > _INT128 for row in rows)
            or any(price > _INT64 or size > _INT64 for _, _, price, size in recent.values())
        ):
            raise OverflowError("a held price, size or sum does not fit its width at the wider scale")
        self._recent = recent
        for row in rows:
            row.open, row.high, row.low, row.close = (
                v * price_factor for v in (row.open, row.high, row.low, row.close)
            )
            row.volume *= size_factor
            row.taker_buy_volume *= size_factor
            row.quote_volume *= both
            row.taker_buy_quote_volume *= both
