"""Memory of clients that wait: 10,000 WebSocket connections that get nothing.

Work: a server process (the whole port: uvicorn, bridge to picows, `/v1/ws` sessions, hub) and a C program
(`clients.c`, compiled here) that opens the connections from several addresses on loopback. *connected*: the upgrade is
done and the welcome has come. *subscribed*: the same, and each follows the live candle of one instrument. The figure is
the server's resident memory with the connections, less that after a hundred of them have come and gone (its
code is then loaded), by their number. The kernel's socket memory is not in it.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

import measured
from fanout import UPGRADE, gateway, say, until
from harness import Bench, arguments
from tapewick.outbox import Limits

CLIENTS = 10_000
SUBSCRIBE = b'{"op":"subscribe","channels":[{"ch":"candle@sim:BTCUSDT@1m","snapshot":0}]}'
REQUESTS = {
    "connected": UPGRADE,
    "subscribed": UPGRADE + b"\x81" + bytes([0x80 | len(SUBSCRIBE)]) + b"\0\0\0\0" + SUBSCRIBE,
}


async def serve() -> None:
    """Says its port, then for each line "CLIENTS SUBSCRIBED" its resident memory (kB) once there are so many."""
    async with gateway(Limits(heartbeat_s=600, pong_s=600)) as (hub, port):
        say(port)
        while line := await asyncio.to_thread(sys.stdin.readline):
            clients, subscribed = map(int, line.split())
            await until(lambda: len(hub.outboxes) == clients)  # noqa: B023
            await until(lambda: sum(bool(one.channels) for one in hub.outboxes) == subscribed)  # noqa: B023
            gc.collect()
            say(f"{measured.resident_mb() * 1024:.0f}")


@contextmanager
def compiled() -> Iterator[str]:
    """The program of ``clients.c``."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("this benchmark needs a C compiler: apt-get install gcc")
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
        program = str(Path(folder) / "clients")
        subprocess.run([compiler, "-O2", "-o", program, str(Path(__file__).with_name("clients.c"))], check=True)
        yield program


PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


class Clients:
    """A process of them, all connected (``fed``: and served) once its context is entered; ``t0``: ns on the
    monotonic clock."""

    def __init__(
        self, program: list[str], port: str, count: int, requests: list[bytes], slow: int = 0, *, fed: bool = False
    ) -> None:
        self.t0 = time.monotonic_ns()
        words = [*program, port, str(count), str(slow), str(self.t0), *(["fed"] if fed else [])]
        self._process = subprocess.Popen(words, **PIPES)
        told = b"%d\n" % len(requests) + b"".join(b"%d\n%b" % (len(one), one) for one in requests)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._input.write(told + b"\n")
        self._input.flush()

    def __enter__(self) -> Clients:
        line = self._output.readline()
        assert line == b"ready\n", f"the clients could not connect: {line!r}"
        return self

    def start(self, seconds: float) -> None:
        """Measure for so long from now on."""
        self._input.write(b"%f\n" % seconds)
        self._input.flush()

    def measured(self) -> list[float]:
        """What ``clients.c`` prints of it, once it is over."""
        return [float(word) for word in self._output.readline().split()]

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()


def kilobytes(program: str, kind: str, clients: int) -> float:
    """Of resident memory per connection, in a fresh server."""
    words = [sys.executable, __file__, "serve"]
    server = subprocess.Popen(words, env=measured.child_environment(), text=True, **PIPES)
    assert server.stdin is not None and server.stdout is not None

    def resident(count: int) -> float:
        server.stdin.write(f"{count} {count * (kind == 'subscribed')}\n")
        server.stdin.flush()
        return float(server.stdout.readline())

    try:
        port = server.stdout.readline().strip()
        with Clients([program], port, min(clients, 100), [REQUESTS[kind]]):
            resident(min(clients, 100))
        before = resident(0)
        with Clients([program], port, clients, [REQUESTS[kind]]):
            return (resident(clients) - before) / clients
    finally:
        server.kill()
        server.wait()


def main() -> None:
    args = arguments(__doc__)
    clients, rounds = (20, 1) if args.tiny else (CLIENTS, min(args.rounds, 3))
    with compiled() as program:
        found = {kind: [kilobytes(program, kind, clients) for _ in range(rounds)] for kind in REQUESTS}
    if args.tiny:
        return
    bench = Bench("idle_clients", __doc__ or "")
    for kind, rounds_of in found.items():
        middle = bench.figure(f"{kind}, {clients:,} clients", "kB each", rounds_of)
        bench.ratio(f"kB of RSS for each client {kind}", middle, 10, at_most=True)
    bench.write()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    else:
        main()
