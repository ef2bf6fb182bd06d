"""Readers that compare what they are shown with the venue's truth, at every moment they are shown anything."""

from __future__ import annotations

from collections import Counter

from tapewick.books import BookView
from tapewick.conditions import Condition
from tapewick.model import BookUpdate, Quote
from tests.fault.rig import Rig

__all__ = ["BookWitness", "HealthWitness"]

EVERY_QUOTE = 10  # one in so many is compared: the venue computes a whole book for each


class BookWitness:
    """A ``BookListener`` on one book. ``states`` in order; ``wrong``: what a live book had that the venue's had not."""

    def __init__(self, rig: Rig, symbol: str) -> None:
        self._rig, self.symbol, self.id = rig, symbol, f"sim:{symbol}"
        self.compared = self.quotes = 0
        self.states: list[str] = []
        self.runs: list[str] = []
        self.wrong: list[str] = []
        self.heard = 0
        rig.market.listen_book(self.id, self)

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        if not self.states or self.states[-1] != view.state:
            self.states.append(view.state)
        if not view.live:
            return
        if not self.runs or self.runs[-1] != view.run:
            self.runs.append(view.run)
        self.heard = self._rig.venue.clock.now()
        self.compared += 1
        id, truth = self._rig.venue.book(self.symbol, view.last_id)
        bid_price, bid_size, ask_price, ask_size = (column.tolist() for column in view.levels())
        told = f"{self.symbol} run {view.run} seq {view.seq} update {view.last_id}"
        if id != view.last_id:
            self.wrong.append(f"{told}: the venue's update is {id}")
        if bid_price and ask_price and bid_price[0] >= ask_price[0]:
            self.wrong.append(f"{told}: crossed")
        bids, asks = list(zip(bid_price, bid_size, strict=True)), list(zip(ask_price, ask_size, strict=True))
        if bids != list(truth.bids.items()) or asks != list(truth.asks.items()):
            differing = sorted(set(bids) ^ set(truth.bids.items())) + sorted(set(asks) ^ set(truth.asks.items()))
            self.wrong.append(f"{told}: levels differ: {differing[:6]}")

    def quoted(self, quote: Quote) -> None:
        self.quotes += 1
        if self.quotes % EVERY_QUOTE:
            return
        _, truth = self._rig.venue.book(self.symbol, quote.update_id)
        best = next(iter(truth.bids.items())), next(iter(truth.asks.items()))
        if best != ((quote.bid, quote.bid_size), (quote.ask, quote.ask_size)):
            self.wrong.append(f"{self.symbol} quote {quote}: the venue's were {best}")


class HealthWitness:
    """A ``ConditionListener`` on everything: which states were shown, by kind."""

    instrument = ""

    def __init__(self) -> None:
        self.rows: list[Condition] = []
        self.seen: Counter[tuple[str, str]] = Counter()

    def changed(self, row: Condition) -> None:
        self.rows.append(row)
        self.seen[str(row["kind"]), str(row["state"])] += 1
