"""The durable lane out of the engine: what a commit has made public, heads, and what tapes lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

from tapewick import metrics
from tapewick.clock import Clock
from tapewick.engine.tape import Engine, Tape
from tapewick.model import CandleBatch, Head, Health, Instrument, TapeCommit, Wanted
from tapewick.protocols import Bus

__all__ = ["Announcer"]

WANTED_EVERY = 60  # seconds between two announcements of what is missing, while something is
STATES = ("open", "repairing", "unrepairable")


class Announcer:
    """Speaks on ``bus`` for the tapes of ``engine``. ``trouble``: why the store does not do its work; None: it does."""

    def __init__(
        self, bus: Bus, engine: Engine, clock: Clock, *, trouble: Callable[[], str | None] = lambda: None
    ) -> None:
        self._bus, self._engine, self._clock = bus, engine, clock
        self._trouble, self._away = trouble, False
        self._heads: dict[str, Head] = {}
        self._counted: Counter[str] = Counter()

    def opened(self, ids: Iterable[str]) -> None:
        """These tapes are ours from now on: where they stand, and what they lack."""
        for id in ids:
            tape = self._engine.tapes[id]
            self._heads[id] = tape.head
            if tape.open_gaps:
                self.want(tape)

    def dropped(self, ids: Iterable[str]) -> None:
        """These tapes are ours no more: whoever has them speaks of them."""
        for id in ids:
            self._heads.pop(id, None)
            for state in STATES:
                with suppress(KeyError):
                    metrics.gaps_open.remove(id, state)

    def instrument(self, instrument: Instrument) -> None:
        """It was entered, or has changed."""
        self._bus.offer("instruments", instrument)

    def publish(self, commit: TapeCommit) -> None:
        """Announce a commit that is in the store, and by that make its positions public."""
        for batch in commit.trades:
            metrics.trades.inc(len(batch))
            self._bus.offer("tape", batch)
        if len(commit.rows):
            rows = CandleBatch(
                instrument=commit.instrument,
                rows=commit.rows,
                price_scale=commit.head.price_scale,
                size_scale=commit.head.size_scale,
                epoch=commit.head.epoch,
                pos=commit.head.pos,
            )
            self._bus.offer("candles", rows)
        tape = self._engine.tapes.get(commit.instrument)
        if tape is None or tape.owner != commit.owner:  # given up while the commit was under way
            self._bus.offer("head", commit.head)
            return
        tape.committed = commit.head
        if commit.gaps:
            self.want(tape)
        self._heads[commit.instrument] = commit.head

    def want(self, tape: Tape) -> None:
        """Announce what is missing; no range at all ends earlier wishes."""
        id, states = tape.instrument.id, tape.gaps.states
        for state in STATES:
            metrics.gaps_open.labels(id, state).set(states[state])
        self._bus.offer("wanted", tape.wanted() or Wanted(instrument=id, ranges=()))

    def count(self) -> None:
        """Bring the metrics up to date: once per commit, never per trade."""
        rejects = self._engine.rejects
        for reason, count in (rejects - self._counted).items():
            if reason == "duplicate":
                metrics.duplicates.inc(count)
            else:
                metrics.quarantined.labels(reason).inc(count)
        self._counted = rejects.copy()

    def want_all(self) -> None:
        """Announce what every tape lacks."""
        for tape in self._engine.tapes.values():
            if tape.open_gaps:
                self.want(tape)

    async def keep_wanting(self) -> None:
        while True:
            self.want_all()
            await self._clock.sleep(WANTED_EVERY)

    async def keep_telling(self) -> None:
        while True:
            self.tell_heads()
            self._tell_store()
            await self._clock.sleep(1)

    def _tell_store(self) -> None:
        """Let clients know that the store is away, and that it is back; the cause is for readiness and the log."""
        away = self._trouble() is not None
        if away == self._away:
            return
        self._away = away
        detail = "the store takes nothing in now: what is new is provisional until it does" if away else ""
        news = Health(source="store", state="stale" if away else "connected", ts=self._clock.now(), detail=detail)
        self._bus.offer("health", news)

    def tell_heads(self) -> None:
        """Announce the heads that moved since the last time."""
        for head in self._heads.values():
            self._bus.offer("head", head)
        self._heads.clear()
