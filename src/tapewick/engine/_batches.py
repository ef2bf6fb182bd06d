"""Batches of a tape as they wait for their commit: brought to its scales, and joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tapewick.decimals import INT64_MAX
from tapewick.model import Instrument, TradeBatch

__all__ = ["SMALL", "fitting", "joined", "scaled"]

COLUMNS = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side", "seq")
SMALL = 4096  # trades up to which batches of one commit are joined


def fitting(batch: TradeBatch, price_factor: int, size_factor: int) -> npt.NDArray[np.bool_]:
    """Which records hold numbers that can be multiplied within 64 bits."""
    fits: npt.NDArray[np.bool_] = (np.abs(batch.price) <= INT64_MAX // price_factor) & (
        np.abs(batch.size) <= INT64_MAX // size_factor
    )
    return fits


def scaled(batch: TradeBatch, price_factor: int, size_factor: int, own: Instrument) -> TradeBatch:
    """The batch at the scales of ``own``, in columns of its own."""
    return replace(
        batch,
        price=batch.price * price_factor,
        size=batch.size * size_factor,
        price_scale=own.price_scale,
        size_scale=own.size_scale,
    )


def joined(batches: list[TradeBatch]) -> Iterator[TradeBatch]:
    """The numbered batches of one commit, small ones that follow one another joined.

    A socket's wake-ups bring a few trades each; whoever reads the tape pays per batch.
    """
    group: list[TradeBatch] = []
    size = 0
    for batch in batches:
        size += len(batch)
        if group and (size > SMALL or (batch.late, batch.source) != (group[0].late, group[0].source)):
            yield _join(group)
            group, size = [], len(batch)
        group.append(batch)
    if group:
        yield _join(group)


def _join(batches: list[TradeBatch]) -> TradeBatch:
    if len(batches) == 1:
        return batches[0]
    columns: dict[str, Any] = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in COLUMNS}
    return replace(batches[0], clock=batches[-1].clock, **columns)
