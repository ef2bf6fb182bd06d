"""One in ten hardly reads: what that costs the others, and memory.

Work: 1,000 WebSocket clients of one channel in one C process (`clients.c`, compiled here), messages of 2 kB, 25 a
second, every other one an event (never dropped), the rest values that a newer one replaces. Each message tells when it
was due; the clients that read measure how old it is when it comes. *all read* is that with 1,000 of them; in *100 slow*
a hundred have receive buffers of 4 kB and read a byte a second: they are conflated, left behind and, a
second later, closed with 4008, all of it while the others are measured. The two alternate, each with a fresh server
(core 0; clients on core 1). Bounds: p99 of those that read, against the same without slow ones; the server's
memory beyond that of *all read*, against what its limits allow the slow ones.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import uvloop

import measured
from fanout import REQUESTS, TicksHub, gateway, pinned, say, until
from harness import Bench, arguments
from idle_clients import PIPES, Clients, compiled
from tapewick import metrics
from tapewick.frames import Text
from tapewick.outbox import Limits

CLIENTS, SLOW, RATE, SECONDS = 1_000, 100, 25, 12.0
LIMITS = Limits(queue_bytes=100_000, slow_s=1.0, heartbeat_s=600, pong_s=600)
TRANSPORT = 65_536  # bytes a transport takes before it says that its peer lags
UNIT = 100_000


def message(value: int, kind: bytes) -> bytes:
    text = b'{"type":"%b","ch":"trade@sim:BTCUSDT","pos":"01J8ZABC:1","data":[{"close":"%d"},"' % (kind, value)
    return text + b"x" * (2_000 - len(text) - 3) + b'"]}'


async def play(hub: TicksHub, t0: int, seconds: float) -> tuple[int, int]:
    """Send; returns the most bytes that waited for one client and for all of them."""
    ticks, started, worst, most = hub.ticks, time.monotonic_ns(), 0, 0
    assert ticks is not None
    for number in range(round(seconds * RATE)):
        due = started + number * 1_000_000_000 // RATE
        await asyncio.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        value = (due - t0) // UNIT
        if number % 2:
            ticks.tick([Text(message(value, b"event"), position=b"01J8ZABC:1")])
        else:
            for (frame, _), group in ticks._groups.items():
                data = frame(message(value, b"update"))
                for outbox in group.send(data):
                    outbox.latest(ticks, data)
        queued = [outbox.queued for outbox in hub.outboxes]
        worst, most = max(worst, *queued), max(most, sum(queued))
    return worst, most


async def serve(clients: int) -> None:
    """Says its port, then for "T0 SECONDS": most bytes queued for one and for all, closed for slowness, conflated,
    connections left, peak MB."""
    async with gateway(LIMITS) as (hub, port):
        say(port)
        await until(lambda: hub.ticks is not None and hub.ticks.readers == clients)
        say("joined")
        t0, seconds = (await asyncio.to_thread(sys.stdin.readline)).split()
        worst, most = await play(hub, int(t0), float(seconds))
        counts = [metrics.slow_closes._value.get(), metrics.conflated._value.get(), len(hub.outboxes)]
        say(" ".join(map(str, [worst, most, *counts, measured.resident_mb(field="VmHWM")])))
        await asyncio.to_thread(sys.stdin.readline)


def played(program: str, clients: int, slow: int, seconds: float) -> dict[str, float]:
    """One round in a fresh server."""
    words = pinned(0, [sys.executable, __file__, "serve", str(clients)])
    server = subprocess.Popen(words, env=measured.child_environment(), text=True, **PIPES)
    assert server.stdin is not None and server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        with Clients(pinned(1, [program]), port, clients, [REQUESTS["ours"]], slow) as crowd:
            assert server.stdout.readline() == "joined\n"
            server.stdin.write(f"{crowd.t0} {seconds}\n")
            server.stdin.flush()
            crowd.start(seconds + 0.5)
            worst, most, closed, conflated, left, peak = map(float, server.stdout.readline().split())
            frames, p50, p99, _, _, _, _, gone, cpu = crowd.measured()
        sent = round(seconds * RATE) * (clients - slow)
        assert not gone, f"{gone:g} of the clients that read lost their connection"
        assert left == clients - closed, f"{left:g} connections are left of {clients}, {closed:g} were closed"
        # What is no event may be conflated also for who reads; what one read cuts in two is not counted.
        assert frames >= 0.98 * sent / 2, f"{frames:g} of {sent} messages came"
        return {
            "messages come, %": 100 * frames / sent,
            "p50 ms": p50,
            "p99 ms": p99,
            "peak MB": peak,
            "most kB queued for one": worst / 1e3,
            "most kB queued": most / 1e3,
            "closed 4008": closed,
            "conflated": conflated,
            "clients' load": cpu / (seconds + 0.5),
        }
    finally:
        server.kill()
        server.wait()


def main() -> None:
    args = arguments(__doc__)
    cases = {"all read": 0, f"{SLOW} slow": SLOW}
    with compiled() as program:
        if args.tiny:
            assert played(program, 10, 2, 0.5)["closed 4008"] == 0
            return
        found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
        for _ in range(min(args.rounds, 4)):
            for name, slow in cases.items():
                found[name].append(played(program, CLIENTS, slow, SECONDS))
    bench = Bench("slow_clients", __doc__ or "")
    middle = {
        (name, key): bench.figure(f"{name}: {key}", "", [one[key] for one in rounds])
        for name, rounds in found.items()
        for key in rounds[0]
    }
    slow = f"{SLOW} slow"
    for one in found[slow]:
        assert one["closed 4008"] == SLOW and one["conflated"] > 0, one
    change = middle[slow, "p99 ms"] / middle["all read", "p99 ms"]
    bench.ratio("p99 of those that read, with 100 slow ones vs without", change, 1.2, at_most=True)
    allowed = SLOW * (LIMITS.queue_bytes + TRANSPORT) / 1e6
    more = middle[slow, "peak MB"] - middle["all read", "peak MB"]
    bench.ratio("memory the slow ones add vs what the limits allow", more / allowed, 1, at_most=True)
    worst = middle[slow, "most kB queued for one"] * 1e3 / (LIMITS.queue_bytes + TRANSPORT)
    bench.ratio("most bytes queued for one client vs the limit", worst, 1, at_most=True)
    bench.write()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(int(sys.argv[2])))
    else:
        main()
