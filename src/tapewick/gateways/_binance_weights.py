"""How much each address may ask for per minute, counted the way the venue counts: by request weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Meter", "Spent"]

MOST_PEERS = 65_536  # addresses counted apart within one minute; the rest share one account
MINUTE = 60_000_000_000


class Spent(NamedTuple):
    """The weight used in this minute, and the seconds to wait where that is too much."""

    used: int
    wait: int | None


class Meter:
    """Weight per address and minute of ``now`` (ns)."""

    def __init__(self, limit: int, now: Callable[[], int]) -> None:
        self.limit, self._now = limit, now
        self._minute = 0
        self._used: dict[str, int] = {}

    def spend(self, peer: str, weight: int) -> Spent:
        """Charge ``peer``. A request beyond the limit costs 1: asking on does not become free."""
        now = self._now()
        if now // MINUTE != self._minute:
            self._minute = now // MINUTE
            self._used.clear()
        if peer not in self._used and len(self._used) >= MOST_PEERS:
            peer = ""
        used = self._used.get(peer, 0)
        if used + weight > self.limit:
            self._used[peer] = used + 1
            return Spent(used, -(-((self._minute + 1) * MINUTE - now) // 1_000_000_000))
        self._used[peer] = used + weight
        return Spent(used + weight, None)
