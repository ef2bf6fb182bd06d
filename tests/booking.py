"""Invented order books: a true book per update id, and runs of collectors that publish it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from tapewick.model import BookUpdate, Quote
from tests.gateways.rig import BTC, T0

Side = dict[int, int]


class Truth:
    """A book that changes once per update id; ``at[id]`` is the whole book after it."""

    def __init__(self, seed: int = 0, updates: int = 60, id: str = BTC) -> None:
        dice = random.Random(seed)
        self.id = id
        bids: Side = {10_000 - 10 * k: 1 + k for k in range(8)}
        asks: Side = {10_010 + 10 * k: 1 + k for k in range(8)}
        self.at: list[tuple[Side, Side]] = [(dict(bids), dict(asks))]
        self.steps: list[tuple[Side, Side]] = [({}, {})]
        for _ in range(updates):
            step: tuple[Side, Side] = ({}, {})
            for side, own, low, high in ((bids, step[0], 9_900, 10_000), (asks, step[1], 10_010, 10_110)):
                for _ in range(dice.randint(0, 3)):
                    price = dice.randrange(low, high + 1, 10)
                    own[price] = dice.choice([0, 0, dice.randint(1, 99)])
                    side[price] = own[price]
                    if not side[price]:
                        del side[price]
            self.steps.append(step)
            self.at.append((dict(bids), dict(asks)))

    def top(self, last_id: int, n: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The best ``n`` levels of each side after ``last_id``."""
        bids, asks = self.at[last_id]
        return sorted(bids.items(), reverse=True)[:n], sorted(asks.items())[:n]


class Run:
    """One collector's run over a truth, joined at update ``start``; its updates in order."""

    def __init__(self, truth: Truth, name: str, start: int = 0) -> None:
        self.truth, self.name, self.last_id, self.seq = truth, name, start, 1

    def step(self) -> BookUpdate:
        """The next change."""
        self.last_id += 1
        self.seq += 1
        bids, asks = self.truth.steps[self.last_id]
        return self._update(bids, asks, prev_seq=self.seq - 1)

    def whole(self) -> BookUpdate:
        """The book as it is."""
        bids, asks = (dict(side) for side in self.truth.top(self.last_id, 10_000))
        return self._update(bids, asks, prev_seq=self.seq, snapshot=True)

    def stale(self, detail: str = "frames are missing", state: str = "stale") -> BookUpdate:
        """The collector lost its own chain."""
        self.seq += 1
        return self._update({}, {}, prev_seq=self.seq - 1, state=state, detail=detail)

    def _update(self, bids: Side, asks: Side, **fields: Any) -> BookUpdate:
        columns = [np.array(list(part), np.int64) for side in (bids, asks) for part in (side.keys(), side.values())]
        names = ("bid_price", "bid_size", "ask_price", "ask_size")
        told = {
            "instrument": self.truth.id,
            "run": self.name,
            "seq": self.seq,
            "state": "live",
            "snapshot": False,
            "first_id": self.last_id,
            "last_id": self.last_id,
            "ts_event": T0 + self.last_id * 100_000_000,
            "ts_recv": T0 + self.last_id * 100_000_000 + 5_000_000,
            "price_scale": 2,
            "size_scale": 3,
            "source": "sim",
        }
        return BookUpdate(**{**told, **dict(zip(names, columns, strict=True)), **fields})


def quote(update_id: int, bid: int = 9_990, ask: int = 10_020, **fields: Any) -> Quote:
    told = {"instrument": BTC, "update_id": update_id, "bid": bid, "bid_size": 1, "ask": ask, "ask_size": 2}
    times = {"ts_event": 0, "ts_recv": T0 + update_id, "price_scale": 2, "size_scale": 3}
    return Quote(**{**told, **times, **fields})
