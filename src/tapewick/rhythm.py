"""When the next value of a channel may be sent: at a steady rate, and as fresh as can be."""

from __future__ import annotations

import math

__all__ = ["Rhythm"]

GRACE = 0.015  # seconds a value that is due waits for a newer one: sent as that comes, it is as fresh as can be


class Rhythm:
    """Values ``pace`` seconds apart (0: at once), by the clock the times given are of.

    A value that waits is replaced by newer ones. Once it is ``due`` it goes out with the next that comes, and at
    ``last`` without one.
    """

    def __init__(self, pace: float) -> None:
        self._pace, self._grace = pace, min(GRACE, pace / 5)
        self.due = 0.0

    @property
    def last(self) -> float:
        """When a value is sent though no newer one has come."""
        return self.due + self._grace

    def sent(self, now: float, *, waited: bool) -> None:
        """One was; the next is due ``pace`` later, or so many times that after this was, if it had ``waited``.

        So waits do not add up, and channels that were late together do not stay in step.
        """
        if not waited or not self._pace:
            self.due = now + self._pace
        else:
            self.due += self._pace * max(1, math.ceil((now - self.due) / self._pace + 0.5))  # half a pace later or more
