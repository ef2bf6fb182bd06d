"""Ids a tape vouches for, asked of the venue again: what the store lost of them is put back.

The ledger says such ids are stored, so the repair lane never asks for them, and the tape would take them for
duplicates. Here the stored rows themselves are compared with the venue's, by id. A lost row comes back at the end of
the tape, with a new ``seq`` and ``late``; the candles that hold it are revised. Their values change only where
they did not count it: both cases are told apart by the minute's number of trades, and a minute that fits
neither is left alone and counted. Nothing that is stored is changed or doubled.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tapewick.engine import TapeCore
from tapewick.errors import Fenced, SourceError
from tapewick.model import CANDLE, I64, Candles, Head, Reason, TapeCommit, TapeState, TradeBatch, Wanted, empty_candles
from tapewick.protocols import Repairer, Store
from tapewick.timeframe import BY_NAME, MINUTE, SECOND, buckets

__all__ = ["Outcome", "refetch"]

PROCESS = ("open_time", "tf", "number", "pos", "rev", "last_seq", "state", "complete", "origin", "change", "reason")
COLUMNS = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side")
COMPARED = ("price", "size", "ts_event", "side")
Mask: TypeAlias = npt.NDArray[np.bool_]
NO_RANGES = np.empty((0, 4), np.int64)


@dataclass(slots=True)
class Outcome:
    """Trades: ``compared`` with the venue's, of these ``restored``, ``differing`` in content (left as they are), and
    ``refused``: lost, but of minutes whose candle agrees neither with nor without them."""

    compared: int = 0
    restored: int = 0
    differing: int = 0
    refused: int = 0


async def refetch(
    store: Store,
    repairer: Repairer,
    instrument: str,
    ids: tuple[int, int],
    *,
    lateness: int = 2 * SECOND,
    show: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Compare the covered ids of the range ``ids`` and restore what is lost, a commit per page.

    Takes the tape from whoever owns it. Raises ``SourceError`` when the venue does not answer, after what stands.
    """
    [state] = await store.claim([instrument])
    outcome, waiting = Outcome(), TradeBatch.empty(instrument)
    covered = [(max(low, ids[0]), min(high, ids[1])) for low, high, *_ in state.ranges.tolist()]
    ranges = tuple((low, high) for low, high in covered if low <= high)
    async with aclosing(repairer.fetch(Wanted(instrument=instrument, ranges=ranges))) as pages:
        async for page in pages:
            ready, waiting = _whole_minutes(waiting, _scaled(page, state))
            await _compare(store, state, ready, lateness, outcome)
            show(outcome)
    await _compare(store, state, waiting, lateness, outcome)
    return outcome


def _whole_minutes(waiting: TradeBatch, page: TradeBatch) -> tuple[TradeBatch, TradeBatch]:
    """Both together, cut before the minute of the last trade: the next page may hold more of it."""
    if not len(page):
        return page, waiting
    columns = {name: np.concatenate((getattr(waiting, name), getattr(page, name))) for name in COLUMNS}
    both = replace(page, **columns)  # type: ignore[arg-type]
    last = int(page.ts_event[-1]) // MINUTE * MINUTE
    return both.select(np.flatnonzero(both.ts_event < last)), both.select(np.flatnonzero(both.ts_event >= last))


async def _compare(store: Store, state: TapeState, page: TradeBatch, lateness: int, outcome: Outcome) -> None:
    """Take one page of the venue's trades."""
    if not len(page):
        return
    around = int(page.ts_event.min()) // MINUTE * MINUTE - MINUTE, int(page.ts_event.max()) // MINUTE * MINUTE
    stored, _ = await store.trades(state.instrument.id, start=around[0], end=around[1] + 2 * MINUTE, primary=True)
    order = np.argsort(stored.trade_id, kind="stable")
    at = order[np.minimum(np.searchsorted(stored.trade_id, page.trade_id, sorter=order), max(len(order) - 1, 0))]
    same = np.zeros(len(page), bool)
    if len(order):
        same = (stored.trade_id[at] == page.trade_id) & (stored.first_id[at] == page.first_id)
    outcome.compared += len(page)
    here, there = np.flatnonzero(same), at[same] if len(order) else at
    differs = np.zeros(len(here), bool)
    for name in COMPARED:
        differs |= getattr(page, name)[here] != getattr(stored, name)[there]
    outcome.differing += int(differs.sum())
    lost = page.select(np.flatnonzero(~_held(page, stored)))
    if not len(lost):
        return
    kept, folds = await _counted(store, state, lost, stored)
    outcome.refused += int((~(kept | folds)).sum())
    for fold, part in ((False, kept), (True, folds)):
        if part.any():
            rows = lost.select(np.flatnonzero(part))
            outcome.restored += await _restore(store, state, rows, lateness, fold=fold)


def _held(page: TradeBatch, stored: TradeBatch) -> Mask:
    """Which trades share ids with stored records: a tape may hold some of its trades as one aggregate."""
    order = np.argsort(stored.first_id, kind="stable")
    reach = np.maximum.accumulate(stored.trade_id[order])
    before = np.searchsorted(stored.first_id, page.trade_id, side="right", sorter=order)
    held = np.zeros(len(page), bool)
    some = before > 0
    held[some] = reach[before[some] - 1] >= page.first_id[some]
    return held


async def _counted(store: Store, state: TapeState, lost: TradeBatch, stored: TradeBatch) -> tuple[Mask, Mask]:
    """Per lost trade, whether its minute's candle counts it, and whether it counts none that was lost of the minute."""
    minute = BY_NAME["1m"]
    times, owner = np.unique(buckets(minute, np.ascontiguousarray(lost.ts_event)), return_inverse=True)
    keys = np.column_stack((np.full(len(times), minute.index), times))
    rows = await store.load_candles(state.number, keys, np.empty((0, 2), np.int64))
    inside = buckets(minute, np.ascontiguousarray(stored.ts_event))
    told = np.array([int(rows["trades"][rows["open_time"] == t].sum()) for t in times.tolist()])
    present = np.array([int(stored.count[inside == t].sum()) for t in times.tolist()])
    absent = np.bincount(owner, lost.count).astype(np.int64)
    return (told == present + absent)[owner], (told == present)[owner]


async def _restore(store: Store, state: TapeState, lost: TradeBatch, lateness: int, *, fold: bool) -> int:
    """Commit ``lost`` behind the tape's end, ``fold``: also into the values of candles; how many."""
    core = TapeCore(state.number, lateness, 0, 0, False)  # takes every id as new: the ledger stays as it is
    core.restore(state.seq, state.pos, state.watermark, NO_RANGES, empty_candles(), state.newest)
    accepted, _ = core.ingest(
        lost.trade_id, lost.first_id, lost.count, lost.ts_event, lost.price, lost.size, lost.side, reason=Reason.REPAIR
    )
    if not len(accepted):
        return 0
    keys, windows = core.missing()
    before = await store.load_candles(state.number, keys, windows)
    core.load(before)
    rows = _as_they_were(core.take().rows, before, fold=fold)
    kept = lost.select(accepted)
    kept.seq, kept.epoch = np.arange(state.seq + 1, core.seq + 1), state.epoch
    kept.covers, kept.late = None, True
    head = Head(
        instrument=state.instrument.id,
        epoch=state.epoch,
        seq=core.seq,
        pos=core.pos,
        watermark=core.watermark,
        price_scale=state.instrument.price_scale,
        size_scale=state.instrument.size_scale,
    )
    await _commit(store, state, head, kept, rows)
    state.seq, state.pos, state.watermark = head.seq, head.pos, head.watermark
    return len(accepted)


async def _commit(store: Store, state: TapeState, head: Head, trades: TradeBatch, rows: Candles) -> None:
    """Write rows and trades; the ledger stays. Raises ``Fenced`` when another engine has taken the tape."""
    commit = TapeCommit(
        number=state.number,
        instrument=state.instrument.id,
        owner=state.owner,
        expected_pos=state.pos,
        head=head,
        trades=[trades],
        rows=rows,
        ranges_put=NO_RANGES,
        ranges_gone=np.empty(0, np.int64),
    )
    if fenced := await store.commit([commit]):
        raise Fenced(fenced)


def _as_they_were(rows: Candles, before: Candles, *, fold: bool) -> Candles:
    """Revised ``rows`` with the state and proof they had ``before``, and unless ``fold`` with their values."""
    known = {(row["tf"], row["open_time"]): row for row in before}
    for row in rows:
        was = known.get((row["tf"], row["open_time"]))
        row["complete"] = 0 if was is None else was["complete"]
        if was is None:
            continue
        row["state"] = was["state"]
        for name in () if fold else CANDLE.names or ():
            if name not in PROCESS:
                row[name] = was[name]
    return rows


def _scaled(page: TradeBatch, state: TapeState) -> TradeBatch:
    """``page`` at the tape's scales. Raises ``SourceError`` for records the tape cannot hold one by one."""
    own = state.instrument
    if own.granularity == "raw" and len(page) and int(page.count.max()) > 1:
        raise SourceError(f"the venue gives aggregates of {own.id} only: its single trades cannot be compared")
    digits = own.price_scale - page.price_scale, own.size_scale - page.size_scale
    if min(digits) < 0:
        raise SourceError(f"the venue gives {own.id} with more digits than the tape has: collect it live first")
    return replace(
        page,
        price=_times(page.price, digits[0]),
        size=_times(page.size, digits[1]),
        price_scale=own.price_scale,
        size_scale=own.size_scale,
    )


def _times(column: I64, digits: int) -> I64:
    return column * 10**digits if digits else column
