"""Whether a simulated market goes on with what a store already holds of one.

The trades of a simulated market follow from its seed and rate. Another seed or rate would number other trades with
the same ids: repaired and deduplicated, two markets would end up mixed on one tape.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import msgspec

from tapewick.model import TradeBatch
from tapewick.protocols import Store
from tapewick.sim.market import Market

__all__ = ["Made", "contradicted"]

FILE = "simulated.json"
MS = 1_000_000


class Made(msgspec.Struct, frozen=True):
    """What the market in a data folder was made with."""

    seed: int
    rate: float

    @classmethod
    def read(cls, folder: Path) -> Made | None:
        """As noted in ``folder``; None where nothing is noted, or nothing that can be read."""
        try:
            return msgspec.json.decode((folder / FILE).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError):
            return None

    def note(self, folder: Path) -> None:
        """Keep it in ``folder``, for people: what decides is the tape. Raises ``OSError``."""
        (folder / FILE).write_bytes(msgspec.json.encode(self) + b"\n")


async def contradicted(store: Store, markets: Mapping[str, Market], venue: str = "sim") -> str | None:
    """The first instrument of ``venue`` whose newest stored trade is none of its market's; None if all go on."""
    known = {instrument.id for instrument in await store.instruments()}
    for symbol, market in markets.items():
        if (id := f"{venue}:{symbol}") in known:
            newest, _ = await store.trades(id, limit=1, newest=True)
            if len(newest) and not _holds(market, newest):
                return id
    return None


def _holds(market: Market, stored: TradeBatch) -> bool:
    """Whether the one stored trade, or the first trade of a stored aggregate, is the market's."""
    own = next(iter(market.trades(int(stored.first_id[0]), int(stored.first_id[0]))), None)
    if own is None or own.time != int(stored.ts_event[0]) // MS:
        return False
    price = Decimal(int(stored.price[0])).scaleb(-stored.price_scale)
    size = Decimal(int(stored.size[0])).scaleb(-stored.size_scale)
    return price == Decimal(own.price) and (int(stored.count[0]) > 1 or size == Decimal(own.size))
