"""The repair lane: answers what engines want from the venues, beside live data and never before it.

One venue is asked for one hole at a time, the oldest of an instrument first, instruments in turn.
Pages go to topic ``repairs`` and wait there while it is full. Failures are told to the engine, which
counts them and decides when a gap is given up; the lane only waits longer after each.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import structlog

from tapewick.clock import Clock, RealClock
from tapewick.engine import _remainder
from tapewick.engine.tape import Tape
from tapewick.errors import SourceError
from tapewick.model import NO_TIME, Gap, TradeBatch, Wanted
from tapewick.net.backoff import Backoff
from tapewick.protocols import Bus, Delivery, Repairer, Store
from tapewick.timeframe import SECOND

if TYPE_CHECKING:
    from tapewick.leases import Leases

__all__ = ["RepairLane", "missing_part"]

log = structlog.get_logger()

Range: TypeAlias = tuple[int, int]

TURN = 50_000  # ids an instrument may fetch while others of its venue wait
FORBIDDEN = 403  # the venue's firewall turned down these ids: others may be asked for meanwhile
SETTLE = 60 * SECOND  # time in which pages must have reached a tape that still wants them


@dataclass(slots=True)
class _Wish:
    """What one instrument wants and how far the lane is. ``sent``: ranges published, with the time.
    ``due``: nothing before this time (ns), ``forbidden``: ranges not before the time with them."""

    backoff: Backoff
    ranges: tuple[Range, ...] = ()
    since: tuple[int, ...] = ()
    sent: list[tuple[int, int, int]] = field(default_factory=list)
    forbidden: list[tuple[int, int, int]] = field(default_factory=list)
    due: int = 0
    said: str = ""

    def renew(self, wanted: Wanted) -> None:
        """The newest message replaces what was wanted; what has arrived is forgotten.

        What was asked for while nothing was wanted does not wait for the failures of before.
        """
        if not self.ranges:
            self.backoff.reset()
            self.due, self.said = 0, ""
        self.ranges = wanted.ranges
        self.since = wanted.since or (NO_TIME,) * len(wanted.ranges)
        self.sent = [one for one in self.sent if any(one[0] <= high and low <= one[1] for low, high in self.ranges)]

    def next(self, now: int) -> tuple[Range, int] | None:
        """The oldest ids that are wanted and were not sent, and the time of the trade before them."""
        self.forbidden = [one for one in self.forbidden if one[2] > now]
        for (low, high), since in zip(self.ranges, self.since, strict=True):
            for rest in _without((low, high), [*self.sent, *self.forbidden]):
                return rest, since if rest[0] == low else NO_TIME
        return None

    def overdue(self, now: int) -> Range | None:
        """Ids sent long ago and wanted still, which are as good as not sent; None if there are none."""
        for one in self.sent:
            if one[2] + SETTLE <= now:
                self.sent.remove(one)
                return one[0], one[1]
        return None


class RepairLane:
    """Serves topic ``wanted`` from ``repairers`` while ``run`` runs; what is announced from now on is heard.

    Instruments of venues without a repairer are left alone. ``cap``: seconds between two attempts at most.
    ``leases``: of several lanes only the one that holds ``repair/VENUE`` asks that venue; the others listen.
    """

    def __init__(
        self,
        repairers: Iterable[Repairer],
        bus: Bus,
        *,
        clock: Clock | None = None,
        base: float = 0.5,
        cap: float = 120.0,
        leases: Leases | None = None,
    ) -> None:
        self._bus, self._clock, self._leases = bus, clock or RealClock(), leases
        self._base, self._cap = base, cap
        self._repairers: dict[str, Repairer] = {}
        self._wishes: dict[str, OrderedDict[str, _Wish]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._group: asyncio.TaskGroup | None = None
        for repairer in repairers:
            self.add(repairer)
        self._wanted = bus.subscribe(["wanted"])

    def add(self, repairer: Repairer) -> None:
        """Serve its venue too; another one for the same venue is not needed."""
        venue = repairer.venue
        if venue in self._repairers:
            return
        self._repairers[venue], self._wishes[venue], self._news[venue] = repairer, OrderedDict(), asyncio.Event()
        if self._group is not None:
            self._group.create_task(self._serve_alone(venue), name=f"repair {venue}")

    async def run(self) -> None:
        """Repair until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._listen(self._wanted), name="repair wanted")
            for venue in self._repairers:
                group.create_task(self._serve_alone(venue), name=f"repair {venue}")

    async def _listen(self, deliveries: AsyncIterator[Delivery]) -> None:
        async for delivery in deliveries:
            wanted = delivery.message
            delivery.ack()
            if not isinstance(wanted, Wanted):
                continue
            venue = wanted.instrument.partition(":")[0]
            if (wishes := self._wishes.get(venue)) is None:
                continue
            wish = wishes.get(wanted.instrument)
            if wish is None:
                wish = wishes[wanted.instrument] = _Wish(Backoff(base=self._base, cap=self._cap))
            wish.renew(wanted)
            self._news[venue].set()

    async def _serve_alone(self, venue: str) -> None:
        """Serve while nobody else does."""
        if self._leases is None:
            await self._serve(venue)
        else:
            await self._leases.guarded(f"repair/{venue}", partial(self._serve, venue))

    async def _serve(self, venue: str) -> None:
        """One hole after the other, instruments in turn, each not before its back-off has passed."""
        wishes, news = self._wishes[venue], self._news[venue]
        while True:
            news.clear()
            now = self._clock.now()
            job = None
            for instrument, wish in list(wishes.items()):
                if (late := wish.overdue(now)) is not None:
                    await self._failed(instrument, wish, late, "what the venue answered does not fill the gap", None)
                elif wish.due <= now and (job := wish.next(now)) is not None:
                    wishes.move_to_end(instrument)
                    await self._attempt(self._repairers[venue], instrument, wish, *job)
                    break
            if job is None:
                await self._pause(wishes.values(), news)

    async def _pause(self, wishes: Iterable[_Wish], news: asyncio.Event) -> None:
        """Until something new is wanted, or a back-off or the time for pages to arrive has passed."""
        times = [wish.due for wish in wishes if wish.next(self._clock.now()) is not None]
        times += [one[2] for wish in wishes for one in wish.forbidden]
        times += [one[2] + SETTLE for wish in wishes for one in wish.sent[:1]]
        heard = asyncio.create_task(news.wait())
        tasks = {heard}
        if times:
            wait = max(min(times) - self._clock.now(), 1_000_000) / 1e9
            tasks.add(asyncio.create_task(self._clock.sleep(wait)))  # type: ignore[arg-type]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _attempt(self, repairer: Repairer, instrument: str, wish: _Wish, ids: Range, since: int) -> None:
        """Fetch ``ids``, or a turn's worth of them, and publish each page as it comes."""
        await self._say(instrument, ids, "repairing")
        reached, turn = ids[0], ids[0] + TURN
        try:
            wanted = Wanted(instrument=instrument, ranges=(ids,), since=(since,))
            async with aclosing(repairer.fetch(wanted)) as pages:
                async for page in pages:
                    page.late, page.clock = True, 0
                    await self._bus.publish("repairs", page)
                    wish.backoff.reset()
                    wish.said = ""
                    for low, high in page.covers or ():
                        _note(wish.sent, low, high, self._clock.now())
                        reached = max(reached, high + 1)
                    if turn <= reached <= ids[1] and self._others_wait(repairer.venue, wish):
                        return
        except SourceError as error:
            retry_after: float | None = getattr(error, "retry_after", None)
            if retry_after and getattr(error, "status", 0) == FORBIDDEN:
                wish.forbidden.append((reached, ids[1], self._clock.now() + int(retry_after * 1e9)))
                retry_after = None
            await self._failed(instrument, wish, (reached, ids[1]), str(error), retry_after)
        else:
            if reached <= ids[1]:
                await self._failed(instrument, wish, (reached, ids[1]), "the venue answered only a part", None)

    def _others_wait(self, venue: str, wish: _Wish) -> bool:
        now = self._clock.now()
        wishes = self._wishes[venue].values()
        return any(other is not wish and other.due <= now and other.next(now) is not None for other in wishes)

    async def _failed(self, instrument: str, wish: _Wish, ids: Range, cause: str, retry_after: float | None) -> None:
        wish.due = self._clock.now() + int(wish.backoff.delay(retry_after) * 1e9)
        if cause != wish.said:
            wish.said = cause
            log.warning("repair failed; trying again", instrument=instrument, first=ids[0], last=ids[1], cause=cause)
        await self._say(instrument, ids, "open")

    async def _say(self, instrument: str, ids: Range, state: str) -> None:
        """Tell the engine: work on these ids begins (``repairing``) or has failed (``open``)."""
        gap = Gap(
            instrument=instrument,
            left_id=ids[0] - 1,
            right_id=ids[1] + 1,
            left_ts=NO_TIME,
            right_ts=NO_TIME,
            state="repairing" if state == "repairing" else "open",
        )
        await self._bus.publish("repairs", gap)


def _without(ids: Range, sent: Sequence[tuple[int, int, int]]) -> Iterator[Range]:
    """The parts of ``ids`` that are not in ``sent``, ascending."""
    low, high = ids
    for first, last, _ in sorted(sent):
        if last < low:
            continue
        if first > high:
            break
        if first > low:
            yield low, first - 1
        low = last + 1
    if low <= high:
        yield low, high


def _note(sent: list[tuple[int, int, int]], low: int, high: int, now: int) -> None:
    """Add a range, to the one it continues where there is one."""
    if sent and sent[-1][1] + 1 == low:
        low = sent.pop()[0]
    sent.append((low, high, now))


async def missing_part(
    batch: TradeBatch, tape: Tape, store: Store, commit: Callable[[], Awaitable[None]]
) -> TradeBatch:
    """Aggregates, without what the tape holds of them already. Other batches come back as they are.

    ``commit`` brings what the tape has taken in so far to ``store``. Nothing is awaited after the last look at the
    tape: to be taken in before anything else is, for live trades may bring more of the same ids at any time.
    """
    while len(parts := _remainder.known_in_part(batch, ranges := tape.ranges)):
        await commit()
        found = [await _around(store, tape, int(ts)) for ts in batch.ts_event[parts].tolist()]
        before, now = (_remainder.held(batch, parts, known) for known in (ranges, tape.ranges))
        if not (before == now).all():
            continue
        batch = _remainder.widened(batch, max(known.size_scale for known in found))
        for part, known in zip(parts.tolist(), found, strict=True):
            batch = _remainder.trimmed(batch, part, ranges, known)
        return _remainder.without_empty(batch)
    return batch


async def _around(store: Store, tape: Tape, ts: int) -> TradeBatch:
    """What the store holds of the tape around a time (ns), of this moment: a replica may be behind."""
    found, _ = await store.trades(tape.instrument.id, start=ts - SECOND, end=ts + SECOND, primary=True)
    return found
