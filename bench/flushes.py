"""Many candles to many clients: 100 instruments, 5,000 clients, ten flushes a second, 50,000 trades a second in.

Work: a sender plays Binance's combined trade stream (picows; every millisecond the trades that are due, instruments
in turn, one trade per frame) to ``tapewick serve`` whole: decode, tape, timeframes, durable DuckDB, hub, `/v1/ws`. Each
client follows the live one-minute candle of one instrument with ``max_rate`` 10, so 50 clients share one. The price of
a trade is the time at which it was due; the clients (`clients.c`) take from each update's close how old the newest
trade inside is. A sender that is late makes that age larger, never smaller. The server is on core 0, sender and clients
share core 1. p99 holds this machine's scheduler; the trades sent, the updates received and the clients' own load are
told beside it. Durable events (a minute's close) are told seconds after its last trade; they are not counted.

That no queue grows without bound: at the end of each segment, while trades still come, the server's metrics tell the
bytes that wait in each of its queues, and what it dropped; beside them its memory, and the oldest update (max ms).

The first segment begins when every client has had its first update: joining is not what is measured. Segments of
50,000, 25,000 and 5,000 trades a second alternate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

import measured
from fanout import UPGRADE, pinned
from harness import Bench, arguments
from idle_clients import Clients, compiled
from pages import LISTED
from tapewick.framing import ws_text

FIRST = 7_000_000_000
RATES = [50_000.0, 25_000.0, 5_000.0]
WARM = 3.0  # seconds before the measured ones
UNIT = 100_000  # ns; a price's last digit
TRADE = (
    '{"stream":"%s@trade","data":{"e":"trade","E":%d,"s":"%s","t":%d,"p":"%d.%02d000000","q":"0.00100000",'
    '"T":%d,"m":true,"M":true}}'
)


class Venue(WSListener):
    """The venue's stream server: every subscriber gets every trade."""

    def __init__(self) -> None:
        self.transports: list[WSTransport] = []
        self.joined = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transports.append(transport)
        self.joined.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.TEXT:
            asked = msgspec.json.decode(frame.get_payload_as_bytes())
            transport.send(WSMsgType.TEXT, msgspec.json.encode({"result": None, "id": asked.get("id")}))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transports.remove(transport)


@asynccontextmanager
async def listing(symbols: list[str]) -> AsyncIterator[str]:
    """The venue's REST server: it lists them, tells the time and has no trades to repair from."""
    listed = [{**LISTED, "symbol": name, "baseAsset": name.removesuffix("USDT")} for name in symbols]
    known = msgspec.json.encode({"symbols": listed})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = b"[]" if b"rades" in head else b'{"serverTime":%d}' % (time.time_ns() // 1_000_000)
                body = known if b"exchangeInfo" in head else body
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())


class Player:
    """Trades of ``symbols`` in turn; ids go on from one play to the next."""

    def __init__(self, venue: Venue, symbols: list[str]) -> None:
        self._venue, self._symbols, self._sent = venue, [(name.lower(), name) for name in symbols], 0

    async def play(self, rate: float, seconds: float, t0: int) -> float:
        """Send so many per second; returns how many per second it came to."""
        started, count, number = time.monotonic_ns(), round(rate * seconds), 0
        while number < count:
            await asyncio.sleep(0.001)
            due = min(count, int((time.monotonic_ns() - started) * rate / 1e9) + 1)
            ms, frames = time.time_ns() // 1_000_000, []
            for k in range(number, due):
                turn, which = divmod(self._sent, len(self._symbols))
                self._sent += 1
                low, name = self._symbols[which]
                price = (started + int(k * 1e9 / rate) - t0) // UNIT
                frames.append(ws_text((TRADE % (low, ms, name, FIRST + turn, *divmod(price, 100), ms)).encode()))
            number = due
            for transport in self._venue.transports:
                transport.underlying_transport.write(b"".join(frames))
        return number / (time.monotonic_ns() - started) * 1e9


def request(id: str) -> bytes:
    """An upgrade and a subscription in one."""
    text = b'{"op":"subscribe","channels":[{"ch":"candle@%b@1m","snapshot":0,"mode":"latest","max_rate":10}]}'
    text %= id.encode()
    return UPGRADE + b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text


def cpu(pid: int) -> float:
    """Seconds of processor a process has had."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def known(port: str) -> int:
    """How many instruments the server has."""
    with urlopen(f"http://127.0.0.1:{port}/v1/instruments") as answer:
        return bytes(answer.read()).count(b'"id":')


QUEUE = re.compile(r'^tapewick_queue_bytes\{queue="(.*)"\} (.*)$', re.MULTILINE)
COUNT = re.compile(
    r"^tapewick_(dropped_batches|live_fills|conflated|commits|commit_seconds_sum)(?:_total)?(?:\{.*\})? (.*)$",
    re.MULTILINE,
)


def told(port: str) -> dict[str, float]:
    """Bytes that wait in each queue of the server (kB), and what it counts."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = {f"kB in {queue}": float(size) / 1000 for queue, size in QUEUE.findall(text)}
    for name, value in COUNT.findall(text):
        found[name] = found.get(name, 0.0) + float(value)
    return found


async def segment(
    crowd: Clients, player: Player, server: int, port: str, rate: float, seconds: float
) -> dict[str, float]:
    """What the clients saw of ``rate`` trades per second; ``server``: its process."""
    used, before = cpu(server), await asyncio.to_thread(told, port)
    playing = asyncio.create_task(player.play(rate, WARM + seconds, crowd.t0))
    await asyncio.sleep(WARM)
    crowd.start(seconds)
    frames, p50, p99, p999, most, _, _, gone, load = await asyncio.to_thread(crowd.measured)
    after = await asyncio.to_thread(told, port)
    sent = await playing
    assert not gone, f"{gone:g} of the clients lost their connection"
    assert frames, "no update came"
    return {
        "updates/s": frames / seconds,
        "p50 ms": p50,
        "p99 ms": p99,
        "p99.9 ms": p999,
        "max ms": most,
        "clients' load": load / seconds,
        "server's load": (cpu(server) - used) / (WARM + seconds),
        "server MB": measured.resident_mb(server),
        "trades/s sent": sent,
        **{name: value if name.startswith("kB") else value - before.get(name, 0.0) for name, value in after.items()},
    }


@contextlib.contextmanager
def tapewick(symbols: list[str], rest: str, streams: str) -> Iterator[subprocess.Popen[str]]:
    """The server, whole."""
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
        words = ["-m", "tapewick", "serve", "--source", *(f"binance:{name}" for name in symbols)]
        words = pinned(0, [measured.PYTHON, *words, "--port", "0", "--data", folder, "--log-level", "error"])
        own = {"BINANCE_BASE_URL": rest, "BINANCE_WEBSOCKET_BASE_URL": streams, "TAPEWICK_BINANCE__BOOKS": "false"}
        process = subprocess.Popen(words, env=measured.child_environment(**own), stdout=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


async def run(
    program: str, instruments: int, clients: int, rates: list[float], rounds: int, seconds: float
) -> dict[float, list[dict[str, float]]]:
    """Segments of each rate in turn, all with the same clients."""
    venue = Venue()
    streams = await ws_create_server(lambda _: venue, "127.0.0.1", 0)
    address = f"ws://127.0.0.1:{streams.sockets[0].getsockname()[1]}"
    symbols = [f"S{number:03}USDT" for number in range(instruments)]
    found: dict[float, list[dict[str, float]]] = {rate: [] for rate in rates}
    async with listing(symbols) as rest:
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(tapewick(symbols, rest, address))
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            port = next(w for w in line.split() if w.startswith("http://")).rpartition(":")[2].strip("/")
            await asyncio.wait_for(venue.joined.wait(), 60)
            player = Player(venue, symbols)
            async with asyncio.timeout(60):  # an instrument is known from its first commit on
                while await asyncio.to_thread(known, port) < len(symbols):
                    await player.play(len(symbols), 1.0, time.monotonic_ns() - 1_000_000_000)
            wanted = [request(f"binance:{name}") for name in symbols]
            crowd = Clients(pinned(1, [program]), port, clients, wanted, fed=True)
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # this sender's; the server has the other
            joining = asyncio.create_task(asyncio.to_thread(stack.enter_context, crowd))
            while not joining.done():  # each has its first update then: joining is not what is measured
                await player.play(5 * len(symbols), 0.5, crowd.t0)
            await joining
            for _ in range(rounds):
                for rate in rates:
                    found[rate].append(await segment(crowd, player, process.pid, port, rate, seconds))
    streams.close()
    return found


def report(bench: Bench, found: dict[float, list[dict[str, float]]]) -> None:
    p99 = {}
    for rate, rounds in found.items():
        for key in rounds[0]:
            middle = bench.figure(f"{rate:,.0f} trades/s: {key}", "", [one[key] for one in rounds])
            if key == "p99 ms":
                p99[rate] = middle
    bench.figure("load average of the machine", "", [os.getloadavg()[0]])
    for rate, value in p99.items():
        bench.ratio(f"p99 from trade to client at {rate:,.0f} trades/s, ms", value, 50, at_most=True)


def main() -> None:
    args: Any = arguments(__doc__)
    rounds, seconds = (1, 1.0) if args.tiny else (min(args.rounds, 3), 6.0)
    with compiled() as program, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if args.tiny:
            runner.run(run(program, 3, 9, [300.0], rounds, seconds))
            return
        bench = Bench("flushes", __doc__ or "")
        report(bench, runner.run(run(program, 100, 5_000, RATES, rounds, seconds)))
        bench.write()


if __name__ == "__main__":
    main()
