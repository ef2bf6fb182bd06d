"""Trades whose ids are ``unique``, until the store has said which of them it has already.

A ledger of ranges cannot tell such trades apart: each has a name, and the names of all that were ever taken are kept
in the store. It is asked once per commit, for everything that has arrived since the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tapewick.model import I64, TradeBatch

__all__ = ["Doubts", "Settled"]


class Settled(NamedTuple):
    """A batch without what was known; ``latest`` as it came with it, ``repeated``: trades left out."""

    batch: TradeBatch
    latest: int
    repeated: int


class Doubts:
    """The batches of one tape that wait, and those the store is being asked about."""

    def __init__(self) -> None:
        self._waiting: list[tuple[TradeBatch, int]] = []
        self._asked: list[tuple[TradeBatch, int]] = []

    @property
    def nbytes(self) -> int:
        """Memory of what waits to be asked about."""
        return sum(batch.nbytes for batch, _ in self._waiting)

    def add(self, batch: TradeBatch, latest: int) -> None:
        """Keep a batch. ``latest``: the highest legal time of its trades."""
        self._waiting.append((batch, latest))

    def ask(self) -> I64 | None:
        """The names (n, 2) of all that waits, to be answered by ``settle``; None when nothing does."""
        self._asked, self._waiting = self._waiting, []
        return np.concatenate([batch.names for batch, _ in self._asked]) if self._asked else None

    def settle(self, known: npt.NDArray[np.bool_]) -> Iterator[Settled]:
        """What was asked about, each name once and none of those that the store has (``known``, shape (n,))."""
        asked, self._asked = self._asked, []
        seen: set[tuple[int, int]] = set()
        start = 0
        for batch, latest in asked:
            rows = []
            for row, name in enumerate(map(tuple, batch.names.tolist())):
                if not known[start + row] and name not in seen:
                    seen.add(name)
                    rows.append(row)
            start += len(batch)
            # A copy, also of all rows: the engine marks what it takes, and the batch belongs to who sent it.
            yield Settled(batch.select(np.array(rows, np.int64)), latest, len(batch) - len(rows))
