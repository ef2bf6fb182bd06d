"""Levels of an order book: as columns, as JSON, and as the difference between two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tapewick.decimals import format_mantissa
from tapewick.model import I64

__all__ = ["EMPTY", "Levels", "changes", "decimal_texts", "side_json"]


class Levels(NamedTuple):
    """Both sides, best level first; mantissas. In a difference size 0 removes a level."""

    bid_price: I64
    bid_size: I64
    ask_price: I64
    ask_size: I64

    def __bool__(self) -> bool:
        return bool(len(self.bid_price) or len(self.ask_price))

    def top(self, n: int) -> Levels:
        """At most ``n`` levels a side."""
        return Levels(self.bid_price[:n], self.bid_size[:n], self.ask_price[:n], self.ask_size[:n])


_NONE = np.empty(0, np.int64)
EMPTY = Levels(_NONE, _NONE, _NONE, _NONE)


def changes(old: Levels, new: Levels) -> Levels:
    """What turns ``old`` into ``new``: new and changed levels, and size 0 for those that are gone."""
    return Levels(
        *_side(old.bid_price, old.bid_size, new.bid_price, new.bid_size),
        *_side(old.ask_price, old.ask_size, new.ask_price, new.ask_size),
    )


def _side(old_price: I64, old_size: I64, new_price: I64, new_size: I64) -> tuple[I64, I64]:
    if np.array_equal(old_price, new_price):  # most updates only move sizes
        moved = old_size != new_size
        return new_price[moved], new_size[moved]
    before = dict(zip(old_price.tolist(), old_size.tolist(), strict=True))
    after = dict(zip(new_price.tolist(), new_size.tolist(), strict=True))
    changed = {price: size for price, size in after.items() if before.get(price) != size}
    changed.update((price, 0) for price in before if price not in after)
    return np.fromiter(changed.keys(), np.int64, len(changed)), np.fromiter(changed.values(), np.int64, len(changed))


def decimal_texts(mantissas: list[int], scale: int) -> list[str]:
    """``format_mantissa`` of each, a few times faster for the thousands a deep book has."""
    if scale <= 0 or min(mantissas, default=0) < 0:
        return [format_mantissa(mantissa, scale) for mantissa in mantissas]
    unit, texts = 10**scale, []
    for mantissa in mantissas:
        whole, part = divmod(mantissa, unit)
        texts.append(f"{whole}.{part:0{scale}d}".rstrip("0") if part else str(whole))
    return texts


def side_json(price: I64, size: I64, price_scale: int, size_scale: int) -> bytes:
    """One side as ``[["price","size"],…]``."""
    prices, sizes = decimal_texts(price.tolist(), price_scale), decimal_texts(size.tolist(), size_scale)
    return ("[" + ",".join(f'["{p}","{q}"]' for p, q in zip(prices, sizes, strict=True)) + "]").encode()
