"""How much one host may still be asked this minute: one budget for the whole process, spent by priority.

Venues count the weight of requests per address and minute and ban who exceeds it. The
budget counts what this process sent, believes the venue's own count where that is higher,
and lets nobody send while the venue has told to wait.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from enum import IntEnum

from tapewick import metrics
from tapewick.clock import Clock
from tapewick.errors import VenueRefused

__all__ = ["HostBudget", "Priority", "budget_for"]

WINDOW = 60 * 10**9  # venues count by the minute of their clock


class Priority(IntEnum):
    """Who is served first. The lower ones leave a part of the budget to the higher ones."""

    BOOK = 0
    REPAIR = 1
    BACKFILL = 2
    VERIFY = 3


RESERVED = {Priority.BOOK: 0.0, Priority.REPAIR: 0.1, Priority.BACKFILL: 0.2, Priority.VERIFY: 0.3}


class _Ticket:
    """A place in the queue; ``turn`` is set when it may have become the first."""

    def __init__(self, priority: Priority, number: int) -> None:
        self.order = (int(priority), number)
        self.turn = asyncio.Event()

    def __lt__(self, other: _Ticket) -> bool:
        return self.order < other.order


class HostBudget:
    """``share`` of ``limit`` weight per minute for this process; ``host`` names it in metrics and errors.

    ``blocked_until`` (UTC ns) is when the venue's order to wait ends, 0 where there was none.
    """

    def __init__(self, host: str, *, limit: int = 6000, share: float = 0.5) -> None:
        self.host = host
        self._limit = limit
        self._own = limit * share
        self._window = -1
        self._spent = 0
        self._reported = 0
        self._in_flight = 0
        self._numbers = itertools.count()
        self._queue: list[_Ticket] = []
        self.blocked_until = 0
        self.blocked_status = 0

    def narrow(self, limit: int, share: float) -> None:
        """Of several users of one host the most careful setting holds for all."""
        self._limit = min(self._limit, limit)
        self._own = min(self._own, limit * share)

    def used(self, clock: Clock) -> int:
        """Weight used in the running minute, by the higher of both counts."""
        self._roll(clock.now())
        return max(self._spent, self._reported)

    async def take(self, weight: int, priority: Priority, clock: Clock, *, patience: float) -> int:
        """Wait until ``weight`` may be spent and spend it; the number of the minute it was spent in.

        Raises ``VenueRefused`` when the venue's order to wait lasts longer than ``patience`` seconds.
        Each ``take`` is followed by one ``answered``.
        """
        ticket = _Ticket(priority, next(self._numbers))
        heapq.heappush(self._queue, ticket)
        try:
            while True:
                if self._queue[0] is not ticket:
                    ticket.turn.clear()
                    await ticket.turn.wait()
                elif wait := self._wait(weight, priority, clock.now(), patience):
                    await clock.sleep(wait / 1e9)
                else:
                    break
            self._spend(weight)
            return self._window
        finally:
            self._queue.remove(ticket)
            heapq.heapify(self._queue)
            if self._queue:
                self._queue[0].turn.set()

    def answered(self, weight: int, window: int, clock: Clock, used: int | None) -> None:
        """A request is over; ``used`` is the venue's count, None where it told none.

        A count that may belong to the minute before is not believed.
        """
        self._in_flight -= weight
        self._roll(clock.now())
        if used is not None and window == self._window:
            self._reported = used + self._in_flight
            metrics.venue_weight.labels(self.host).set(max(self._spent, self._reported))

    def block(self, until: int, status: int) -> None:
        """Nobody sends before ``until`` (UTC ns): the venue said so with ``status``."""
        if until > self.blocked_until:
            self.blocked_until, self.blocked_status = until, status

    def _roll(self, now: int) -> None:
        if now // WINDOW != self._window:
            self._window = now // WINDOW
            self._spent = self._reported = 0

    def _spend(self, weight: int) -> None:
        self._spent += weight
        self._reported += weight
        self._in_flight += weight
        metrics.venue_weight.labels(self.host).set(max(self._spent, self._reported))

    def _wait(self, weight: int, priority: Priority, now: int, patience: float) -> int:
        """Nanoseconds until it is worth asking again, 0 when ``weight`` may be spent now."""
        self._roll(now)
        blocked = self.blocked_until - now
        if blocked > patience * 1e9:
            raise VenueRefused(
                f"{self.host} told this address to wait (HTTP {self.blocked_status}); "
                f"it is not asked again for {blocked // 10**9} s",
                status=self.blocked_status,
                retry_after=blocked / 1e9,
            )
        if blocked > 0:
            return blocked
        # What is heavier than the budget itself is let through alone.
        own = not self._spent or self._spent + weight <= self._own * (1 - RESERVED[priority])
        all_users = not self._reported or self._reported + weight <= self._limit
        return 0 if own and all_users else (self._window + 1) * WINDOW - now


_BUDGETS: dict[str, HostBudget] = {}


def budget_for(host: str, *, limit: int, share: float) -> HostBudget:
    """The budget all clients of this process share for ``host``; the most careful setting holds."""
    budget = _BUDGETS.setdefault(host, HostBudget(host, limit=limit, share=share))
    budget.narrow(limit, share)
    return budget
