"""Live candles beside a repair of a million trades: does the one slow the other?

Work: a venue (trade stream of 200 trades/s by ``latency.Sender``, pages of old trades by ``pages.py``, a process of its
own) and ``tapewick serve`` whole, a process of its own. Fifty WebSocket clients follow ``candle@…@1m``; the sample is
the age of the newest trade inside an update. First the stream runs alone. Then its ids jump by N: a hole, which the
repair lane fills by id while the stream goes on; samples count while the hole is open. Requests have no weight limit,
so that repair asks as fast as it can. p99 holds this machine's scheduler, in both phases alike.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from harness import Bench, arguments
from latency import LAST_ID, Sender, Stream, child, subscription

ID = "binance:BTCUSDT"
RATE = 200.0
CLIENTS = 50


class Live(Stream):
    """Trades with ids of our choosing; when each was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.next = 1
        self.times: dict[int, int] = {}

    def send(self) -> None:
        assert self.transport is not None
        id, ms = self.next, time.time_ns() // 1_000_000
        self.next += 1
        self.times[id] = time.perf_counter_ns()
        text = (
            f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{ms},"s":"BTCUSDT","t":{id},'
            f'"p":"{64_000 + id % 997}.{id % 100:02}000000","q":"0.{1 + id % 99_999:05}000",'
            f'"T":{ms},"m":true,"M":true}}}}'
        )
        self.transport.send(WSMsgType.TEXT, text.encode())


class Venue(Sender):
    def _expected(self, path: str) -> Stream:
        return self.streams.setdefault(path, Live())


class Client(WSListener):
    """Ages of what comes, by phase."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.ages: list[int] = []
        self.joined = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = time.perf_counter_ns()
        if frame.msg_type != WSMsgType.TEXT:
            return
        self.joined.set()
        payload = frame.get_payload_as_bytes()
        if payload.startswith(b'{"type":"update"') and (found := LAST_ID.findall(payload)):
            self.ages.append(now - self._live.times[int(found[-1])])


def pages(trades: int) -> tuple[subprocess.Popen[str], str]:
    """``pages.py`` as a process, and its address."""
    command = [sys.executable, str(Path(__file__).with_name("pages.py")), str(trades)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def missing(server: str) -> int:
    """Gaps the tape still has."""
    with urllib.request.urlopen(f"{server}/v1/coverage/{ID}") as answer:
        return sum(gap["state"] != "closed" for gap in json.load(answer)["gaps"])


async def flow(live: Live, until: Any) -> None:
    """Send at ``RATE`` until ``until()`` holds."""
    started, number = time.perf_counter(), 0
    while not until():
        await asyncio.sleep(0.001)
        due = int((time.perf_counter() - started) * RATE)
        for _ in range(due - number):
            live.send()
        number = due


async def run(trades: int, seconds: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Ages (ms) alone and beside the repair, and how long that took (s)."""
    venue = Venue()
    await venue.start()
    process, rest = await asyncio.to_thread(pages, trades)
    addresses = {
        "BINANCE_BASE_URL": rest,
        "BINANCE_WEBSOCKET_BASE_URL": venue.url,
        "TAPEWICK_BINANCE__BOOKS": "false",
        "TAPEWICK_REPAIR__WEIGHT_LIMIT": "1000000000",
        "TAPEWICK_REPAIR__WEIGHT_SHARE": "1.0",
    }
    try:
        with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
            ours = child(
                ["-m", "tapewick", "serve", "--source", ID, "--port", "0", "--data", folder], "http://", **addresses
            )
            server = await asyncio.to_thread(ours.__enter__)
            try:
                return await measure(venue, server, trades, seconds)
            finally:
                await asyncio.to_thread(ours.__exit__, None, None, None)
    finally:
        process.terminate()
        process.communicate()


async def measure(venue: Venue, server: str, trades: int, seconds: float) -> tuple[np.ndarray, np.ndarray, float]:
    live = await venue.stream("/stream")
    assert isinstance(live, Live)
    begun = time.perf_counter()
    await flow(live, lambda: time.perf_counter() - begun > 1.0)
    url = server.replace("http", "ws", 1) + "/v1/ws"
    clients: list[Client] = []
    for _ in range(CLIENTS):
        transport, client = await ws_connect(lambda: Client(live), url)
        assert isinstance(client, Client)
        transport.send(WSMsgType.TEXT, subscription(f"candle@{ID}@1m").encode())
        await client.joined.wait()
        clients.append(client)

    async def phase(until: Any) -> np.ndarray:
        for client in clients:
            client.ages.clear()
        await flow(live, until)
        return np.concatenate([np.array(client.ages) for client in clients]) / 1e6

    started = time.perf_counter()
    alone = await phase(lambda: time.perf_counter() - started > seconds)
    live.next += trades
    started = time.perf_counter()
    closed = asyncio.create_task(until_closed(server))
    beside = await phase(closed.done)
    assert closed.result() == 0
    return alone, beside, time.perf_counter() - started


async def until_closed(server: str) -> int:
    await asyncio.sleep(0.5)  # the hole is known with the first commit behind it
    while left := await asyncio.to_thread(missing, server):  # noqa: ASYNC110 (the server is another process)
        await asyncio.sleep(0.2)
    return left


def main() -> None:
    """Measure, print, write the result file unless ``--tiny``."""
    options = arguments(__doc__)
    trades, seconds, rounds = (5_000, 1.0, 1) if options.tiny else (1_000_000, 10.0, min(options.rounds, 3))
    figures: dict[str, list[float]] = {"alone": [], "beside": [], "took": [], "ratio": []}
    for _ in range(rounds):
        alone, beside, took = uvloop.run(run(trades, seconds))
        assert len(alone) and len(beside)
        a, b = float(np.percentile(alone, 99)), float(np.percentile(beside, 99))
        for name, value in (("alone", a), ("beside", b), ("took", trades / took), ("ratio", b / a)):
            figures[name].append(value)
    bench = Bench("repair_live", __doc__ or "")
    bench.figure("live update, stream alone, p99", "ms", figures["alone"])
    bench.figure("live update beside a repair, p99", "ms", figures["beside"])
    bench.figure("repair beside live", "trades/s", figures["took"])
    bench.ratio("p99 beside a repair / alone", sorted(figures["ratio"])[len(figures["ratio"]) // 2], 2.0, at_most=True)
    if not options.tiny:
        bench.write()


if __name__ == "__main__":
    main()
