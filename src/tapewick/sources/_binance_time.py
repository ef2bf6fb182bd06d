"""The difference between the venue's clock and ours, and the unit its times are in."""

from __future__ import annotations

from collections import Counter

import msgspec

from tapewick.clock import Clock
from tapewick.errors import SourceError
from tapewick.net.venue_client import Priority, VenueClient
from tapewick.sources._binance_listing import Product
from tapewick.sources._stamps import unit_of

__all__ = ["VenueTime", "headers"]

SPOT = "/api/v3"
EVERY = 300.0
SAMPLES = 3
MOST = 24 * 3600 * 10**9  # a larger difference is a broken answer


def headers(product: Product, *, microseconds: bool) -> dict[str, str]:
    """What asks a market kind for answers with times in µs; only spot's has such."""
    return {"X-MBX-TIME-UNIT": "MICROSECOND"} if microseconds and product.root == SPOT else {}


class _Time(msgspec.Struct):
    serverTime: int


class VenueTime:
    """``offset``: venue minus local time in ns; 0 until measured. Failures are counted in ``rejects``."""

    def __init__(self, path: str, clock: Clock, rejects: Counter[str]) -> None:
        self._path, self._clock, self._rejects = path, clock, rejects
        self.offset = 0

    @property
    def now(self) -> int:
        """The venue's time, UTC ns."""
        return self._clock.now() + self.offset

    async def keep(self, rest: VenueClient) -> None:
        """Measure every five minutes until cancelled."""
        while True:
            await self._clock.sleep(EVERY)
            await self.measure(rest)

    async def measure(self, rest: VenueClient) -> None:
        """Take the quickest of three answers; a failure keeps the last measurement."""
        samples = []
        try:
            for _ in range(SAMPLES):
                sent = self._clock.now()
                answer = await rest.get(self._path, _Time, priority=Priority.BOOK)
                back = self._clock.now()
                samples.append((back - sent, answer.serverTime * unit_of(answer.serverTime) - (sent + back) // 2))
        except SourceError:
            self._rejects["time"] += 1
            return
        offset = min(samples)[1]
        if abs(offset) <= MOST:
            self.offset = offset
        else:
            self._rejects["time"] += 1
