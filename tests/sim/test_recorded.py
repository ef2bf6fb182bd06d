"""Recordings served again: their trades as history, their snapshots and diffs as the book."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tapewick.errors import ConfigError, VenueRefused
from tapewick.sim.recorded import RecordedBook
from tapewick.sim.venue import SimVenue
from tests.sim.sockets import connected, rest

pytestmark = pytest.mark.timeout(30)

T0 = 1_700_000_000_000


def diff(first: int, last: int, bids: list[list[str]], asks: list[list[str]]) -> dict[str, Any]:
    return {"e": "depthUpdate", "E": T0, "s": "ABCUSDT", "U": first, "u": last, "b": bids, "a": asks}


SNAPSHOT = {"lastUpdateId": 12, "bids": [["9.9", "1"], ["10", "2"]], "asks": [["10.2", "3"]]}


def test_a_book_takes_the_diffs_that_follow_its_snapshot_also_those_before_it() -> None:
    book = RecordedBook()
    book.apply(msgspec.json.encode(diff(8, 10, [["9", "7"]], [])))
    book.apply(msgspec.json.encode(diff(11, 14, [["10", "0"]], [])))
    book.restart(msgspec.json.encode(SNAPSHOT))
    assert book.snapshot(9) == {"lastUpdateId": 14, "bids": [("9.9", "1")], "asks": [("10.2", "3")]}
    book.apply(msgspec.json.encode(diff(15, 15, [["9.95", "4"]], [["8888", "0"]])))
    book.restart(msgspec.json.encode(SNAPSHOT))
    assert book.snapshot(1) == {"lastUpdateId": 15, "bids": [("9.95", "4")], "asks": [("10.2", "3")]}


def _recording(path: Path) -> None:
    trade = {"e": "trade", "E": T0, "s": "ABCUSDT", "p": "10.1", "q": "2", "T": T0, "m": False}
    frames: list[Any] = [
        {"stream": "abcusdt@depth@100ms", "data": diff(11, 13, [["9.8", "1"]], [])},
        SNAPSHOT,
        {"stream": "abcusdt@trade", "data": trade | {"t": 5}},
        {"stream": "abcusdt@trade", "data": trade | {"t": 6, "p": "10.3", "T": T0 + 61_000}},
        {"stream": "abcusdt@depth@100ms", "data": diff(14, 15, [["10", "0"]], [])},
    ]
    lines = (f"{(T0 + at) * 1_000_000} {msgspec.json.encode(frame).decode()}" for at, frame in enumerate(frames))
    path.write_text("\n".join(lines) + "\n")


async def test_rest_tells_the_recorded_book_and_bars_of_recorded_trades(tmp_path: Path) -> None:
    _recording(tmp_path / "made")
    async with SimVenue(["ABCUSDT"], captures=[tmp_path / "made"]) as venue:
        with pytest.raises(VenueRefused, match="-1008"):
            await rest(venue, "depth", symbol="ABCUSDT")
        async with connected(venue, "/stream?streams=abcusdt@depth@100ms") as listener:
            await venue.played.wait()
            assert [(await listener.next())["data"]["u"] for _ in range(2)] == [13, 15]
        body = await rest(venue, "depth", symbol="ABCUSDT", limit=5)
        assert body == {"lastUpdateId": 15, "bids": [["9.9", "1"], ["9.8", "1"]], "asks": [["10.2", "3"]]}
        rows = await rest(venue, "klines", symbol="ABCUSDT", interval="1m")
        assert [(row[0], row[1], row[5], row[8]) for row in rows] == [
            (T0 - T0 % 60_000, "10.10000000", "2.00000000", 1),
            (T0 - T0 % 60_000 + 60_000, "10.30000000", "2.00000000", 1),
        ]
        assert (await rest(venue, "ticker/bookTicker", symbol="ABCUSDT"))["bidPrice"] == "9.9"
        with pytest.raises(ConfigError):
            venue.book("ABCUSDT")
