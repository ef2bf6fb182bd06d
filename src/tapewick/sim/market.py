"""An invented market: any trade of any time, computed from the seed alone.

Time since ``origin`` is cut into blocks that hold the same number of trades each, so trade
ids are contiguous from 1 and every block can be computed by itself. Nothing is remembered: a
venue restarted with the same seed and origin continues the same tape, and can be asked for any
part of its past.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["LISTING", "Columns", "Listing", "Market", "SimTrade"]

# Trades per order in a block, in random order: most orders fill once, some sweep several makers.
_FILLS = (1, 1, 1, 1, 1, 1, 1, 2, 2, 4)
_UNIT_TRADES = sum(_FILLS)
_BLOCK_MS = (600_000, 60_000, 10_000, 1_000, 100, 10)
_BLOCK_TRADES = 6_000
_PERIODS = tuple(1000 * 4**octave for octave in range(13))  # 1 s, 4 s … 194 days
_VOLATILITY = 1.07e-4  # per square root of a second: 60 % a year
_KEPT_BLOCKS = 16


class Listing(NamedTuple):
    """What the venue says of a symbol; ``price`` is where its walk is centred."""

    symbol: str
    base: str
    quote: str
    price_scale: int
    size_scale: int
    price: float
    size: float
    status: str = "TRADING"


LISTING = {
    listing.symbol: listing
    for listing in (
        Listing("BTCUSDT", "BTC", "USDT", 2, 5, 64_000.0, 0.012),
        Listing("ETHUSDT", "ETH", "USDT", 2, 4, 3_100.0, 0.25),
        Listing("SOLUSDT", "SOL", "USDT", 2, 3, 158.0, 4.0),
        Listing("BNBUSDT", "BNB", "USDT", 1, 3, 590.0, 0.8),
        Listing("XRPUSDT", "XRP", "USDT", 4, 1, 0.58, 900.0),
        Listing("DOGEUSDT", "DOGE", "USDT", 5, 0, 0.124, 4_000.0),
        Listing("ETHBTC", "ETH", "BTC", 5, 4, 0.0484, 0.4),
        Listing("币安USDT", "币安", "USDT", 5, 1, 0.31, 700.0),
    )
}
"""Known symbols; one has a name outside ASCII, as some real ones have."""


class SimTrade(NamedTuple):
    """One trade of the simulated venue; ``price`` and ``size`` are decimal text, ``time`` UTC ms."""

    id: int
    price: str
    size: str
    time: int
    buyer_is_maker: bool
    agg_id: int
    agg_first: int
    agg_last: int


class Columns(NamedTuple):
    """Trades as columns of equal length: ids, UTC ms, and mantissas at the listing's scales."""

    id: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    price: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    maker: npt.NDArray[np.bool_]

    def select(self, rows: npt.NDArray[np.bool_]) -> Columns:
        return Columns(self.id[rows], self.time[rows], self.price[rows], self.size[rows], self.maker[rows])


class Block(NamedTuple):
    """Trades of one block as columns; the first has ``first_id``."""

    first_id: int
    time: npt.NDArray[np.int64]
    price: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    maker: npt.NDArray[np.bool_]
    order: npt.NDArray[np.int64]
    first_order: int


class Market:
    """One symbol's endless tape: about ``rate`` trades per second from ``origin`` (UTC ms) on.

    ``voids``: ids that were given away without a trade; ``trades`` shows them with price and size 0.
    """

    def __init__(self, listing: Listing, *, seed: int, rate: float, origin: int) -> None:
        self.listing = listing
        self.origin = origin
        self._key = (seed, zlib.crc32(listing.symbol.encode()))
        length = next((ms for ms in _BLOCK_MS if rate * ms / 1000 <= _BLOCK_TRADES), _BLOCK_MS[-1])
        self._units = max(1, round(rate * length / 1000 / _UNIT_TRADES))
        self._length = length
        self._cache: OrderedDict[int, Block] = OrderedDict()
        self.voids: set[int] = set()

    @property
    def salt(self) -> int:
        """64 bits that differ between seeds and symbols."""
        return (self._key[0] * 0x9E3779B97F4A7C15 + self._key[1] * 0xD1B54A32D192ED03) & (2**64 - 1)

    @property
    def block_trades(self) -> int:
        return self._units * _UNIT_TRADES

    def last_id(self, now: int) -> int:
        """Id of the last trade before the millisecond ``now``; 0 if there is none."""
        number = (now - self.origin) // self._length
        if number < 0:
            return 0
        block = self.block(number)
        return block.first_id - 1 + int(np.searchsorted(block.time, now, side="left"))

    def time_of(self, id: int) -> int:
        """UTC ms of trade ``id``, which may lie ahead."""
        number, offset = divmod(id - 1, self.block_trades)
        return int(self.block(number).time[offset])

    def first_id_at(self, time: int) -> int:
        """Id of the first trade at or after ``time`` (UTC ms)."""
        return self.last_id(max(time, self.origin)) + 1

    def trades(self, first_id: int, last_id: int) -> list[SimTrade]:
        """Trades with ids in [first_id, last_id], ascending; ids below 1 do not exist."""
        found: list[SimTrade] = []
        first_id = max(first_id, 1)
        while first_id <= last_id:
            block = self.block((first_id - 1) // self.block_trades)
            end = min(last_id, block.first_id + self.block_trades - 1)
            found += self._rows(block, first_id - block.first_id, end - block.first_id + 1)
            first_id = end + 1
        if self.voids:
            found = [t._replace(price=_zero(t.price), size=_zero(t.size)) if t.id in self.voids else t for t in found]
        return found

    def columns(self, first_id: int, last_id: int) -> Columns:
        """The real trades with ids in [first_id, last_id], ascending: void ids are left out."""
        parts: list[Columns] = []
        first_id = max(first_id, 1)
        while first_id <= last_id:
            block = self.block((first_id - 1) // self.block_trades)
            end = min(last_id, block.first_id + self.block_trades - 1)
            part = slice(first_id - block.first_id, end - block.first_id + 1)
            ids = np.arange(first_id, end + 1, dtype=np.int64)
            parts.append(Columns(ids, block.time[part], block.price[part], block.size[part], block.maker[part]))
            first_id = end + 1
        if not parts:
            none = np.empty(0, np.int64)
            return Columns(none, none, none, none, none.astype(np.bool_))
        if len(parts) > 1:
            parts = [
                Columns(
                    np.concatenate([part.id for part in parts]),
                    np.concatenate([part.time for part in parts]),
                    np.concatenate([part.price for part in parts]),
                    np.concatenate([part.size for part in parts]),
                    np.concatenate([part.maker for part in parts]),
                )
            ]
        found = parts[0]
        return found.select(~np.isin(found.id, list(self.voids))) if self.voids else found

    def last_trade(self, now: int) -> SimTrade | None:
        """The last real trade before the millisecond ``now``; None if there is none."""
        id = self.last_id(now)
        while id in self.voids:
            id -= 1
        return self.trades(id, id)[0] if id >= 1 else None

    def last_price(self, now: int) -> tuple[int, bool]:
        """Price mantissa of the last real trade before ``now``, and whether its buyer was the maker.

        Before the first trade it is that trade's: a book opens where trading will.
        """
        id = self.last_id(now)
        while id in self.voids:
            id -= 1
        block = self.block((max(id, 1) - 1) // self.block_trades)
        at = max(id, 1) - block.first_id
        return int(block.price[at]), bool(block.maker[at])

    def trade_of_agg(self, agg_id: int) -> int:
        """Id of the first trade of aggregate ``agg_id``."""
        per_block = self._units * len(_FILLS)
        block = self.block((agg_id - 1) // per_block)
        return block.first_id + int(np.searchsorted(block.order, agg_id - block.first_order, side="left"))

    def block(self, number: int) -> Block:
        """Block ``number`` (0 begins at ``origin``)."""
        if (kept := self._cache.get(number)) is not None:
            self._cache.move_to_end(number)
            return kept
        block = self._cache[number] = self._make(number)
        if len(self._cache) > _KEPT_BLOCKS:
            self._cache.popitem(last=False)
        return block

    def _rows(self, block: Block, start: int, end: int) -> list[SimTrade]:
        scales = self.listing.price_scale, self.listing.size_scale
        order = block.order[start:end]
        firsts = (np.searchsorted(block.order, order, side="left") + block.first_id).tolist()
        lasts = (np.searchsorted(block.order, order, side="right") + block.first_id - 1).tolist()
        columns = zip(
            range(block.first_id + start, block.first_id + end),
            block.price[start:end].tolist(),
            block.size[start:end].tolist(),
            block.time[start:end].tolist(),
            block.maker[start:end].tolist(),
            (order + block.first_order).tolist(),
            firsts,
            lasts,
            strict=True,
        )
        price_text, size_text = (_formatter(scale) for scale in scales)
        return [
            SimTrade(id, price_text(price), size_text(size), time, maker, agg, first, last)
            for id, price, size, time, maker, agg, first, last in columns
        ]

    def _make(self, number: int) -> Block:
        rng = np.random.default_rng([*self._key, number])
        orders = self._units * len(_FILLS)
        fills = rng.permutation(np.tile(np.array(_FILLS), self._units))
        time = np.sort(rng.integers(0, self._length, orders)) + self.origin + number * self._length
        # A quarter of the orders share the millisecond of the one before, as in real recordings.
        shared = np.flatnonzero(rng.random(orders) < 0.25)
        time[shared] = time[np.maximum(shared - 1, 0)]
        time = np.maximum.accumulate(time)
        maker = rng.random(orders) < 0.5
        tick = 10.0**-self.listing.price_scale
        mid = self.listing.price * np.exp(self._walk(time))
        spread = np.where(maker, -1, 1) * rng.integers(0, 4, orders)
        price = np.maximum(np.rint(mid / tick).astype(np.int64) + spread, 1)
        order = np.repeat(np.arange(orders), fills)
        unit = self.listing.size * 10.0**self.listing.size_scale
        size = np.rint(unit * np.exp(rng.normal(-0.7, 1.2, len(order)))).astype(np.int64)
        return Block(
            first_id=number * self.block_trades + 1,
            time=time[order],
            price=price[order],
            size=np.maximum(size, 1),
            maker=maker[order],
            order=order.astype(np.int64),
            first_order=number * orders + 1,
        )

    def _walk(self, time: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Log price at ``time`` (UTC ms, ascending): smooth noise of many periods, each sized like a random walk's."""
        total = np.zeros(len(time))
        first, last = int(time[0]), int(time[-1])
        # Few distinct cells hold many trades: all octaves' cells are drawn once, in one go.
        cells = [np.arange(first // period, last // period + 2) for period in _PERIODS]
        noise = self._noise(cells)
        for period, drawn, own in zip(_PERIODS, noise, cells, strict=True):
            cell, phase = np.divmod(time, period)
            cell -= own[0]
            weight = phase / period
            weight = weight * weight * (3.0 - 2.0 * weight)
            left, right = drawn[cell], drawn[cell + 1]
            total += _VOLATILITY * np.sqrt(period / 1000) * (left + (right - left) * weight)
        return total

    def _noise(self, cells: list[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.float64]]:
        """An even draw from [-1, 1) per cell of each octave: the finaliser of a 64-bit mixing hash."""
        salts = [(self.salt + octave) & (2**64 - 1) for octave in range(len(cells))]
        sizes = [len(each) for each in cells]
        bits = np.concatenate(cells).astype(np.uint64) * np.uint64(0xA0761D6478BD642F)
        bits += np.repeat(np.array(salts, np.uint64), sizes)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        bits ^= bits >> np.uint64(31)
        drawn = (bits >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
        return np.split(drawn, np.cumsum(sizes)[:-1])


def _formatter(scale: int) -> Callable[[int], str]:
    """``format_mantissa`` padded to ``scale``, for many positive numbers."""
    if not scale:
        return str
    unit: int = 10**scale
    return lambda mantissa: f"{mantissa // unit}.{mantissa % unit:0{scale}d}"


def _zero(text: str) -> str:
    whole, point, fraction = text.partition(".")
    return "0" + point + "0" * len(fraction)
