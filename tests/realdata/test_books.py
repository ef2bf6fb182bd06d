"""Order books from recorded frames: the venue's own best bid and ask at every comparable update id."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from tapewick.engine import _book_reference, _book_sync, _codec, book
from tapewick.engine.book import L2, BookSync, DepthSnapshot, parse_snapshot

pytestmark = pytest.mark.realdata

FOLDER = "binance-ws-2024-08"
SCALES = {"spot": (2, 5), "usdm": (2, 3), "cm": (1, 0)}
Rule = Literal["spot", "futures"]


@pytest.fixture(params=["native", "reference"], autouse=True)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The codec of one engine; books run on the same engine's levels."""
    module: Any = _codec
    levels: Any = _book_reference.Levels
    if request.param == "native":
        module = pytest.importorskip("tapewick.engine._native", reason="the native engine is not built")
        levels = module.Levels
    monkeypatch.setattr(_book_sync, "Levels", levels)
    monkeypatch.setattr(book, "Levels", levels)
    monkeypatch.setattr(book, "read_snapshot", module.read_snapshot)
    return module


class Step(NamedTuple):
    """One recorded frame: a depth group of one frame, a snapshot's body, or a quote's values by update id."""

    kind: Literal["depth", "snapshot", "quote"]
    value: Any
    recv: int


def new_decoder(codec: Any, market: str) -> Any:
    """A decoder for books that knows the market's tick and step."""
    decoder = codec.Decoder(books=True)
    decoder.set_scale("BTCUSD_PERP" if market == "cm" else "BTCUSDT", *SCALES[market])
    return decoder


def steps(decoder: Any, path: Path) -> Iterator[Step]:
    """The recorded frames in their order; nothing is refused."""
    for line in gzip.decompress(path.read_bytes()).splitlines(keepends=True):
        decoded = decoder.lines(line)
        assert not decoded.rejects and not decoded.others
        for group in decoded.depth:
            yield Step("depth", group, decoded.last_recv)
        for rest in decoded.rest:
            assert (rest.kind, rest.stream) == ("snapshot", "")
            yield Step("snapshot", rest.body, rest.ts_recv)
        for quotes in decoded.quotes:
            columns = (quotes.bid, quotes.bid_size, quotes.ask, quotes.ask_size)
            best = at_eight([int(column[0]) for column in columns], quotes)
            yield Step("quote", (int(quotes.update_id[0]), best), decoded.last_recv)


def at_eight(best: Sequence[int], scaled: Any) -> tuple[int, ...]:
    """Prices and sizes with 8 digits, whatever the scales of their book."""
    up = 10 ** (8 - scaled.price_scale), 10 ** (8 - scaled.size_scale)
    return tuple(value * up[i % 2] for i, value in enumerate(best))


class Watched:
    """A book, its reader's copy, and how both compare with the quotes."""

    def __init__(self, market: str) -> None:
        self.scales = SCALES[market]
        rule: Rule = "spot" if market == "spot" else "futures"
        price_scale, size_scale = self.scales
        self.sync = BookSync("x:BTC", price_scale=price_scale, size_scale=size_scale, rule=rule, run="r")
        self.reader = L2()
        self.quotes: dict[int, Any] = {}
        self.books: dict[int, Any] = {}
        self.first: tuple[int, int] | None = None
        self.before = self.after = self.compared = 0

    def take(self, step: Step) -> None:
        if step.kind == "quote":
            id, best = step.value
            self.quotes[id] = best
            if id in self.books:
                self.compared += 1
                self.after += self.books[id] == best
            return
        updates = (
            self.sync.depth(step.value)
            if step.kind == "depth"
            else self.sync.snapshot(parse_snapshot(step.value, *self.scales), step.recv)
        )
        for update in updates:
            assert self.reader.apply(update)
            if update.state == "live" and not update.snapshot:
                self.first = self.first or (update.first_id, update.last_id)
                self._compare(update.last_id)
        assert self.reader.best() == self.sync.best()

    def _compare(self, id: int) -> None:
        best = self.reader.best()
        assert best is not None and best[0] < best[2]
        self.books[id] = at_eight(best, self.reader)
        if id in self.quotes:
            self.compared += 1
            self.before += self.quotes[id] == self.books[id]


class Day(NamedTuple):
    """A file and what must hold when it has been read after those before it."""

    name: str
    applied: int
    before: int
    after: int


class Market(NamedTuple):
    """``waiting`` frames came before the snapshot ``last_id``, which makes ``dropped`` of them useless."""

    name: str
    last_id: int
    waiting: int
    dropped: int
    first: tuple[int, int]
    days: tuple[Day, ...]


MARKETS = [
    Market(
        "spot", 50093239218, 3, 2, (50093239208, 50093239224),
        (Day("spot_btcusdt_20240808", 3_449, 564, 0), Day("spot_btcusdt_20240809", 6_493, 1_072, 0)),
    ),
    Market(
        "usdm", 5123107852948, 6, 4, (5123107850310, 5123107853551), (Day("usdm_btcusdt_20240808", 6_547, 503, 126),)
    ),
    Market(
        "cm", 1007198635033, 25, 23, (1007198635026, 1007198635121),
        (Day("cm_btcusd_perp_20240808", 26_824, 1_124, 0), Day("cm_btcusd_perp_20240809", 44_772, 1_885, 0)),
    ),
]  # fmt: skip


@pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.name)
def test_best_bid_and_ask_are_the_venue_s(codec: Any, testdata: Path, market: Market) -> None:
    watched, waiting = Watched(market.name), 0
    counters = watched.sync.counters
    decoder = new_decoder(codec, market.name)
    for day in market.days:
        for step in steps(decoder, testdata / FOLDER / f"{day.name}.gz"):
            if step.kind == "snapshot":
                assert waiting == market.waiting and watched.sync.wants_snapshot
                assert parse_snapshot(step.value, *watched.scales).last_id == market.last_id
            waiting += step.kind == "depth"
            watched.take(step)
        assert (counters["dropped"], watched.first, counters["applied"]) == (market.dropped, market.first, day.applied)
        assert (watched.before, watched.after) == (day.before, day.after)
        assert watched.compared == day.before + day.after
    assert watched.sync.state == "live" and counters["breaks"] == counters["crossed"] == counters["old_snapshots"] == 0
    # A few old spot orders are finer than the step: such a level widens the book and breaks nothing.
    finer = {"spot": (2, 6)}
    assert (watched.sync.price_scale, watched.sync.size_scale) == finer.get(market.name, SCALES[market.name])


def test_any_size_of_batch_gives_the_same_book(codec: Any, testdata: Path) -> None:
    path = testdata / FOLDER / "spot_btcusdt_20240808.gz"
    frames = [line.partition(b" ")[2] for line in gzip.decompress(path.read_bytes()).splitlines()]
    (at,) = (i for i, each in enumerate(frames) if each.startswith(b'{"lastUpdateId"'))
    books = []
    for size in (1, 7, 100_000):
        decoder, sync = new_decoder(codec, "spot"), Watched("spot").sync
        seqs = []
        for start in (*range(0, at, size), *range(at + 1, len(frames), size)):
            stop = min(start + size, at) if start < at else start + size
            for group in decoder.frames(frames[start:stop], 1).depth:
                seqs += [update.seq for update in sync.depth(group)]
            if stop == at:
                seqs += [u.seq for u in sync.snapshot(parse_snapshot(frames[at], *SCALES["spot"]), 1)]
        assert seqs == list(range(1, len(seqs) + 1))
        books.append([column.tolist() for column in sync.levels()])
    assert books[0] == books[1] == books[2] and len(books[0][0]) > 1_000


@pytest.mark.parametrize("market", ["spot", "usdm", "cm"])
def test_one_lost_frame_makes_the_book_stale_until_a_new_snapshot(codec: Any, testdata: Path, market: str) -> None:
    name = {"spot": "spot_btcusdt", "usdm": "usdm_btcusdt", "cm": "cm_btcusd_perp"}[market]
    watched, truth = Watched(market), Watched(market)
    depths = 0
    lost = 500
    for step in steps(new_decoder(codec, market), testdata / FOLDER / f"{name}_20240808.gz"):
        truth.take(step)
        depths += step.kind == "depth"
        if depths == lost and step.kind == "depth":
            continue
        watched.take(step)
        if depths > lost and step.kind == "depth":
            assert watched.sync.state == "stale" and watched.sync.wants_snapshot
            assert watched.sync.best() is None and watched.reader.best() is None
            assert watched.sync.whole(step.recv) is None
        if depths == lost + 20:
            break
    assert watched.sync.counters["breaks"] == 1
    scales = truth.sync.price_scale, truth.sync.size_scale
    old = DepthSnapshot(1, 0, *scales, *truth.sync.levels())
    assert watched.sync.snapshot(old, 1) == [] and watched.sync.wants_snapshot
    anew = DepthSnapshot(truth.sync.last_id, 0, *scales, *truth.sync.levels())
    for update in watched.sync.snapshot(anew, 1):
        assert watched.reader.apply(update)
    assert watched.sync.state == "live" and watched.reader.state == "live"
    assert [c.tolist() for c in watched.reader.levels()] == [c.tolist() for c in truth.reader.levels()]


def test_a_snapshot_older_than_the_buffer_is_fetched_again(codec: Any, testdata: Path) -> None:
    watched = Watched("spot")
    for step in steps(new_decoder(codec, "spot"), testdata / FOLDER / "spot_btcusdt_20240808.gz"):
        if step.kind == "snapshot":
            body = step.value.replace(b"50093239218", b"50093239187")
            assert watched.sync.snapshot(parse_snapshot(body, 2, 5), step.recv) == []
            assert watched.sync.wants_snapshot and watched.sync.counters["old_snapshots"] == 1
            assert watched.sync.snapshot(parse_snapshot(step.value, 2, 5), step.recv)
            assert watched.sync.state == "live"
            return
        watched.take(step)


CAPTURES: dict[str, dict[str, Any]] = {
    "BINANCE": {
        "NKNUSDT": (499869752, 1, 150, (499869753, 499869754)),
        "BLZETH": (281916627, 1, 10, (281916628, 281916628)),
        "LRCBTC": (259345543, 2, 15, (259345544, 259345545)),
        "RUNEEUR": (15602511, 1, 2, (15602512, 15602513)),
    },
    "BINANCE_FUTURES": {
        "SUSHIUSDT": (600859605926, 3, 255, None),
        "AKROUSDT": (600859605486, 1, 189, None),
        "KEEPUSDT": (600859619434, 3, 135, None),
        "CTKUSDT": (600859618836, 5, 185, None),
    },
}
ENDS_AT_SNAPSHOT = {"AKROUSDT", "KEEPUSDT", "CTKUSDT"}


@pytest.mark.parametrize("venue", CAPTURES)
def test_snapshots_against_captures(codec: Any, testdata: Path, venue: str) -> None:
    """All frames of a capture wait; then each symbol's own snapshot."""
    folder = testdata / "ws-captures"
    frames = re.findall(rb"^\d+\.\d+: (.*)$", gzip.decompress((folder / f"{venue}.ws.1.0.gz").read_bytes()), re.M)
    decoded = codec.Decoder(books=True).frames(frames, 1)
    assert not decoded.rejects
    answers = gzip.decompress((folder / f"{venue}.http.0.0.gz").read_bytes())
    bodies = dict(re.findall(rb"symbol=(\w+)&limit=1000 -> \d+\.\d+: (.*)", answers))
    groups = {group.symbol: group for group in decoded.depth}
    for symbol, (last_id, dropped, captured, first) in CAPTURES[venue].items():
        rule: Rule = "spot" if venue == "BINANCE" else "futures"
        sync = BookSync(symbol, price_scale=8, size_scale=8, rule=rule, run="r")
        sync.depth(groups[symbol])
        snapshot = parse_snapshot(bodies[symbol.encode()], 8, 8)
        updates = sync.snapshot(snapshot, 1)
        assert (snapshot.last_id, len(groups[symbol])) == (last_id, captured)
        assert (sync.state, sync.counters["dropped"], sync.counters["applied"]) == ("live", dropped, captured - dropped)
        kept = updates[1].first_id, updates[1].last_id
        assert first is None or kept == first
        assert rule == "spot" or kept[0] <= last_id <= kept[1]
        assert (kept[1] == last_id) == (symbol in ENDS_AT_SNAPSHOT)
        best = sync.best()
        assert best is not None and best[0] < best[2]
