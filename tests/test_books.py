"""Which run a reader follows, when a book is stale, and that it never holds a book that never was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.books import SILENT, Books, BookView
from tapewick.model import BookUpdate, Quote
from tapewick.timeframe import SECOND
from tests.booking import Run, Truth, quote
from tests.gateways.rig import BTC, T0

TRUTH = Truth(seed=3, updates=200)
DELIVERY = st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]))  # which run, and what of it


class Reader:
    """Books on a clock moved by hand, and what a listener was told."""

    def __init__(self) -> None:
        self.now = T0
        self.books = Books(lambda: self.now)
        self.told: list[str] = []
        self.books.listen(BTC, self)

    @property
    def view(self) -> BookView:
        return self.books.view(BTC)

    @property
    def state(self) -> str:
        return self.view.state

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        assert self.books.view(BTC) is view, "who is told may look"
        assert view.live == (update is not None)
        self.told.append(view.state if update is None else "snapshot" if update.snapshot else "delta")

    def quoted(self, quote: Quote) -> None:
        self.told.append("quote")

    def take(self, *updates: BookUpdate) -> None:
        for update in updates:
            self.books.take(update)

    def served(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        levels = self.view.levels()
        sides = ((levels.bid_price, levels.bid_size), (levels.ask_price, levels.ask_size))
        bids, asks = (list(zip(price.tolist(), size.tolist(), strict=True)) for price, size in sides)
        return bids, asks


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_a_book_begins_with_a_snapshot_and_follows_its_chain(reader: Reader) -> None:
    run = Run(TRUTH, "a")
    assert reader.state == "syncing" and "collected" in reader.view.detail
    reader.take(run.step())
    assert reader.state == "syncing" and not reader.told, "a delta of a run nobody follows says nothing"
    reader.take(run.whole(), run.step(), run.step())
    assert reader.told == ["snapshot", "delta", "delta"]
    assert reader.view.live and reader.view.run == "a" and reader.view.last_id == 3
    assert reader.served() == TRUTH.top(3, 1000)
    top = reader.view.levels(2)
    assert list(zip(top.bid_price.tolist(), top.bid_size.tolist(), strict=True)) == TRUTH.top(3, 2)[0]


def test_a_duplicate_and_the_periodic_snapshot_are_no_news(reader: Reader) -> None:
    run = Run(TRUTH, "a")
    first, delta = run.whole(), run.step()
    reader.take(first, delta, delta, first, run.whole())
    assert reader.told == ["snapshot", "delta"] and reader.view.last_id == 1


def test_a_broken_chain_is_stale_until_the_next_snapshot(reader: Reader) -> None:
    run = Run(TRUTH, "a")
    reader.take(run.whole(), run.step())
    run.step()  # lost on the way
    reader.take(run.step(), run.step())
    assert reader.state == "stale" and "seq 2" in reader.view.detail
    assert reader.view.last_id == 1 and reader.served() == TRUTH.top(1, 1000), "the last true book, and said to be old"
    assert reader.view.bbo is None
    reader.take(run.whole(), run.step())
    assert reader.told == ["snapshot", "delta", "stale", "snapshot", "delta"]
    assert reader.served() == TRUTH.top(run.last_id, 1000)


def test_a_loss_on_the_bus_makes_every_book_stale(reader: Reader) -> None:
    run = Run(TRUTH, "a")
    reader.take(run.whole())
    reader.books.lost()
    assert reader.state == "stale" and "lost" in reader.view.detail
    reader.take(run.step())
    assert reader.state == "stale"
    reader.take(run.whole())
    assert reader.view.live and reader.served() == TRUTH.top(1, 1000)


def test_what_the_collector_says_is_shown_and_an_older_snapshot_does_not_undo_it(reader: Reader) -> None:
    run = Run(TRUTH, "a")
    reader.take(run.stale("waiting for a snapshot", "syncing"))
    assert reader.state == "syncing" and reader.view.detail == "waiting for a snapshot"
    old = run.whole()
    reader.take(old, run.stale("the best bid is not below the best ask"))
    assert reader.state == "stale" and "best bid" in reader.view.detail
    reader.take(old)
    assert reader.state == "stale"
    reader.take(run.whole())
    assert reader.view.live


def test_a_live_run_is_not_left_for_another(reader: Reader) -> None:
    a, b = Run(TRUTH, "a"), Run(TRUTH, "b", start=5)
    reader.take(a.whole(), b.whole(), b.step(), a.step())
    assert reader.view.run == "a" and reader.view.last_id == 1
    reader.now += SILENT
    reader.take(b.whole())
    assert reader.view.run == "a", "silent for ten seconds is not yet too long"
    reader.now += 1
    assert reader.state == "stale" and "silent" in reader.view.detail
    reader.take(b.step())
    assert reader.state == "stale", "another run begins with its snapshot"
    reader.take(b.whole())
    assert reader.view.live and reader.view.run == "b"
    reader.take(a.whole(), a.step())
    assert reader.view.run == "b" and reader.served() == TRUTH.top(b.last_id, 1000)


def test_a_stale_run_is_left_at_once(reader: Reader) -> None:
    a, b = Run(TRUTH, "a"), Run(TRUTH, "b")
    reader.take(a.whole(), a.stale(), b.whole())
    assert reader.view.run == "b" and reader.view.live


def test_a_run_that_lags_is_not_followed_for_a_while(reader: Reader) -> None:
    a, b = Run(TRUTH, "a", start=20), Run(TRUTH, "b", start=10)
    reader.take(a.whole(), a.stale(), b.whole())
    assert reader.state == "stale" and reader.view.last_id == 20, "the book does not go back in time"
    restarted = replace(b.whole(), ts_event=a.whole().ts_event + SECOND)
    reader.take(restarted)
    assert reader.view.live and reader.view.last_id == 10, "ids began anew: later, and yet lower"
    reader.take(replace(a.whole(), seq=99), replace(b.stale(), seq=99))
    reader.now += 31 * SECOND
    reader.take(Run(TRUTH, "c", start=4).whole())
    assert reader.view.run == "c", "better an older book than none"


def test_silence_is_noticed_without_a_message(reader: Reader) -> None:
    reader.take(Run(TRUTH, "a").whole())
    reader.now += SILENT + 1
    reader.books.check()
    assert reader.told == ["snapshot", "stale"]


def test_wider_scales_and_a_crossed_or_malformed_book_need_a_snapshot(reader: Reader) -> None:
    run = Run(TRUTH, "a")
    reader.take(run.whole())
    reader.take(replace(run.step(), price_scale=4))
    assert reader.state == "stale"
    reader.take(run.whole())
    step = run.step()
    reader.take(replace(step, bid_price=step.bid_price[:0] + 1, bid_size=run.whole().bid_size))
    assert reader.state == "stale"
    reader.take(run.whole())
    crossed = run.whole()
    reader.take(replace(run.step(), bid_price=crossed.ask_price[-1:], bid_size=crossed.ask_size[-1:]))
    assert reader.state == "stale" and not reader.view.levels(), "levels that were never a book are not kept"
    reader.take(replace(run.whole(), bid_price=crossed.ask_price, bid_size=crossed.ask_size))
    assert reader.state == "stale"
    reader.take(run.whole())
    assert reader.view.live


def test_the_newer_of_quote_and_book_is_told(reader: Reader) -> None:
    run = Run(TRUTH, "a", start=10)
    assert reader.books.quote(BTC) is None
    reader.books.take_quote(quote(9))
    assert reader.books.quote(BTC) == quote(9)
    reader.take(run.whole())
    own = reader.books.quote(BTC)
    (bid, bid_size), (ask, ask_size) = TRUTH.top(10, 1)[0][0], TRUTH.top(10, 1)[1][0]
    assert own is not None and own.update_id == 10
    assert (own.bid, own.bid_size, own.ask, own.ask_size) == (bid, bid_size, ask, ask_size)
    reader.books.take_quote(quote(11))
    reader.books.take_quote(quote(10, bid=1))
    assert reader.books.quote(BTC) == quote(11), "an older word of another collector is dropped"
    reader.take(run.stale())
    assert reader.books.quote(BTC) == quote(11)
    reader.now += SILENT + 1
    reader.books.take_quote(quote(2))
    assert reader.books.quote(BTC) == quote(2), "ids began anew"


@settings(max_examples=60)
@given(st.data())
def test_whatever_two_collectors_send_the_book_is_one_that_was(data: st.DataObject) -> None:
    """Any interleaving of two runs with losses, duplicates, silence and resyncs."""
    reader, truth = Reader(), TRUTH
    runs = [Run(truth, "a"), Run(truth, "b", start=data.draw(st.integers(0, 5)))]
    last, deliveries = 0, data.draw(st.lists(DELIVERY, min_size=30, max_size=120))
    previous: list[BookUpdate] = []
    for which, what in deliveries:
        run = runs[which]
        if what == 0:
            update = run.whole()
        elif what == 1:
            update = run.stale()
        elif run.last_id + 1 >= len(truth.at):
            continue
        else:
            update = run.step()
        if what == 2:  # lost
            continue
        if what == 3 and reader.now < T0 + 26 * SECOND:  # within HOLD
            reader.now += 4 * SECOND
        if what == 4:
            reader.books.lost()
        reader.take(update)
        if what == 5 and previous:  # at least once
            reader.take(data.draw(st.sampled_from(previous[-8:])))
        previous.append(update)
        view = reader.view
        if not view.run:
            continue
        assert reader.served() == truth.top(view.last_id, 1000)
        assert view.last_id >= last, "and it never goes back"
        last = view.last_id
        assert (view.bbo is not None) == (view.live and all(truth.at[view.last_id]))
    reader.take(runs[0].stale(), runs[1].stale())
    leader = max(runs, key=lambda run: run.last_id)
    reader.take(leader.whole())
    assert reader.view.live and reader.served() == truth.top(leader.last_id, 1000)
