"""How much one address may have under way at once: costly requests, push connections."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from tapewick.errors import TooManyRequests, Unavailable

__all__ = ["HEAVY_ROWS", "Quota", "Slot"]

HEAVY_ROWS = 2000  # from here on an answer counts as costly
RETRY_AFTER = 2  # seconds; a costly request rarely takes longer


class Slot:
    """One that is under way; leaving its context, or forgetting it, ends it."""

    def __init__(self, busy: Counter[str], address: str) -> None:
        self._busy, self._address = busy, address
        busy[address] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def __del__(self) -> None:
        self.end()

    def end(self) -> None:
        """Free its place, once."""
        address, self._address = self._address, ""
        if address:
            self._busy[address] -= 1
            if not self._busy[address]:
                del self._busy[address]


class Quota:
    """At most ``per_address`` of one address and ``total`` of all at the same time. ``what`` they are, in the
    plural, ``whose``, and the ``setting`` that says how many are told to whom it refuses."""

    def __init__(
        self,
        per_address: int,
        total: int | None = None,
        *,
        what: str = "costly requests",
        setting: str = "server.heavy_requests",
        whose: str = "this address",
    ) -> None:
        self._per_address, self._total, self._what, self._setting = per_address, total, what, setting
        self._whose = whose
        self.busy: Counter[str] = Counter()

    def slot(self, address: str) -> Slot:
        """A place for one more of ``address``. Raises ``TooManyRequests``; ``Unavailable`` where all have too many."""
        if self.busy[address] >= self._per_address:
            raise TooManyRequests(
                f"{self._per_address} {self._what} of {self._whose} are under way; wait for one to end "
                f"({self._setting} sets how many)",
                retry_after=RETRY_AFTER,
            )
        if self._total is not None and self.busy.total() >= self._total:
            raise Unavailable(f"the server has no room for more {self._what} now", retry_after=RETRY_AFTER)
        return Slot(self.busy, address)

    def for_rows(self, address: str, limit: int) -> AbstractContextManager[object]:
        """A place for an answer of up to ``limit`` rows, if that many are costly. Raises ``TooManyRequests``."""
        return self.slot(address) if limit >= HEAVY_ROWS else nullcontext()
