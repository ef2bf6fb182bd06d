"""Order books as readers see them: per instrument one book, following one collector's run at a time.

Redundant collectors publish the same book under different runs. A reader that mixed them would
hold a book that never was, so only the followed run's updates are applied, along the chain of
``prev_seq``. A break of the chain, a loss on the bus, or silence makes the book ``stale``; it keeps the levels
of its ``last_id`` and says so, until a full snapshot makes it ``live`` again. Nothing is buffered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tapewick.engine.book import L2
from tapewick.ladder import EMPTY, Levels
from tapewick.model import NO_TIME, BookState, BookUpdate, Quote
from tapewick.timeframe import SECOND

__all__ = ["SILENT", "BookListener", "BookView", "Books"]

SILENT = 10 * SECOND  # collectors publish a full snapshot every 5 s: without a word for twice that, one is gone
HOLD = 30 * SECOND  # how long a run that lags behind what was served is not followed
ALL = 0  # levels


class BookView:
    """The current book of one instrument: a live view, to be read within one turn of the loop.

    ``state`` and ``detail`` (why it is not live) come first: levels of a book that is not live are
    those of ``last_id``, and old. ``run`` and ``seq`` name the update last applied, ``first_id`` / ``last_id``
    the venue's ids of it; times are ns, 0 where the venue gives none.
    """

    def __init__(self, instrument: str) -> None:
        self.instrument = instrument
        self.state: BookState = "syncing"
        self.detail = "no order book has been collected yet"
        self.run = self.source = ""
        self.seq = self.first_id = self.last_id = self.ts_event = self.ts_recv = 0
        self.price_scale = self.size_scale = 0
        self.heard = self.turned = NO_TIME  # when the followed run last spoke; when the state last changed
        self.floor = 0  # a snapshot older than this seq proves nothing
        self._levels: L2 | None = None

    @property
    def live(self) -> bool:
        return self.state == "live"

    @property
    def time(self) -> int:
        """When the book stood so, ns: the venue's time, else when it was received."""
        return self.ts_event or self.ts_recv

    def levels(self, n: int = ALL) -> Levels:
        """The best ``n`` levels of each side (0: all)."""
        return EMPTY if self._levels is None else Levels(*self._levels.levels(n))

    @property
    def bbo(self) -> Quote | None:
        """Best bid and ask of a live book that has both."""
        best = self._levels.best() if self.live and self._levels is not None else None
        if best is None:
            return None
        bid, bid_size, ask, ask_size = best
        return Quote(
            instrument=self.instrument,
            update_id=self.last_id,
            bid=bid,
            bid_size=bid_size,
            ask=ask,
            ask_size=ask_size,
            ts_event=self.ts_event,
            ts_recv=self.ts_recv,
            price_scale=self.price_scale,
            size_scale=self.size_scale,
            source=self.source,
        )

    def update(self) -> BookUpdate:
        """The whole book as a snapshot; of a book that is not live its state alone."""
        shown = self.levels() if self.live else EMPTY
        return BookUpdate(
            instrument=self.instrument,
            run=self.run,
            prev_seq=self.seq,
            seq=self.seq,
            state=self.state,
            snapshot=self.live,
            first_id=self.first_id,
            last_id=self.last_id,
            ts_event=self.ts_event,
            ts_recv=self.ts_recv,
            **shown._asdict(),
            price_scale=self.price_scale,
            size_scale=self.size_scale,
            source=self.source,
            detail=self.detail,
        )

    def begin(self, update: BookUpdate) -> bool:
        """Start from a full snapshot; False, and nothing changed, if it cannot be one."""
        levels = L2()
        if not _applied(levels, update):
            return False
        self._levels = levels
        self._stand(update)
        return True

    def follow(self, update: BookUpdate) -> bool:
        """Apply the next step of the chain; False if ``update`` is not that, or makes no book."""
        scales = (update.price_scale, update.size_scale) == (self.price_scale, self.size_scale)
        if self._levels is None or update.prev_seq != self.seq or not scales:
            return False
        if not _applied(self._levels, update):
            self._levels = None  # it may have changed: those of ``last_id`` are gone
            return False
        self._stand(update)
        return True

    def _stand(self, update: BookUpdate) -> None:
        self.state, self.detail = "live", ""
        self.run, self.source, self.seq = update.run, update.source, update.seq
        self.first_id, self.last_id = update.first_id, update.last_id
        self.ts_event, self.ts_recv = update.ts_event, update.ts_recv
        self.price_scale, self.size_scale = update.price_scale, update.size_scale


def _applied(levels: L2, update: BookUpdate) -> bool:
    """Whether ``levels`` took ``update`` and are a book: best bid below best ask."""
    try:
        taken = levels.apply(update)
    except ValueError:  # columns that do not fit each other
        return False
    best = levels.best()
    return taken and (best is None or best[0] < best[2])


class BookListener(Protocol):
    """Who is told of changes; called in the event loop, must not wait."""

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        """The book took ``update``, or (None) is not live any more or for another reason."""
        ...

    def quoted(self, quote: Quote) -> None:
        """The venue announced another best bid and ask."""
        ...


class Books:
    """The books and quotes of all instruments; ``now`` is the reader's clock in ns."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.views: dict[str, BookView] = {}
        self._quotes: dict[str, tuple[Quote, int]] = {}  # with the time of arrival
        self._listeners: dict[str, set[BookListener]] = {}

    # -- reading -------------------------------------------------------------------------------

    def view(self, id: str) -> BookView:
        """The book of ``id``, its silence noticed; one that says so if none was collected."""
        view = self.views.get(id)
        if view is None:
            return BookView(id)
        self._notice_silence(view)
        return view

    def quote(self, id: str) -> Quote | None:
        """Best bid and ask: the venue's word, or the live book's where that is newer; None if neither is known."""
        told = self._quotes.get(id)
        own = self.view(id).bbo
        if told is None or (own is not None and own.update_id > told[0].update_id):
            return own
        return told[0]

    def listen(self, id: str, listener: BookListener) -> None:
        """Tell ``listener`` of the book of ``id``; of all with id ""."""
        self._listeners.setdefault(id, set()).add(listener)

    def leave(self, id: str, listener: BookListener) -> None:
        group = self._listeners.get(id, set())
        group.discard(listener)
        if not group:
            self._listeners.pop(id, None)

    # -- what the bus brings -------------------------------------------------------------------

    def take(self, update: BookUpdate) -> None:
        """An update of any run."""
        view = self.views.get(update.instrument)
        if view is None:
            view = self.views[update.instrument] = BookView(update.instrument)
        self._notice_silence(view)
        now = self._now()
        if update.run != view.run:
            if self._may_lead(view, update, now) and view.begin(update):
                view.heard = view.turned = now
                view.floor = 0
                self._tell(view, update)
            return
        view.heard = now
        if update.state != "live":
            view.floor = max(view.floor, update.seq)
            self._stop(view, update.state, update.detail or "its collector says so")
        elif update.snapshot:
            self._on_snapshot(view, update, now)
        elif view.live and update.seq > view.seq:  # at least once: what was applied may come again
            if view.follow(update):
                self._tell(view, update)
            else:
                self._stop(view, "stale", f"what came after seq {view.seq} does not follow it")

    def take_quote(self, quote: Quote) -> None:
        """A best bid and ask; one older than what another collector told is dropped."""
        now = self._now()
        told = self._quotes.get(quote.instrument)
        if told is not None and 0 < quote.update_id <= told[0].update_id and now - told[1] <= SILENT:
            return
        self._quotes[quote.instrument] = quote, now
        for listener in self._told(quote.instrument):
            listener.quoted(quote)

    def lost(self) -> None:
        """The bus dropped messages, of which books nobody knows."""
        for view in self.views.values():
            if view.run:
                self._stop(view, "stale", "updates were lost on the way")

    def check(self) -> None:
        """Notice books whose collector went silent."""
        for view in self.views.values():
            self._notice_silence(view)

    # -- rules ---------------------------------------------------------------------------------

    def _may_lead(self, view: BookView, update: BookUpdate, now: int) -> bool:
        """Whether a run that is not followed may be from now on: only while there is no live book, and
        only with a full snapshot. For ``HOLD`` it must not lie behind what was served."""
        if not view.run and update.state != "live":  # nothing is followed: at least say what is known
            self._stop(view, update.state, update.detail)
        if view.live or not update.snapshot or update.state != "live":
            return False
        behind = update.last_id < view.last_id and update.ts_event <= view.ts_event
        return not (behind and now - view.turned <= HOLD)

    def _on_snapshot(self, view: BookView, update: BookUpdate, now: int) -> None:
        """The followed run's full book: news when the book is not live, or updates before it are missing."""
        known = update.seq <= view.seq if view.live else update.seq < max(view.seq, view.floor)
        if not known and view.begin(update):
            view.turned = now
            self._tell(view, update)

    def _notice_silence(self, view: BookView) -> None:
        quiet = self._now() - view.heard
        if view.live and quiet > SILENT:
            self._stop(view, "stale", f"its collector has been silent for over {SILENT // SECOND} s")

    def _stop(self, view: BookView, state: BookState, detail: str) -> None:
        if (view.state, view.detail) == (state, detail):
            return
        if view.live:
            view.turned = self._now()
        view.state, view.detail = state, detail
        self._tell(view, None)

    def _tell(self, view: BookView, update: BookUpdate | None) -> None:
        for listener in self._told(view.instrument):
            listener.book(view, update)

    def _told(self, id: str) -> tuple[BookListener, ...]:
        return (*self._listeners.get(id, ()), *self._listeners.get("", ()))
