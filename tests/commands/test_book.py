"""``tapewick book``: the ladder, one book as JSON, following, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tapewick.commands.book import ladder
from tests.booking import Run, Truth
from tests.gateways.rig import BTC, Rig, running

TRUTH = Truth(seed=4, updates=50)
BOOK: dict[str, Any] = {
    "instrument": "sim:BTCUSDT", "state": "live", "source_run": "a", "seq": 4, "last_update_id": 77,
    "ts_event": 1_723_161_600_123, "bids": [["61685.9", "0.5"], ["61685", "12"]], "asks": [["61686.1", "3"]],
}  # fmt: skip


async def command(rig: Rig, *words: str) -> asyncio.subprocess.Process:
    env = {**os.environ, "NO_COLOR": "1"}
    words = (*words, "--url", rig.gateway.url, "--no-config")
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tapewick", "book", *words, stdout=pipe, stderr=pipe, env=env
    )


async def outcome(rig: Rig, *words: str) -> tuple[int | None, str, str]:
    process = await command(rig, *words)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


def test_a_ladder_has_both_sides_with_totals_and_says_where_it_stands() -> None:
    title, heads, best, second = ladder(BOOK).splitlines()
    assert title == "sim:BTCUSDT  live  update 77  2024-08-09 00:00:00.123  spread 0.2  mid 61686"
    assert heads.split() == ["total", "size", "bid", "│", "ask", "size", "total"]
    assert best.split() == ["0.5", "0.5", "61685.9", "│", "61686.1", "3", "3"]
    assert second.split() == ["12.5", "12.0", "61685.0", "│"]
    assert len({line.index("│") for line in (heads, best, second)}) == 1
    assert "\x1b[32m" in ladder(BOOK, colour=True) and "\x1b[31m" in ladder(BOOK, colour=True)


def test_a_book_that_is_not_live_says_why() -> None:
    lines = ladder({**BOOK, "state": "stale", "detail": "update ids jumped", "bids": [], "asks": [], "ts_event": None})
    assert lines.splitlines()[:2] == ["sim:BTCUSDT  stale  update 77", "update ids jumped"]


async def test_one_book_and_the_book_as_it_moves(tmp_path: Path) -> None:
    run = Run(TRUTH, "a")
    async with running(tmp_path) as rig:
        code, _, err = await outcome(rig, BTC)
        assert code == 2 and "no order book" in err
        code, _, err = await outcome(rig, BTC, "--follow", "--levels", "7")
        assert code == 2 and "5, 10, 20, 50, 100, 500" in err
        code, _, err = await outcome(rig, BTC, "--follow", "--at", "5")
        assert code == 2 and "--at" in err
        rig.bus.offer("books", run.whole())
        code, out, err = await outcome(rig, BTC, "--levels", "3")
        assert code == 0, err
        book = json.loads(out)
        assert book["state"] == "live" and len(book["bids"]) == 3
        await rig.store.put_books([run.whole()])
        code, out, err = await outcome(rig, BTC, "--at", "2024-08-09T01:00:00Z")
        assert code == 0 and json.loads(out)["state"] == "stored", err
        follower = await command(rig, BTC, "--follow", "--levels", "5", "--json")
        assert follower.stdout is not None
        async with asyncio.timeout(60):
            assert json.loads(await follower.stdout.readline())["last_update_id"] == 0
            while run.last_id < 50:
                rig.bus.offer("books", run.step())
            rows = [json.loads(await follower.stdout.readline())]
            while rows[-1]["last_update_id"] < 50 and rows[-1]["bids"] != book_top(50):
                rows.append(json.loads(await follower.stdout.readline()))
        assert rows[-1]["bids"] == book_top(50)
        follower.send_signal(signal.SIGINT)
        await asyncio.wait_for(follower.communicate(), 30)
        assert follower.returncode == 130


def book_top(last_id: int) -> list[list[str]]:
    return [[f"{price / 100:g}", f"{size / 1000:g}"] for price, size in TRUTH.top(last_id, 5)[0]]
