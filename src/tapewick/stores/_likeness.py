"""Whether trades that are sent again are what the tape has under their ids."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tapewick.model import TradeBatch

__all__ = ["Found", "unlike"]

Found = tuple[int, int, int, int]
"""Of a stored trade with an asked id and time: the asked one's place, and its own price, size and side."""


def unlike(batch: TradeBatch, found: Iterable[Found], scales: tuple[int, int], floor: int) -> npt.NDArray[np.bool_]:
    """Which trades of ``batch`` the tape has with other values, by what was ``found`` of the same ids and times.

    ``scales``: of stored prices and sizes; ``floor``: trades from before it were let go of, nothing is known of them.
    """
    other = batch.ts_event >= floor
    for place, price, size, side in found:
        same = _same(price, scales[0], int(batch.price[place]), batch.price_scale)
        same = same and _same(size, scales[1], int(batch.size[place]), batch.size_scale)
        if same and side == batch.side[place]:
            other[place] = False
    return other


def _same(stored: int, stored_scale: int, sent: int, sent_scale: int) -> bool:
    """Whether two decimals are equal, whatever their scales."""
    finest = max(stored_scale, sent_scale)
    return bool(stored * 10 ** (finest - stored_scale) == sent * 10 ** (finest - sent_scale))
