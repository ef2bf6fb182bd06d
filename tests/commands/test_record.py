"""``tapewick record``: the simulated venue recorded over its sockets, replayed onto a tape, compared."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tapewick.sim.venue import SimVenue
from tapewick.sources._files import read_text
from tests.commands.tapes import started, tapewick


@pytest.fixture
async def recorded(tmp_path: Path) -> Path:
    """Two symbols, all kinds of streams, until both have a book and a few hundred trades."""
    async with SimVenue(["BTCUSDT", "ETHUSDT"], seed=3, rate=60) as venue:
        process = await started(
            "record", "binance:BTCUSDT", "binance:ETHUSDT", "--out", "frames", "--json",
            "--ws-url", venue.ws_url, "--rest-url", venue.rest_url, cwd=tmp_path,
        )  # fmt: skip
        while venue.requests.count("/api/v3/depth") < 2:  # noqa: ASYNC110 (the other side is a process)
            await asyncio.sleep(0.05)
        begun = {symbol: len(venue.truth(symbol)) for symbol in venue.markets()}
        while any(len(venue.truth(symbol)) < count + 150 for symbol, count in begun.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, said = await process.communicate()
        assert process.returncode == 130, said.decode()
        truth = {
            symbol: [
                (trade.id, trade.time, trade.price, trade.size, trade.buyer_is_maker) for trade in venue.truth(symbol)
            ]
            for symbol in ("BTCUSDT", "ETHUSDT")
        }
    outcome = json.loads(out)
    assert outcome["dropped"] == 0
    assert outcome["frames"] > 0
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return tmp_path


async def test_what_is_replayed_is_what_the_venue_sent(recorded: Path) -> None:
    files = sorted((recorded / "frames").glob("*.zst"))
    assert {path.name.split("_")[1] for path in files} == {"btcusdt", "ethusdt"}
    done = await tapewick("replay", *files, "--data", "d", "--json", cwd=recorded)
    assert done.code == 0, done
    truth = json.loads((recorded / "truth.json").read_text())
    for symbol, trades in truth.items():
        done = await tapewick("trades", f"binance:{symbol}", "--data", "d", "--limit", "0", "--json", cwd=recorded)
        rows = [json.loads(line) for line in done.out.splitlines()]
        first, last = rows[0]["trade_id"], rows[-1]["trade_id"]
        expected = [trade for trade in trades if first <= trade[0] <= last]
        assert len(rows) == last - first + 1 == len(expected) > 20
        for row, (id, time, price, size, maker) in zip(rows, expected, strict=True):
            assert (row["trade_id"], row["ts_event"]) == (id, time)
            assert (float(row["price"]), float(row["size"])) == (float(price), float(size))
            assert row["side"] == ("sell" if maker else "buy")


async def test_depth_begins_with_a_book_that_fits_it(recorded: Path) -> None:
    for path in (recorded / "frames").glob("*.zst"):
        lines = [line.split(b" ", 1) for line in read_text(path).splitlines()]
        times = [int(time) for time, _ in lines]
        assert times == sorted(times)
        bodies = [json.loads(body) for _, body in lines]
        books = [n for n, body in enumerate(bodies) if "lastUpdateId" in body]
        changes = [n for n, body in enumerate(bodies) if "@depth" in body.get("stream", "")]
        assert changes, "the venue sent no depth"
        assert len(books) == 1
        assert changes[0] < books[0]
        assert bodies[changes[0]]["data"]["U"] <= bodies[books[0]]["lastUpdateId"] + 1
        assert any("@bookTicker" in body.get("stream", "") for body in bodies)


async def test_errors_say_what_to_do(tmp_path: Path) -> None:
    done = await tapewick("record", "sim:BTCUSDT", cwd=tmp_path)
    assert (done.code, "--ws-url" in done.err, "--rest-url" in done.err) == (2, True, True)
    done = await tapewick("record", "BTCUSDT", cwd=tmp_path)
    assert (done.code, "venue:symbol" in done.err) == (2, True)
    done = await tapewick("record", "binance:BTCUSDT", "--streams", "trades", cwd=tmp_path)
    assert (done.code, "choose among trade,aggTrade" in done.err) == (2, True)
    done = await tapewick("record", "sim:BTCUSDT", "--ws-url", "ws://127.0.0.1:1", cwd=tmp_path)
    assert (done.code, "--rest-url" in done.err) == (2, True)
    (tmp_path / "file").write_text("")
    done = await tapewick("record", "binance:BTCUSDT", "--out", "file", "--streams", "trade", cwd=tmp_path)
    assert (done.code, "file" in done.err) == (1, True)


async def test_a_symbol_the_venue_does_not_stream_is_an_error(tmp_path: Path) -> None:
    async with SimVenue(["BTCUSDT"], seed=3, rate=60) as venue:
        urls = ("--ws-url", venue.ws_url, "--rest-url", venue.rest_url)
        done = await tapewick("record", "binance:NOSUCH", "--out", "f", "--seconds", "2", *urls, cwd=tmp_path)
    assert (done.code, "no frame of binance:NOSUCH" in done.err) == (3, True), done


async def test_a_recording_with_frames_missing_does_not_end_well(tmp_path: Path) -> None:
    """No file may pass 4 KiB: as on a disk that is full."""
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "runpy.run_module('tapewick', run_name='__main__', alter_sys=True)"
    )
    async with SimVenue(["BTCUSDT"], seed=3, rate=300) as venue:
        words = ["record", "binance:BTCUSDT", "--seconds", "4", "--json", "--streams", "trade"]
        words += ["--ws-url", venue.ws_url, "--rest-url", venue.rest_url, "--out", str(tmp_path / "frames")]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            limited,
            *words,
            stdout=-1,
            stderr=-1,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        out, said = await process.communicate()
    assert process.returncode == 1, said.decode()
    assert json.loads(out)["dropped"] > 0
