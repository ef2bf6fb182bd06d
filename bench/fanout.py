"""One message to many clients, through the hub's own writer: deliveries per server CPU-second.

Work: a server process on core 0, on core 1 one epoll client in C that drains all connections; messages of 150
bytes on loopback. 1,000 clients: flat out. 100 clients: 1,000 messages/s, for flat out the frames would coalesce in
the sockets whenever the client lags. *ours* is the whole port (uvicorn, bridge to picows, `/v1/ws` sessions, outboxes)
and the fan-out of a channel writes each message, encoded before, to every reader, one write per message; *16 per
write* hands the fan-out 16 at once, as events of one turn of the loop are. *SSE* is the same on `/v1/sse`. The bound
is a bare epoll loop in C (`fanout.c`, compiled here) that writes equally many bytes; the peer is uvicorn's own
WebSocket (websockets-sansio on uvloop) that sends to one client after the other; *uWebSockets* (socketify, its own loop
in Python's) publishes to a topic, one write per message as well, and only flat out, for its loop spins when it idles.
Centrifugo is no peer here: the Go module proxy does not serve its modules.

Each round is a fresh server, half a second of warm-up, then the measured time; CPU is the server's, user and system.
Every byte a server claims is checked against what the client has read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
import uvicorn
import uvloop

import measured
from harness import Bench, arguments
from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.fanout import Fanout
from tapewick.frames import Text
from tapewick.gateways.http import HttpGateway
from tapewick.hub import Hub
from tapewick.market import Market
from tapewick.model import Instrument
from tapewick.outbox import Limits
from tapewick.readers import Request
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore

ID = "sim:BTCUSDT"
MESSAGE = (
    b'{"type":"event","ch":"trade@sim:BTCUSDT","pos":"01J8ZABC:48250","data":[{"price":"61680.01","size":"0.00100"}]'
)
MESSAGE += b'"' + b"x" * (150 - len(MESSAGE) - 3) + b'"}'
UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
SUBSCRIBE = b'{"op":"subscribe","channels":[{"ch":"trade@sim:BTCUSDT","snapshot":0}]}'
REQUESTS = {
    "ours": UPGRADE + b"\x81" + bytes([0x80 | len(SUBSCRIBE)]) + b"\0\0\0\0" + SUBSCRIBE,
    "sse": b"GET /v1/sse?channels=trade@sim:BTCUSDT&snapshot=0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "uvicorn": UPGRADE,
    "uWebSockets": UPGRADE,
    "C": b"x",
}


# -- servers: each says its port, then plays "SECONDS RATE" and answers "DELIVERIES CPU" -------------


class Ticks(Fanout):
    """A channel of trades to which the benchmark itself adds events."""

    def tick(self, texts: list[Text]) -> None:
        for key in list(self._groups):
            self._write(key, texts, 0)

    @property
    def readers(self) -> int:
        return sum(map(len, self._groups.values()))


class TicksHub(Hub):
    """Keeps the one channel there is."""

    ticks: Ticks | None = None

    def _made(self, request: Request) -> Ticks:
        self.ticks = Ticks(self._market, request.channel, self.limits)
        return self.ticks


Send = Callable[[], Awaitable[None]]


async def obey(send: Send, clients: int, per_write: int) -> None:
    """Play what stdin says."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        seconds, rate = map(float, line.split())
        start, used, sent = time.perf_counter(), time.process_time(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            await asyncio.sleep(max(0.0, sent * per_write / rate - elapsed) if rate else 0)
            await send()
            sent += 1
        sys.stdout.write(f"{sent * per_write * clients} {time.process_time() - used:.6f}\n")
        sys.stdout.flush()


@asynccontextmanager
async def listed() -> AsyncIterator[Market]:
    """The market of one instrument."""
    # What a server prints is read by the benchmark.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
        clock = RealClock()
        async with (
            DuckDBStore(Path(folder)) as store,
            MemoryBus() as bus,
            EngineRole(bus, store, Engine(), clock),
            Market(bus, store, clock) as market,
        ):
            await bus.publish("trades", Instrument(id=ID, venue="sim", symbol="BTCUSDT", price_scale=2, size_scale=5))
            await bus.settled("trades")
            yield market


@asynccontextmanager
async def gateway(limits: Limits | None = None) -> AsyncIterator[tuple[TicksHub, str]]:
    """The whole port, and which it is."""
    async with listed() as market:
        served = HttpGateway(market, port=0)
        served._hub = hub = TicksHub(market, limits or Limits())
        async with served:
            yield hub, served.url.rpartition(":")[2]


async def serve_ours(clients: int, per_write: int) -> None:
    async with gateway() as (hub, port):
        say(port)
        await until(lambda: hub.ticks is not None and hub.ticks.readers == clients)
        assert hub.ticks is not None
        ticks, outboxes, number = hub.ticks, list(hub.outboxes), 0
        texts = [Text(MESSAGE, position=b"01J8ZABC:48250")] * per_write

        async def send() -> None:
            nonlocal number
            number += 1
            if number % 16 == 0:  # the client lags: wait, as the loop in C does
                await until(lambda: not any(outbox.paused for outbox in outboxes), 0.0005)
            ticks.tick(texts)

        await obey(send, clients, per_write)
        await until(lambda: not any(outbox.queued for outbox in outboxes))


async def serve_uvicorn(clients: int, per_write: int) -> None:
    sends: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sends.append(send)
        await asyncio.Event().wait()

    config = uvicorn.Config(app, port=0, ws="websockets-sansio", lifespan="off", log_config=None, access_log=False)
    config.ws_per_message_deflate = False
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(), name="uvicorn")
    await until(lambda: server.started or serving.done())
    say(str(server.servers[0].sockets[0].getsockname()[1]))
    await until(lambda: len(sends) == clients)
    message = {"type": "websocket.send", "text": MESSAGE.decode()}

    async def send() -> None:
        for one in sends:
            await one(message)

    await obey(send, clients, per_write)
    await asyncio.sleep(0.2)
    os._exit(0)  # the peer's own end is no part of this


def serve_uwebsockets(clients: int, per_write: int) -> None:
    from socketify import App, CompressOptions, OpCode

    app, sockets = App(), []

    def joined(one: Any) -> None:
        one.subscribe("all")
        sockets.append(one)

    options = {"compression": CompressOptions.DISABLED, "max_backpressure": 64 << 20, "idle_timeout": 0}
    app.ws("/v1/ws", {**options, "open": joined})

    async def play() -> None:
        await until(lambda: len(sockets) == clients)
        number = 0

        async def send() -> None:
            nonlocal number
            number += 1
            app.publish("all", MESSAGE, OpCode.TEXT)
            await asyncio.sleep(0)  # the turn in which it is written
            if number % 16 == 0:
                await until(lambda: not any(one.get_buffered_amount() for one in sockets), 0.0005)

        await obey(send, clients, per_write)
        os._exit(0)

    def listening(config: Any) -> None:
        say(str(config.port))
        playing.append(app.loop.loop.create_task(play()))

    playing: list[asyncio.Task[None]] = []
    app.listen(_free_port(), listening)
    app.run()


def _free_port() -> int:
    """socketify does not tell which port the system chose."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def until(done: Callable[[], bool], pause: float = 0.01) -> None:
    while not done():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(pause)


def say(port: str) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


# -- rounds ---------------------------------------------------------------------------------------------


def pinned(core: int, words: list[str]) -> list[str]:
    """``words`` on one core of two."""
    enough = len(os.sched_getaffinity(0)) > 1 and shutil.which("taskset")
    return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[core]), *words] if enough else words


def deliveries(program: str, name: str, clients: int, rate: float, per_write: int, seconds: float) -> float:
    """One round: deliveries per CPU-second of a fresh server."""
    kind = name.split()[0]
    frame = len(MESSAGE) + 4
    counts = [str(clients), str(per_write)]
    words = [program, "serve", counts[0], str(frame), counts[1]] if kind == "C" else [PYTHON, __file__, kind, *counts]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen(pinned(0, words), env=measured.child_environment(), text=True, **pipes)  # type: ignore[call-overload]
    assert server.stdin is not None and server.stdout is not None
    client = subprocess.Popen(pinned(1, [program, "drain", server.stdout.readline().strip(), counts[0]]), **pipes)  # type: ignore[call-overload]
    try:
        client.stdin.write(REQUESTS[kind])
        client.stdin.close()
        total = 0
        for length in (min(seconds, 0.5), seconds):
            server.stdin.write(f"{length} {rate}\n")
            server.stdin.flush()
            count, used = server.stdout.readline().split()
            total += int(count)
        server.stdin.close()
        server.wait(60)
        received = int(client.stdout.read().split()[0])
        assert received >= total * frame, f"{name}: {received} bytes came of {total} messages"
        return int(count) / float(used)
    finally:
        for process in (server, client):
            process.kill()
            process.wait()


PYTHON = sys.executable
CASES = {  # name: clients, messages per second (0: flat out), messages per write
    "C 1000": (1000, 0, 1),
    "ours 1000": (1000, 0, 1),
    "uvicorn 1000": (1000, 0, 1),
    "uWebSockets 1000": (1000, 0, 1),
    "sse 1000": (1000, 0, 1),
    "C 1000 by 16": (1000, 0, 16),
    "ours 1000 by 16": (1000, 0, 16),
    "C 100": (100, 1000, 1),
    "ours 100": (100, 1000, 1),
    "uvicorn 100": (100, 1000, 1),
    "sse 100": (100, 1000, 1),
}


def main() -> None:
    args = arguments(__doc__)
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("fanout needs a C compiler: apt-get install gcc")
    cases = dict(CASES)
    for peer, module in (("uvicorn", "websockets"), ("uWebSockets", "socketify")):
        if find_spec(module) is None:
            sys.stderr.write(f"{peer} is missing: {module} is not installed\n")
            cases = {name: case for name, case in cases.items() if peer not in name}
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
        program = str(Path(folder) / "fanout")
        subprocess.run([compiler, "-O2", "-o", program, str(Path(__file__).with_name("fanout.c"))], check=True)
        if args.tiny:
            for name, (_, rate, per_write) in cases.items():
                deliveries(program, name, 5, min(rate, 100), per_write, 0.1)
            return
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(min(args.rounds, 5)):
            for name, case in cases.items():
                found[name].append(deliveries(program, name, *case, 1.5))
    bench = Bench("fanout", __doc__ or "")
    report(bench, {name: bench.figure(name, "deliveries/CPU-s", rounds) for name, rounds in found.items()})
    bench.write()


def report(bench: Bench, rate: dict[str, float]) -> None:
    for clients in ("100", "1000"):
        ours = rate[f"ours {clients}"]
        bench.ratio(f"{clients} clients vs a bare epoll loop in C", ours / rate[f"C {clients}"], 0.75)
        if f"uvicorn {clients}" in rate:
            bench.ratio(f"{clients} clients vs uvicorn's own WebSocket", ours / rate[f"uvicorn {clients}"], 1.7)
        if f"uWebSockets {clients}" in rate:
            bench.ratio(f"{clients} clients vs uWebSockets", ours / rate[f"uWebSockets {clients}"], 0.9)
        bench.ratio(f"{clients} clients, WebSocket vs SSE", ours / rate[f"sse {clients}"], 1.5, at_most=True)
    bench.ratio("16 per write vs one", rate["ours 1000 by 16"] / rate["ours 1000"], 10)
    bench.ratio("16 per write vs C", rate["ours 1000 by 16"] / rate["C 1000 by 16"], 0.85)


if __name__ == "__main__":
    if sys.argv[1:2] == ["uWebSockets"]:
        serve_uwebsockets(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] and sys.argv[1] in ("ours", "sse", "uvicorn"):
        serve = serve_uvicorn if sys.argv[1] == "uvicorn" else serve_ours
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(int(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
