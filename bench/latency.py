"""Latency of a trade, socket in to WebSocket out in one process: both lanes, against a bare relay.

Work: a sender plays Binance's combined trade stream over a picows WebSocket, one trade per frame,
ids contiguous, every millisecond those that are due (a sender that spins would take a core from
the two threads of ours and not from the relay's one); a client in the same process, so by the
same clock, takes what comes out and looks up when the newest trade inside was sent. Between them, in a process
of its own: ours, ``tapewick serve`` whole (Binance source, decode, tape, 18 timeframes, durable
DuckDB, hub, ``/v1/ws``), or the relay, which sends each frame's bytes on as they came (picows in,
picows out, uvloop). Segments of ours and of the relay alternate.

- *stream*: 10,000 trades/s, channel ``candle@…@1m``. The first update goes out at once, then the newest
  every 25 ms: the sample is the age of the newest trade inside an update.
- *lone*: 20 trades/s: every trade is a first update.
- *durable*: 10,000 trades/s, channel ``trade@…``: the age of every trade when its event, which follows the
  commit, has come.

Samples of the first half second of a segment are not counted. p99 holds this machine's scheduler.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

import measured
from harness import Bench, arguments

ID = "binance:BTCUSDT"
FIRST = 5_000_000_000
SKIPPED = 0.5  # seconds of a segment
LAST_ID = re.compile(rb'"last_id":(\d+)')
TRADE_IDS = re.compile(rb'"trade_id":(\d+)')
RAW_ID = re.compile(rb'"t":(\d+)')


class Stream(WSListener):
    """One subscriber of the sender: numbers its trades and knows when each was sent."""

    def __init__(self) -> None:
        self.transport: WSTransport | None = None
        self.sent: list[int] = []
        self.connected = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.connected.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())

    def send(self) -> None:
        """One more trade, now."""
        assert self.transport is not None
        id, ms = FIRST + len(self.sent), time.time_ns() // 1_000_000
        text = (
            f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{ms},"s":"BTCUSDT","t":{id},'
            f'"p":"{64_000 + id % 997}.{id % 100:02}000000","q":"0.{1 + id % 99_999:05}000",'
            f'"T":{ms},"m":true,"M":true}}}}'
        ).encode()
        self.sent.append(time.perf_counter_ns())
        self.transport.send(WSMsgType.TEXT, text)


class Reader(WSListener):
    """Ages of trades as they come out: ``ids`` finds in a frame the trades to look up."""

    def __init__(self, stream: Stream, ids: Callable[[bytes], list[bytes]]) -> None:
        self._stream, self._ids = stream, ids
        self.ages: list[int] = []
        self.seen: list[int] = []
        self.counting = False
        self.joined = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = time.perf_counter_ns()
        if frame.msg_type != WSMsgType.TEXT:
            return
        self.joined.set()
        found = self._ids(frame.get_payload_as_bytes())
        if self.counting:
            for text in found:
                id = int(text)
                self.seen.append(id)
                self.ages.append(now - self._stream.sent[id - FIRST])


def newest_in_update(payload: bytes) -> list[bytes]:
    return LAST_ID.findall(payload)[-1:] if payload.startswith(b'{"type":"update"') else []


def trades_in_event(payload: bytes) -> list[bytes]:
    return TRADE_IDS.findall(payload) if payload.startswith(b'{"type":"event"') else []


class Sender:
    """The venue's stream server with its two subscribers, by path."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.url = ""

    async def start(self) -> None:
        self._server = await ws_create_server(self._accept, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, request: Any) -> Stream:
        return self._expected(request.path.decode().partition("?")[0])

    async def stream(self, path: str) -> Stream:
        """The subscriber of ``path``, once it is there."""
        stream = self._expected(path)
        await asyncio.wait_for(stream.connected.wait(), 30)
        return stream

    def _expected(self, path: str) -> Stream:
        return self.streams.setdefault(path, Stream())


async def play(stream: Stream, rate: float, seconds: float) -> None:
    """Send ``rate`` trades per second: every millisecond those that are due."""
    started, count, number = time.perf_counter(), round(rate * seconds), 0
    while number < count:
        await asyncio.sleep(0.001)
        due = min(count, int((time.perf_counter() - started) * rate) + 1)
        for _ in range(due - number):
            stream.send()
        number = due


async def segment(
    stream: Stream, url: str, subscribe: str, ids: Callable[[bytes], list[bytes]], rate: float, seconds: float
) -> Reader:
    """Play to one contender while reading its output."""
    transport, reader = await ws_connect(lambda: Reader(stream, ids), url)
    assert isinstance(reader, Reader)
    if subscribe:
        transport.send(WSMsgType.TEXT, subscribe.encode())
        await asyncio.wait_for(reader.joined.wait(), 30)
    await play(stream, rate, SKIPPED)
    reader.counting = True
    await play(stream, rate, seconds)
    await asyncio.sleep(0.3)
    transport.disconnect()
    await transport.wait_disconnected()
    return reader


@contextmanager
def child(words: list[str], mark: str, **environment: str) -> Iterator[str]:
    """A process; the first word of its output that begins with ``mark``."""
    process = subprocess.Popen(
        [measured.PYTHON, *words], env=measured.child_environment(**environment), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield next(word for word in process.stdout.readline().split() if word.startswith(mark))
    finally:
        process.terminate()
        process.communicate(timeout=30)


CONTENDERS = ("stream", "relay stream", "lone", "relay lone", "durable")


async def run(rounds: int, seconds: float, rate: float) -> dict[str, list[Reader]]:
    """``rounds`` segments of every contender, in turn."""
    from tapewick.sim.venue import SimVenue

    sender = Sender()
    await sender.start()
    found: dict[str, list[Reader]] = {name: [] for name in CONTENDERS}
    async with SimVenue(["BTCUSDT"], rate=0.01) as rest:
        addresses = {"BINANCE_BASE_URL": rest.rest_url, "BINANCE_WEBSOCKET_BASE_URL": sender.url}
        with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
            words = ["-m", "tapewick", "serve", "--source", ID, "--port", "0", "--data", folder]
            # Started in a thread: the venue it asks for its instruments lives in this loop.
            ours, relay = child(words, "http://", **addresses), child([__file__, "relay", sender.url], "ws://")
            server, port = await asyncio.to_thread(ours.__enter__), await asyncio.to_thread(relay.__enter__)
            try:
                mine, theirs = await sender.stream("/stream"), await sender.stream("/relay")
                await play(mine, 20, 0.5)  # the instrument is known from its first commit on
                url = server.replace("http", "ws", 1) + "/v1/ws"
                candle, trade = subscription(f"candle@{ID}@1m"), subscription(f"trade@{ID}")
                for _ in range(rounds):
                    for name, reader in {
                        "stream": segment(mine, url, candle, newest_in_update, rate, seconds),
                        "relay stream": segment(theirs, port, "", RAW_ID.findall, rate, seconds),
                        "lone": segment(mine, url, candle, newest_in_update, 20, seconds),
                        "relay lone": segment(theirs, port, "", RAW_ID.findall, 20, seconds),
                        "durable": segment(mine, url, trade, trades_in_event, rate, seconds),
                    }.items():
                        found[name].append(await reader)
            finally:
                await asyncio.to_thread(ours.__exit__, None, None, None)
                await asyncio.to_thread(relay.__exit__, None, None, None)
    return found


def subscription(channel: str) -> str:
    return f'{{"op":"subscribe","id":1,"channels":[{{"ch":"{channel}"}}]}}'


def check(found: dict[str, list[Reader]], seconds: float, rate: float) -> None:
    """Nothing is missing and nothing comes twice where every trade must come."""
    for name in ("relay stream", "relay lone", "durable"):
        for reader in found[name]:
            assert reader.seen == list(range(reader.seen[0], reader.seen[0] + len(reader.seen))), name
            assert len(reader.seen) >= (20 if "lone" in name else rate) * seconds, (name, len(reader.seen))
    for reader in found["lone"]:
        assert len(reader.seen) >= 20 * seconds * 0.9, len(reader.seen)
    for reader in found["stream"]:
        assert reader.seen == sorted(reader.seen) and len(reader.seen) >= 2, reader.seen


def report(bench: Bench, found: dict[str, list[Reader]]) -> None:
    p50 = {}
    for name in CONTENDERS:
        ages = [np.array(reader.ages) / 1e3 for reader in found[name]]
        p50[name] = bench.figure(f"{name} p50", "µs", [float(np.quantile(part, 0.5)) for part in ages])
        bench.figure(f"{name} p99", "µs", [float(np.quantile(part, 0.99)) for part in ages])
        bench.figure(f"{name} samples", "", [float(len(part)) for part in ages])
    bench.figure("load average of the machine", "", [os.getloadavg()[0]])
    stream = p50["stream"] / p50["relay stream"]
    bench.ratio("provisional lane p50 at 10,000 trades/s vs relay", stream, 2.5, at_most=True)
    bench.ratio("provisional lane p50 of a lone trade vs relay", p50["lone"] / p50["relay lone"], 2.5, at_most=True)
    bench.ratio("durable lane p50 at 10,000 trades/s, ms", p50["durable"] / 1e3, 40, at_most=True)


class Upstream(WSListener):
    """The relay: each frame's payload to every client, as it came."""

    def __init__(self) -> None:
        self.clients: set[WSTransport] = set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        for client in self.clients:
            client.send(WSMsgType.TEXT, payload)


class Downstream(WSListener):
    """One client of the relay."""

    def __init__(self, upstream: Upstream) -> None:
        self._clients = upstream.clients

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._clients.discard(transport)


async def relay(url: str) -> None:
    upstream = Upstream()
    server = await ws_create_server(lambda _: Downstream(upstream), "127.0.0.1", 0)
    transport, _ = await ws_connect(lambda: upstream, f"{url}/relay")
    sys.stdout.write(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await transport.wait_disconnected()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[1:2] == ["relay"]:
            runner.run(relay(sys.argv[2]))
            return
        args = arguments(__doc__)
        rounds, seconds, rate = (1, 1.0, 500) if args.tiny else (max(args.rounds - 2, 3), 5.0, 10_000)
        found = runner.run(run(rounds, seconds, rate))
        check(found, seconds, rate)
        if not args.tiny:
            bench = Bench("latency", __doc__ or "")
            report(bench, found)
            bench.write()


if __name__ == "__main__":
    main()
