"""What is known of streams, gaps and books right now, and who wants to hear when it changes.

Streams are known from sources' ``Health``, books from ``Books``, gaps from the store: it is read when
something may have changed, and only for instruments somebody listens to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeAlias

import msgspec

from tapewick import metrics
from tapewick.books import BookView
from tapewick.model import BookUpdate, Gap, Health, Quote

__all__ = ["Condition", "ConditionListener", "Conditions", "concerns"]

Condition: TypeAlias = dict[str, object]
"""One row of channel ``health``: ``kind`` stream_health, gap_opened, gap_closed or book_state; times in ms."""

MS = 1_000_000
SILENT = 35  # checks, one a second, after which a collector that says its last word every 10 s is taken for gone
BEST = ("connected", "stale", "disconnected", "refused")
GONE = "no collector has spoken of it for a while"
Key: TypeAlias = tuple[int, int]  # of a gap: left and right id


class ConditionListener(Protocol):
    """Who is told; called in the event loop, must not wait. ``instrument`` "": all it wants to hear of."""

    instrument: str

    def changed(self, row: Condition) -> None: ...


def concerns(health: Health, id: str) -> bool:
    """Whether a source's word is about instrument ``id``: by name, or as one of its venue's sources."""
    if health.instrument:
        return health.instrument == id
    return health.source.rpartition(":")[2] == id.partition(":")[0]


class Conditions:
    """Current states and their listeners. It listens to all books (``BookListener``)."""

    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], Health] = {}
        self._words: dict[tuple[str, str], dict[str, tuple[Health, int]]] = {}  # by collector, and when it spoke
        self._checks = 0
        self._books: dict[str, tuple[BookView, tuple[str, str, str]]] = {}  # with what was told of it
        self._gaps: dict[str, dict[Key, Gap]] = {}  # open ones of instruments somebody listens to
        self._listeners: set[ConditionListener] = set()
        self._doubtful: set[str] = set()
        self._doubt = asyncio.Event()

    # -- what changes --------------------------------------------------------------------------

    def health(self, health: Health) -> None:
        """A source's word about its connection, or one stream of it. Of several collectors the best off counts:
        the others are not missed."""
        key = health.source, health.instrument
        words = self._words.setdefault(key, {})
        words[health.collector] = health, self._checks
        self._settle(_best(words))

    def check(self, now: int) -> None:
        """Once a second: what was said by collectors that have fallen silent no longer counts. ``now`` in ns."""
        self._checks += 1
        for key, words in list(self._words.items()):
            silent = [name for name, (_, at) in words.items() if name and at + SILENT < self._checks]
            for name in silent:
                del words[name]
            if silent and words:
                self._settle(_best(words))
            elif silent and key[1]:  # one stream of a source that is told of as a whole
                del self._words[key], self.streams[key]
            elif silent and (last := self.streams[key]).state != "disconnected":
                self._settle(msgspec.structs.replace(last, state="disconnected", ts=now, detail=GONE))

    def _settle(self, health: Health) -> None:
        """What now holds of a source or stream, told if it is news."""
        key = health.source, health.instrument
        before, self.streams[key] = self.streams.get(key), health
        if not health.instrument:
            for state in BEST:
                metrics.source_state.labels(health.source, state).set(int(state == health.state))
        if before is None or (before.state, before.detail) != (health.state, health.detail):
            self._tell(self._row(health), health)
            for other in self.streams.values() if not health.instrument else ():
                if other.source == health.source and other.instrument and other.state == "connected":
                    self._tell(self._row(other), other)

    def _row(self, health: Health) -> Condition:
        """A stream's row; no stream flows while its whole source is down."""
        whole = self.streams.get((health.source, "")) if health.instrument else None
        if whole is not None and whole.state != "connected" and health.state == "connected":
            health = msgspec.structs.replace(whole, instrument=health.instrument, ts=max(whole.ts, health.ts))
        return _stream(health)

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        known, told = self._books.get(view.instrument), (view.state, view.run, view.detail)
        if known is None or known[1] != told:
            self._books[view.instrument] = view, told
            self._tell(_book(view), view.instrument)

    def quoted(self, quote: Quote) -> None:
        """Not a condition."""

    def gaps(self, id: str, gaps: Iterable[Gap]) -> None:
        """All gaps of an instrument as the store has them."""
        now = {(gap.left_id, gap.right_id): gap for gap in gaps}
        before = self._gaps.get(id, {})
        opened = {key: gap for key, gap in now.items() if gap.state != "closed"}
        self._gaps[id] = opened
        for key, gap in before.items():
            if key not in opened:
                self._tell(_gap("gap_closed", now.get(key, gap)), id)
        for key, gap in opened.items():
            if key not in before:
                self._tell(_gap("gap_opened", gap), id)

    def hint(self, id: str) -> None:
        """The gaps of ``id`` may have changed."""
        if self.follows(id):
            self._doubtful.add(id)
            self._doubt.set()

    def moved(self, id: str) -> None:
        """The tape of ``id`` has grown: its open gaps may have closed."""
        if self._gaps.get(id):
            self.hint(id)

    async def doubtful(self) -> set[str]:
        """Wait for instruments whose gaps may have changed; each is named once per hint."""
        await self._doubt.wait()
        self._doubt.clear()
        ids, self._doubtful = self._doubtful, set()
        return ids

    # -- who listens ---------------------------------------------------------------------------

    def follows(self, id: str) -> bool:
        """Whether somebody wants to hear of the gaps of ``id``, which may be newer than those who listen to all."""
        return id in self._gaps or any(one.instrument in ("", id) for one in self._listeners)

    def unknown(self, ids: Iterable[str]) -> list[str]:
        """Those whose gaps have to be read before ``rows`` can tell them."""
        return [id for id in ids if id not in self._gaps]

    def listen(self, listener: ConditionListener) -> None:
        self._listeners.add(listener)

    def leave(self, listener: ConditionListener) -> None:
        """Tell it nothing more; gaps nobody asks for are followed no longer."""
        self._listeners.discard(listener)
        wanted = {one.instrument for one in self._listeners}
        if "" not in wanted:
            self._gaps = {id: gaps for id, gaps in self._gaps.items() if id in wanted}

    def rows(self, id: str) -> list[Condition]:
        """The current states of one instrument, or with "" of all."""
        streams = [self._row(one) for one in self.streams.values() if not id or concerns(one, id)]
        books = [_book(view) for view, _ in self._books.values() if id in ("", view.instrument)]
        listed = [self._gaps.get(id, {})] if id else self._gaps.values()
        gaps = [_gap("gap_opened", gap) for one in listed for gap in one.values()]
        return streams + books + gaps

    def _tell(self, row: Condition, about: Health | str) -> None:
        for listener in tuple(self._listeners):
            own = listener.instrument
            if not own or (concerns(about, own) if isinstance(about, Health) else about == own):
                listener.changed(row)


def _best(words: Mapping[str, tuple[Health, int]]) -> Health:
    """The word of the collector that is best off, of equal ones the newest."""
    return min((word for word, _ in words.values()), key=lambda word: (BEST.index(word.state), -word.ts))


def _stream(health: Health) -> Condition:
    return {
        "kind": "stream_health",
        "source": health.source,
        "instrument": health.instrument or None,
        "state": health.state,
        "detail": health.detail,
        "ts": health.ts // MS,
    }


def _book(view: BookView) -> Condition:
    return {
        "kind": "book_state",
        "instrument": view.instrument,
        "state": view.state,
        "detail": view.detail,
        "source_run": view.run,
        "seq": view.seq,
        "last_update_id": view.last_id,
        "ts_event": view.ts_event // MS or None,
    }


def _gap(kind: str, gap: Gap) -> Condition:
    return {
        "kind": kind,
        "instrument": gap.instrument,
        "left_id": gap.left_id,
        "right_id": gap.right_id,
        "left_ts": gap.times_ms[0],
        "right_ts": gap.times_ms[1],
        "state": gap.state,
        "reason": gap.reason,
        "attempts": gap.attempts,
    }
