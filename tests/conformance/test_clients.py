"""Foreign clients, unmodified and pinned, read the simulated venue and our server: what they read is true.

The two servers are tested against each other: what clients read from ours has come from the
venue through source, engine and gateway, and must be the same trades, bars and books.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.evidence import CLIENTS, SERVERS, Evidence, gathered
from tests.conformance.servers import SYMBOL
from tests.conformance.truth import STEPS, Truth, fold

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the clients

SETTLED = 20_000
"""ms after its end at which every bar holds all its trades: lateness, and a loaded machine."""

COMPLAINT = re.compile(r"error|warning|exception|traceback|refused|missing|lost", re.IGNORECASE)
FAREWELL = re.compile(r"TradingNode: |Task was destroyed")
"""What some log when they are stopped."""

READS = {
    "ccxt": "time markets unified klines.latest klines.ranged klines.ended klines.earliest klines.hours klines.whole "
    "klines.ui aggregates.recent aggregates.since trades.recent trades.by_id books.shallow books.deep quotes.rest "
    "tickers.rest tickers.all",
    "ccxt.pro": "markets trades.live bars books.kept quotes.live tickers.live mini control.unwatched",
    "python-binance": "time markets unified klines.latest klines.ranged klines.earliest trades.recent trades.by_id "
    "trades.live aggregates.recent aggregates.iterated aggregates.live live_klines.1s raw_klines books.deep "
    "books.partial books.kept quotes.rest quotes.live tickers.rest tickers.live mini micro.trades",
    "binance-connector": "time markets unified.pinged klines.latest klines.ranged klines.earliest klines.ui "
    "klines.zone trades.recent trades.by_id trades.live aggregates.recent aggregates.live live_klines.1s books.deep "
    "books.partial quotes.rest quotes.live tickers.rest tickers.several tickers.live mini depth_ids micro.trades "
    "control.answers control.wrapped",
    "binance-sdk-spot": "time markets unified.limits klines.latest klines.ranged klines.earliest klines.seconds "
    "klines.ui trades.recent trades.by_id trades.live aggregates.recent aggregates.live live_klines.1s books.deep "
    "books.partial quotes.rest quotes.live tickers.rest tickers.live mini depth_ids micro.trades control.subscribed",
    "cryptofeed": "markets aggregates.live live_klines.1m books.kept quotes.live",
    "nautilus_trader": "time markets klines.ranged bars trades.recent trades.live books.kept quotes.unnumbered "
    "tickers.live",
}
"""What each client offers of ours, as names in what it told."""


@pytest.fixture(scope="module", params=SERVERS)
def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Evidence:
    """What all clients read from one server."""
    folder: Path = tmp_path_factory.getbasetemp()
    return gathered(request.param, folder if worker_id == "master" else folder.parent)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def told(evidence: Evidence, client: str) -> dict[str, Any]:
    """What one client read; a client that ended without an answer fails with what it said."""
    if client in evidence.failed:
        pytest.fail(f"{client}: {evidence.failed[client]}")
    return evidence.told[client]


@pytest.fixture(scope="module")
def truth(evidence: Evidence) -> Truth:
    return evidence.truth


def rows(told: dict[str, Any], *paths: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows under dotted ``paths`` with their path; all below a name where only that is given."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path in paths:
        here: Any = told
        for name in path.split("."):
            here = here.get(name, {})
        if isinstance(here, dict):
            found += [(f"{path}.{name}", row) for name, below in here.items() for row in below]
        else:
            found += [(path, row) for row in here]
    return found


def same(told: dict[str, Any], true: dict[str, Any]) -> bool:
    """Whether every value told is the true one; a client that reads floats has lost digits before."""
    return all(equal(told[name], true[name]) for name in told.keys() & true.keys())


def equal(told: Any, true: Any) -> bool:
    if isinstance(told, float):
        return told == float(true)
    return Decimal(told) == true if isinstance(true, Decimal) else bool(told == true)


def test_it_reads_everything_it_offers(told: dict[str, Any], client: str) -> None:
    def present(path: str) -> bool:
        here: Any = told
        for name in path.split("."):
            here = here.get(name) if isinstance(here, dict) else None
        return bool(here)

    assert [path for path in READS[client].split() if not present(path)] == [], told["stderr"]


def test_it_complains_of_nothing(told: dict[str, Any]) -> None:
    """Libraries log what they could not use and go on: an unknown frame, a hole in a book, a lost connection."""
    _, *lines = told["stderr"].splitlines()
    assert [line for line in lines if COMPLAINT.search(line) and not FAREWELL.search(line)] == []


def test_markets(told: dict[str, Any], truth: Truth) -> None:
    listing = truth.listing
    true = {
        "base": listing.base,
        "quote": listing.quote,
        "price_step": Decimal(1).scaleb(-listing.price_scale),
        "size_step": Decimal(1).scaleb(-listing.size_scale),
    }
    assert same(told["markets"][SYMBOL], true)


def test_the_clock_is_the_venues(told: dict[str, Any], evidence: Evidence) -> None:
    assert evidence.start <= told.get("time", evidence.start) <= evidence.end


def test_bars_over_rest(told: dict[str, Any], evidence: Evidence, truth: Truth) -> None:
    steps = {"hours": "1h", "seconds": "1s"}
    for path, row in rows(told, "klines"):
        name = path.partition(".")[2]
        interval = "5m" if name == "ui" and row["close_time"] - row["open_time"] > 60_000 else steps.get(name, "1m")
        step = STEPS[interval]
        if name == "earliest":
            assert row["open_time"] == evidence.origin // step * step
        assert row["open_time"] % step == 0
        assert row.get("close_time", row["open_time"] + step - 1) == row["open_time"] + step - 1
        over = row["open_time"] + step + SETTLED < evidence.start
        if over or "trades" in row:
            true = truth.bar(row["open_time"], step, None if over else row["trades"])
            assert same(row, true), f"{path}: {row} is not {true}"


def test_bars_over_rest_are_the_ones_asked_for(told: dict[str, Any]) -> None:
    for name, bars in told.get("klines", {}).items():
        times = [bar["open_time"] for bar in bars]
        gaps = {later - earlier for earlier, later in zip(times, times[1:], strict=False)}
        assert len(gaps) <= 1 and min(gaps, default=1) > 0, f"{name}: {times}"
    if "latest" in (klines := told.get("klines", {})):
        times = [bar["open_time"] for bar in klines["latest"]]
        middle = times[len(times) // 2]
        assert all(time in times for time in (bar["open_time"] for bar in klines["ranged"]))
        assert [bar["open_time"] for bar in klines.get("ended", ())] in (
            [],
            [*range(middle - 240_000, middle + 1, 60_000)],
        )


def test_bars_over_sockets(told: dict[str, Any], truth: Truth) -> None:
    """At every moment a bar is the fold of its first trades; it closes once, with all of them, in order."""
    for interval, bars in told.get("live_klines", {}).items():
        step = STEPS[interval]
        over: list[int] = []
        for bar in bars:
            true = truth.bar(bar["open_time"], step, None if bar["closed"] else bar["trades"])
            assert same(bar, true), f"{interval}: {bar} is not {true}"
            assert bar["close_time"] == bar["open_time"] + step - 1
            assert bar["open_time"] not in over, "a bar was pushed again after it had closed"
            over += [bar["open_time"]] * bar["closed"]
        assert over == [*range(over[0], over[0] + step * len(over), step)] if over else interval != "1s"
    for bar in told.get("raw_klines", ()):
        assert same(bar, truth.bar(bar["open_time"], STEPS["1m"], None if bar["closed"] else bar["trades"]))
    for bar in told.get("bars", ()):
        true = truth.bar(bar["open_time"], STEPS["1s"])
        assert same(bar, true), f"closed bar {bar} is not {true}"


def test_trades(told: dict[str, Any], truth: Truth) -> None:
    for path, row in rows(told, "trades"):
        trade = truth.trade(row["id"])
        true = {"price": Decimal(trade.price), "size": Decimal(trade.size), "time": trade.time}
        assert same(row, true | {"maker": trade.buyer_is_maker}), f"{path}: {row} is not {trade}"
    for path, ids in ids_by_path(rows(told, "trades")):
        assert ids == [*range(ids[0], ids[0] + len(ids))], f"{path}: a hole or a double in {ids}"


def ids_by_path(found: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, list[int]]]:
    by_path: dict[str, list[int]] = {}
    for path, row in found:
        by_path.setdefault(path, []).append(row["id"])
    return list(by_path.items())


def test_aggregates(told: dict[str, Any], truth: Truth) -> None:
    """An aggregate stands for trades of one price that follow each other, and the next one for the next trades."""
    last: dict[str, int] = {}
    for path, row in rows(told, "aggregates"):
        fills = truth.between(row["first_id"], row["last_id"])
        assert {Decimal(fill.price) for fill in fills} == {Decimal(row["price"])}, f"{path}: {row}"
        assert sum(Decimal(fill.size) for fill in fills) == Decimal(row["size"]), f"{path}: {row}"
        assert (fills[0].time, fills[0].buyer_is_maker) == (row["time"], row["maker"]), f"{path}: {row}"
        assert row["first_id"] == last.get(path, row["first_id"] - 1) + 1, f"{path}: a hole or a double"
        last[path] = row["last_id"]


def test_books(told: dict[str, Any], truth: Truth) -> None:
    """Every state of a book is the venue's at this update id; the client's own one is kept for some seconds."""
    for path, state in rows(told, "books"):
        levels = truth.levels(state["id"], 5)
        assert levels is not None, f"{path}: the venue's book never had id {state['id']}"
        for side, true in levels.items():
            read = [tuple(level[:2]) for level in state[side]]
            good = all(equal(p, tp) and equal(q, tq) for (p, q), (tp, tq) in zip(read, true, strict=True))
            assert good, f"{path}: {side} at {state['id']} are {read}, not {true}"
    kept = [state["id"] for state in told.get("books", {}).get("kept", ())]
    assert kept == sorted(set(kept))


def test_depth_ids_follow_each_other(told: dict[str, Any]) -> None:
    ids = told.get("depth_ids", ())
    assert all(first <= last for first, last in ids)
    assert all(later[0] == earlier[1] + 1 for earlier, later in zip(ids, ids[1:], strict=False))


def test_quotes(told: dict[str, Any], evidence: Evidence, truth: Truth) -> None:
    """A quote is the best of the book at its update id; without an id, of a book the venue had in these seconds."""
    bests = truth.best(evidence.start - SETTLED, evidence.end)
    for path, row in rows(told, "quotes"):
        if "id" in row:
            levels = truth.levels(row["id"], 1)
            assert levels is not None, f"{path}: the venue's book never had id {row['id']}"
            true = levels["bids"] + levels["asks"]
            read = ((row["bid"], row["bid_size"]), (row["ask"], row["ask_size"]))
            good = all(equal(p, tp) and equal(q, tq) for (p, q), (tp, tq) in zip(read, true, strict=True))
            assert good, f"{path}: {row} is not {true}"
        else:
            read_values = tuple(row[name] for name in ("bid", "bid_size", "ask", "ask_size"))
            assert any(all(map(equal, read_values, best)) for best in bests), f"{path}: {row} was never best"


def test_tickers(told: dict[str, Any], truth: Truth) -> None:
    """Statistics of 24 hours are the fold of the trades they name, which begin with the venue's first."""
    for path, row in rows(told, "tickers"):
        assert row["first_id"] == 1, f"{path}: {row}"
        true = fold(truth.between(row["first_id"], row["last_id"]))
        assert same(row, true), f"{path}: {row} is not {true}"
        if "change" in row:
            assert Decimal(row["change"]) == true["close"] - true["open"], f"{path}: {row}"
            assert abs(Decimal(row["vwap"]) - true["quote_volume"] / true["volume"]) < Decimal("0.01"), f"{path}: {row}"


def test_last_and_average_price(told: dict[str, Any], evidence: Evidence, truth: Truth) -> None:
    unified = told.get("unified", {})
    if "price" in unified:
        lately = truth.during(evidence.start - 60_000, evidence.end)
        assert Decimal(unified["price"]) in {Decimal(trade.price) for trade in lately}
    if "average" in unified:
        prices = [Decimal(trade.price) for trade in truth.during(evidence.start - 300_000, evidence.end)]
        assert min(prices) <= Decimal(unified["average"]) <= max(prices)


def test_mini_tickers(told: dict[str, Any], truth: Truth) -> None:
    """They name no ids, but their volume is that of exactly one number of trades."""
    for row in told.get("mini", ()):
        last = truth.volumes.get(Decimal(row["volume"]))
        assert last is not None, f"no number of trades has the volume of {row}"
        true = fold(truth.between(1, last))
        assert same(row, true), f"{row} is not {true}"


def test_microseconds(told: dict[str, Any], truth: Truth) -> None:
    micro = told.get("micro", {})
    for row in micro.get("trades", ()):
        assert row["time"] == truth.trade(row["id"]).time * 1000
    assert micro.get("bar", 0) % 60_000_000 == 0


def test_unsubscribed_streams_end(told: dict[str, Any], client: str) -> None:
    control = told.get("control", {})
    assert control.get("after_unsubscribe", 0) == 0
    if client == "binance-connector":
        *_, listed, unsubscribed = control["answers"]
        assert unsubscribed == {"result": None, "id": 1}
        assert f"{SYMBOL.lower()}@aggTrade" in listed["result"]
        assert control["wrapped"] == [f"{SYMBOL.lower()}@trade"]
    if client == "binance-sdk-spot":
        assert set(control["subscribed"]) - set(control["left"]) == {f"{SYMBOL.lower()}@aggTrade"}
