"""The sync machine: the venue's procedure step by step, and every way it can break off."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tapewick.engine._depth import DepthGroup
from tapewick.engine.book import L2, BookSync, parse_snapshot
from tapewick.errors import BadPayload
from tapewick.model import BookUpdate

from .books import T, frame, group, sides, snapshot, sync, use

SECOND = 1_000_000_000
BIDS, ASKS = {100: 5, 99: 7}, {101: 6, 103: 1}


@pytest.fixture(params=["reference", "native"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use(request.param, monkeypatch)


def live(rule: str = "spot", **more: Any) -> BookSync:
    """A book at update id 105, sequence 2."""
    book = sync(rule, **more)
    book.depth(group(frame(104, 105, {90: 1}, prev=103)))
    if rule == "futures":
        book.depth(group(frame(105, 105, prev=105)))
    assert book.snapshot(snapshot(105, BIDS, ASKS), T)
    assert book.state == "live" and book.last_id == 105
    return book


def states(updates: list[BookUpdate]) -> list[tuple[str, bool]]:
    return [(update.state, update.snapshot) for update in updates]


class TestSpot:
    def test_procedure(self) -> None:
        book = sync()
        assert (book.state, book.wants_snapshot) == ("syncing", False)
        first = book.depth(group(frame(101, 103, {98: 1}), frame(104, 106, {100: 0, 95: 2}, {101: 9})))
        assert states(first) == [("syncing", False)] and first[0].detail
        assert book.wants_snapshot and book.best() is None and book.whole(T) is None
        updates = book.snapshot(snapshot(104, BIDS, ASKS), T + 7)
        assert states(updates) == [("live", True), ("live", False)]
        assert [(u.prev_seq, u.seq, u.first_id, u.last_id) for u in updates] == [(1, 2, 104, 104), (2, 3, 104, 106)]
        assert (updates[0].run, updates[0].source, updates[0].ts_recv) == ("run1", "test", T + 7)
        assert not book.wants_snapshot and book.last_id == 106
        assert book.best() == (99, 7, 101, 9)
        assert sides(book.levels()) == ([(99, 7), (95, 2)], [(101, 9), (103, 1)])
        assert book.counters == Counter(dropped=1, applied=1)
        (next,) = book.depth(group(frame(107, 107, {}, {101: 0})))
        assert (next.seq, next.first_id, next.ts_event, next.ask_size.tolist()) == (4, 107, T + 107, [0])
        assert book.best() == (99, 7, 103, 1)

    def test_gapless_start_right_behind_the_snapshot(self) -> None:
        book = sync()
        book.depth(group(frame(106, 107, {98: 1})))
        assert book.snapshot(snapshot(105, BIDS, ASKS), T)
        assert (book.state, book.last_id) == ("live", 107)

    def test_snapshot_older_than_the_buffer_is_fetched_again(self) -> None:
        book = sync()
        book.depth(group(frame(106, 107, {98: 1})))
        assert book.snapshot(snapshot(104, BIDS, ASKS), T) == []
        assert (book.state, book.wants_snapshot) == ("syncing", True)
        assert book.counters == Counter(old_snapshots=1)
        assert book.snapshot(snapshot(107, BIDS, ASKS), T)
        assert book.best() == (100, 5, 101, 6)

    def test_a_snapshot_before_any_frame_waits_for_one(self) -> None:
        book = sync()
        assert book.snapshot(snapshot(105, BIDS, ASKS), T) == []
        assert (book.state, book.wants_snapshot) == ("syncing", False)
        updates = book.depth(group(frame(105, 106, {100: 4})))
        assert states(updates) == [("syncing", False), ("live", True), ("live", False)]

    def test_an_early_snapshot_that_proves_too_old(self) -> None:
        book = sync()
        book.snapshot(snapshot(105, BIDS, ASKS), T)
        assert states(book.depth(group(frame(107, 107, {100: 4})))) == [("syncing", False)]
        assert book.wants_snapshot and book.counters["old_snapshots"] == 1

    def test_old_and_overlapping_frames(self) -> None:
        book = live()
        assert book.depth(group(frame(104, 105, {100: 999}))) == []
        assert len(book.depth(group(frame(103, 108, {100: 3})))) == 1
        assert (book.last_id, book.best()) == (108, (100, 3, 101, 6))
        assert book.counters["dropped"] == 2

    def test_a_lost_frame(self) -> None:
        book = live()
        updates = book.depth(group(frame(106, 106, {98: 1}), frame(108, 108, {97: 1}), frame(109, 109, {96: 1})))
        assert states(updates) == [("live", False), ("stale", False)]
        assert "jumped from 106 to 108" in updates[1].detail and len(updates[1].bid_price) == 0
        assert book.best() is None and book.whole(T) is None and book.wants_snapshot
        assert sides(book.levels()) == ([], [])
        assert book.depth(group(frame(110, 110, {95: 1}))) == []
        resynced = book.snapshot(snapshot(108, BIDS, ASKS), T)
        assert [(u.seq, u.first_id) for u in resynced] == [(5, 108), (6, 109), (7, 110)]
        assert sides(book.levels(3))[0] == [(100, 5), (99, 7), (96, 1)]
        assert (book.counters["breaks"], book.counters["resyncs"]) == (1, 1)

    def test_ids_that_begin_anew(self) -> None:
        book = live()
        assert book.depth(group(frame(1, 2, {98: 1}, ts=T + SECOND))) == []
        (update,) = book.depth(group(frame(3, 4, {98: 1}, ts=T + 7 * SECOND)))
        assert (update.state, book.wants_snapshot) == ("stale", True)
        assert "went back" in update.detail
        assert states(book.snapshot(snapshot(4, BIDS, ASKS), T)) == [("live", True)]

    def test_removing_an_unknown_level_is_normal(self) -> None:
        book = live()
        (update,) = book.depth(group(frame(106, 106, {50: 0}, {150: 0})))
        assert update.state == "live" and sides(book.levels()) == (list(BIDS.items()), list(ASKS.items()))

    @pytest.mark.parametrize("bid", [101, 102])
    def test_a_crossed_book_is_stale(self, bid: int) -> None:
        book = live()
        (update,) = book.depth(group(frame(106, 106, {bid: 1})))
        assert (update.state, book.counters["crossed"], book.wants_snapshot) == ("stale", 1, True)
        assert book.snapshot(snapshot(106, BIDS, ASKS), T)

    def test_a_crossed_snapshot_is_no_book(self) -> None:
        book = sync()
        book.depth(group(frame(105, 105)))
        assert book.snapshot(snapshot(105, {101: 1}, {101: 1}), T) == []
        assert book.wants_snapshot and book.counters["crossed"] == 1

    def test_a_live_book_ignores_snapshots(self) -> None:
        book = live()
        assert book.snapshot(snapshot(200, {1: 1}, {2: 1}), T) == []
        assert book.best() == (100, 5, 101, 6)

    def test_one_sided_book(self) -> None:
        book = sync()
        book.depth(group(frame(105, 105)))
        assert book.snapshot(snapshot(105, {100: 1}, {}), T)
        assert (book.state, book.best()) == ("live", None)


class TestFutures:
    def test_procedure(self) -> None:
        book = sync("futures")
        frames = frame(90, 100, {98: 1}, prev=80), frame(103, 106, {100: 4}, prev=100), frame(109, 112, prev=106)
        book.depth(group(*frames))
        updates = book.snapshot(snapshot(105, BIDS, ASKS, ts=T + 3), T)
        assert [(u.first_id, u.last_id) for u in updates] == [(105, 105), (103, 106), (109, 112)]
        assert updates[0].ts_event == T + 3
        assert book.best() == (100, 4, 101, 6) and book.counters == Counter(dropped=1, applied=2)

    def test_a_frame_that_ends_at_the_snapshot_is_kept(self) -> None:
        book = sync("futures")
        book.depth(group(frame(101, 105, {100: 4}, prev=100)))
        book.snapshot(snapshot(105, BIDS, ASKS), T)
        assert book.counters == Counter(applied=1) and book.best() == (100, 4, 101, 6)

    def test_snapshot_older_than_the_buffer(self) -> None:
        book = sync("futures")
        book.depth(group(frame(107, 110, prev=106)))
        assert book.snapshot(snapshot(105, BIDS, ASKS), T) == []
        assert book.wants_snapshot and book.counters == Counter(old_snapshots=1)

    @pytest.mark.parametrize("prev", [104, 106, -1])
    def test_broken_chain(self, prev: int) -> None:
        book = live("futures")
        assert states(book.depth(group(frame(106, 109, prev=prev)))) == [("stale", False)]
        assert book.counters["breaks"] == 1

    def test_a_frame_without_its_predecessor_never_starts_a_book(self) -> None:
        book = sync("futures")
        book.depth(group(frame(101, 109)))
        assert book.snapshot(snapshot(105, BIDS, ASKS), T) == []


class TestBuffer:
    def test_the_oldest_frames_go_when_it_is_full(self) -> None:
        groups = [group(frame(i, i, {50: i})) for i in range(100, 110)]
        book = sync(buffer_bytes=3 * groups[0].nbytes)
        for each in groups:
            book.depth(each)
        assert book.counters["overflow"] == 7 and book.wants_snapshot
        assert book.snapshot(snapshot(105, BIDS, ASKS), T) == []
        assert book.snapshot(snapshot(106, BIDS, ASKS), T)
        assert book.last_id == 109

    def test_frames_larger_than_the_buffer(self) -> None:
        book = sync(buffer_bytes=100)
        book.depth(group(frame(101, 101)))
        assert not book.wants_snapshot and book.counters["overflow"] == 1

    def test_a_gap_among_the_waiting_frames(self) -> None:
        book = sync()
        book.depth(group(frame(101, 102), frame(103, 104)))
        book.depth(group(frame(106, 106), frame(107, 107, {98: 3})))
        assert book.snapshot(snapshot(103, BIDS, ASKS), T) == []
        assert (book.state, book.wants_snapshot, book.counters["breaks"]) == ("syncing", True, 1)
        updates = book.snapshot(snapshot(106, BIDS, ASKS), T)
        assert [(u.first_id, u.last_id) for u in updates] == [(106, 106), (107, 107)]

    def test_a_lost_link(self) -> None:
        book = live()
        (update,) = book.lost("connection reset")
        assert (update.state, update.detail, book.wants_snapshot) == ("stale", "connection reset", False)
        assert book.lost("again") == [] and book.best() is None
        book.depth(group(frame(200, 201, {98: 1})))
        assert book.wants_snapshot
        assert book.snapshot(snapshot(105, BIDS, ASKS), T) == []
        assert states(book.snapshot(snapshot(200, BIDS, ASKS), T)) == [("live", True), ("live", False)]

    def test_lost_before_it_was_live(self) -> None:
        book = sync()
        assert states(book.lost("refused")) == [("stale", False)]
        book.depth(group(frame(105, 105)))
        assert states(book.snapshot(snapshot(105, BIDS, ASKS), T)) == [("live", True)]


class TestScales:
    def test_finer_frames_widen_a_live_book(self) -> None:
        book = live()
        updates = book.depth(group(frame(106, 106, {10001: 5}), price_scale=4, size_scale=3))
        assert [(u.snapshot, u.price_scale, u.size_scale) for u in updates] == [(True, 4, 3), (False, 4, 3)]
        assert updates[0].bid_price.tolist() == [10000, 9900] and updates[0].last_id == 105
        assert book.best() == (10001, 5, 10100, 6)

    def test_coarser_frames_are_brought_up(self) -> None:
        book = live()
        (update,) = book.depth(group(frame(106, 106, {9: 2}, {11: 1}), price_scale=1, size_scale=1))
        assert (update.bid_price.tolist(), update.bid_size.tolist(), update.price_scale) == ([90], [200], 2)

    def test_waiting_frames_and_snapshots_of_other_scales(self) -> None:
        book = sync()
        book.depth(group(frame(105, 106, {10: 4}), price_scale=1))
        book.snapshot(snapshot(105, {9000: 1}, {11000: 1}, scales=(3, 4)), T)
        assert (book.price_scale, book.size_scale) == (3, 4)
        assert sides(book.levels()) == ([(9000, 1), (1000, 40)], [(11000, 1)])

    def test_what_does_not_fit_64_bits_breaks_the_book(self) -> None:
        book = sync()
        book.depth(group(frame(105, 105)))
        book.snapshot(snapshot(105, {100: 2**62}, {101: 1}), T)
        (update,) = book.depth(group(frame(106, 106), size_scale=6))
        assert (update.state, book.counters["unfit"], book.wants_snapshot) == ("stale", 1, True)
        book = live()
        (update,) = book.depth(group(frame(106, 106, {90: 2**62}), size_scale=2))
        assert (update.state, book.counters["unfit"]) == ("stale", 1)


def test_whole_repeats_the_last_update() -> None:
    book = live()
    book.depth(group(frame(106, 106, {98: 1})))
    whole = book.whole(T + 9)
    assert whole is not None
    assert (whole.prev_seq, whole.seq, whole.snapshot, whole.state) == (book.seq - 1, book.seq, True, "live")
    assert (whole.first_id, whole.last_id, whole.ts_recv) == (106, 106, T + 9)
    assert sides((whole.bid_price, whole.bid_size, whole.ask_price, whole.ask_size)) == sides(book.levels())
    (next,) = book.depth(group(frame(107, 107)))
    assert next.prev_seq == whole.seq


def test_columns_that_do_not_fit_each_other_are_refused() -> None:
    good = group(frame(106, 106, {98: 1}))
    for name in ("bid_end", "ask_end"):
        wrong = {slot: getattr(good, slot) for slot in DepthGroup.__slots__} | {name: getattr(good, name) + 9}
        with pytest.raises(ValueError, match="do not fit"):
            live().depth(DepthGroup(**wrong))


class TestReader:
    def test_follows_a_run(self) -> None:
        book, reader = sync(), L2()
        assert reader.state == "syncing"
        updates = book.depth(group(frame(105, 105))) + book.snapshot(snapshot(105, BIDS, ASKS), T)
        updates += book.depth(group(frame(106, 106, {100: 0}, {102: 3})))
        assert all(reader.apply(update) for update in updates)
        assert (reader.run, reader.seq, reader.last_id, reader.state) == ("run1", 3, 106, "live")
        assert sides(reader.levels(0)) == sides(book.levels()) and reader.best() == (99, 7, 101, 6)
        assert all(reader.apply(update) for update in updates), "taken before: passed over"
        assert reader.seq == 3

    def test_joins_late_with_a_whole_book(self) -> None:
        book, reader = live(), L2()
        (missed,) = book.depth(group(frame(106, 106, {100: 0})))
        assert not reader.apply(missed) and reader.best() is None
        whole = book.whole(T)
        assert whole is not None and reader.apply(whole)
        (next,) = book.depth(group(frame(107, 107, {100: 9})))
        assert reader.apply(next) and sides(reader.levels()) == sides(book.levels())

    def test_a_missing_update_drops_the_levels(self) -> None:
        book, reader = live(), L2()
        whole = book.whole(T)
        assert whole is not None and reader.apply(whole)
        updates = book.depth(group(*(frame(i, i, {90: i}) for i in range(106, 110))))
        assert reader.apply(updates[0]) and not reader.apply(updates[2])
        assert (reader.state, sides(reader.levels())) == ("stale", ([], []))
        assert not reader.apply(updates[3]) and not reader.apply(updates[1])
        whole = book.whole(T)
        assert whole is not None and reader.apply(whole)
        assert (reader.state, reader.seq) == ("live", book.seq)

    def test_a_stale_book_has_no_levels(self) -> None:
        book, reader = live(), L2()
        whole = book.whole(T)
        assert whole is not None and reader.apply(whole)
        (lost,) = book.lost("gone")
        assert reader.apply(lost)
        assert (reader.state, reader.detail, sides(reader.levels())) == ("stale", "gone", ([], []))

    def test_one_run_at_a_time(self) -> None:
        mine, other, reader = live(), live(), L2()
        other.run = "run2"
        for each in (mine.whole(T), *mine.depth(group(frame(106, 106, {100: 1})))):
            assert each is not None and reader.apply(each)
        foreign = other.depth(group(frame(106, 106, {100: 2}))) + other.lost("gone")
        assert [reader.apply(update) for update in foreign] == [False, False]
        assert (reader.run, reader.state, reader.best()) == ("run1", "live", (100, 1, 101, 6))
        other = live()
        other.run = "run2"
        whole = other.whole(T)
        assert whole is not None and reader.apply(whole) and reader.run == "run2"


class TestParse:
    def test_snapshot(self) -> None:
        body = b'{"lastUpdateId":105,"bids":[["1.25","2"],["1.2","1"]],"asks":[["1.3","0.5"]]}'
        parsed = parse_snapshot(body, 2, 0)
        assert (parsed.last_id, parsed.ts_event, parsed.price_scale, parsed.size_scale) == (105, 0, 2, 1)
        assert parsed.bid_price.tolist() == [125, 120] and parsed.bid_size.tolist() == [20, 10]
        assert parsed.ask_price.tolist() == [130] and parsed.ask_size.tolist() == [5]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"<html>too many requests</html>", "no JSON"),
            (b'{"code":-1121,"msg":"Invalid symbol."}', "lacks lastUpdateId"),
            (b'{"lastUpdateId":1,"bids":[["1","x"]],"asks":[]}', "no price and size"),
        ],
    )
    def test_anything_else(self, body: bytes, said: str) -> None:
        with pytest.raises(BadPayload, match=said):
            parse_snapshot(body, 2, 0)
