"""Which messages of one sender were read in one partition: their highest number, and the holes below it."""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["HOLES", "Numbers"]

HOLES = 1024  # holes remembered; a server refuses some of what is sent at once, not every other one


class Numbers:
    """Senders count from 1; 0, of one that does not, is always new. A number may come late, where the server refused
    one message of several that were under way and all were sent again; it is new then, however many higher ones were
    read. No number is taken for a repetition before it came once: of holes too many to remember, repetitions pass."""

    def __init__(self) -> None:
        self._last = 0
        self._holes: list[tuple[int, int]] = []  # first and last number, rising
        self._forgotten = 0  # up to here nothing is known

    def take(self, number: int) -> int | None:
        """Note a number: how many right before it have not come yet; None for one that was read before."""
        if number > self._last:
            missing, self._last = number - self._last - 1, number
            if missing:
                self._holes.append((number - missing, number - 1))
                self._bound()
            return missing
        return 0 if number <= self._forgotten or self._filled(number) else None

    def _filled(self, number: int) -> bool:
        """Take ``number`` out of the hole it lies in, if it does."""
        at = bisect_right(self._holes, (number, self._last)) - 1
        if at < 0 or self._holes[at][1] < number:
            return False
        first, last = self._holes[at]
        self._holes[at : at + 1] = [hole for hole in ((first, number - 1), (number + 1, last)) if hole[0] <= hole[1]]
        self._bound()
        return True

    def _bound(self) -> None:
        while len(self._holes) > HOLES:
            self._forgotten = self._holes.pop(0)[1]
