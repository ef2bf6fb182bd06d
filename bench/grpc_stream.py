"""Trades on a gRPC stream: column batches of 16 in a message against one trade in each.

Work: a server process on core 0 (the gRPC port with `tapewick.v1.MarketData`, its sessions and the hub), on core 1 one
Python process with 20 calls of ``Subscribe`` that take messages and do not parse them. The frames are made before by
the encoder the channel uses; the fan-out of the channel hands each to every call, flat out, and waits for calls that
lag.
The figure is trades delivered per CPU-second of the server; every message sent is checked to have come.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import uvloop

import measured
from fanout import ID, Ticks, listed, pinned, say, until
from harness import Bench, arguments
from tapewick.fanout import Fanout
from tapewick.frames import Text
from tapewick.hub import Hub
from tapewick.model import TradeBatch
from tapewick.outbox import Limits
from tapewick.proto_frames import ProtoFrames
from tapewick.readers import Request

CALLS, BATCH = 20, 16
LAG = 16  # messages between two looks whether calls lag


class ProtoHub(Hub):
    """Keeps the one channel there is."""

    ticks: Ticks | None = None

    def _made(self, request: Request) -> Fanout:
        self.ticks = Ticks(self._market, request.channel, self.limits, ProtoFrames)
        return self.ticks


def trades(first: int, count: int) -> TradeBatch:
    ids = np.arange(first, first + count, dtype=np.int64)
    whole = ids.astype(np.int64)
    return TradeBatch(
        instrument=ID,
        trade_id=whole,
        first_id=whole,
        count=np.ones(count, np.int32),
        ts_event=1_700_000_000_000_000_000 + ids,
        ts_recv=1_700_000_000_000_000_000 + ids,
        price=6_168_001 + ids % 100,
        size=1 + ids % 9,
        side=np.ones(count, np.int8),
        seq=whole,
        price_scale=2,
        size_scale=5,
        source="bench",
    )


async def serve(rows: int) -> None:
    """Says its port, then for each line of seconds: messages sent to each call, CPU seconds."""
    from tapewick.gateways.grpc import GrpcGateway

    async with listed() as market:
        served = GrpcGateway(market, port=0)
        served._hub = hub = ProtoHub(market, Limits(heartbeat_s=600))
        async with served:
            say(served.address.rpartition(":")[2])
            calls = int(await asyncio.to_thread(sys.stdin.readline))
            await until(lambda: hub.ticks is not None and hub.ticks.readers == calls)
            assert hub.ticks is not None
            made = ProtoFrames(market, hub.ticks.channel).events(trades(1, rows), 0)
            text = Text(next(iter(made)).data, position=b"01J8ZABC:16")
            say("joined")
            while line := await asyncio.to_thread(sys.stdin.readline):
                seconds, sent, used, start = float(line), 0, time.process_time(), time.perf_counter()
                while time.perf_counter() - start < seconds:
                    for _ in range(LAG):
                        hub.ticks.tick([text])
                    sent += LAG
                    await until(lambda: not any(one.queued for one in hub.outboxes), 0.0005)
                say(f"{sent} {time.process_time() - used:.6f}")


async def drain(port: str, calls: int) -> None:
    """Says "ready", then for each line on stdin how many messages of the channel each call has got by now."""
    import grpc

    from tapewick.v1 import service_pb2 as pb

    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
    subscribe = channel.stream_stream("/tapewick.v1.MarketData/Subscribe")
    wanted = pb.SubscribeRequest(subscribe={"channels": [{"channel": f"trade@{ID}"}]})
    got = [0] * calls

    async def read(number: int) -> None:
        call: Any = subscribe()
        await call.write(wanted.SerializeToString())
        while (message := await call.read()) is not grpc.aio.EOF:
            got[number] += len(message) > 100  # what is sent before has no trades

    reading = [asyncio.create_task(read(number)) for number in range(calls)]
    say("ready")
    while await asyncio.to_thread(sys.stdin.readline):
        say(f"{min(got)} {max(got)}")
    for task in reading:
        task.cancel()


def delivered(rows: int, calls: int, seconds: float) -> float:
    """One round: trades per CPU-second of a fresh server."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = measured.child_environment()
    python = [measured.PYTHON, __file__]
    server = subprocess.Popen(pinned(0, [*python, "serve", str(rows)]), env=environment, **pipes)
    assert server.stdin is not None and server.stdout is not None
    port = server.stdout.readline().strip()
    client = subprocess.Popen(pinned(1, [*python, "drain", port, str(calls)]), env=environment, **pipes)
    assert client.stdin is not None and client.stdout is not None

    def ask(process: subprocess.Popen[str], line: str) -> list[str]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return process.stdout.readline().split()

    try:
        client.stdout.readline()
        assert ask(server, str(calls)) == ["joined"]
        total = 0
        for length in (min(seconds, 0.5), seconds):
            count, used = ask(server, str(length))
            total += int(count)
        deadline = time.monotonic() + 30
        while (found := ask(client, "")) != [str(total)] * 2:
            assert time.monotonic() < deadline, f"the calls got {found} messages of {total}"
            time.sleep(0.05)
        return int(count) * calls * rows / float(used)
    finally:
        for process in (client, server):
            process.kill()
            process.communicate()


def main() -> None:
    args = arguments(__doc__)
    if subprocess.run([measured.PYTHON, "-c", "import grpc"], capture_output=True).returncode:
        sys.exit("grpc_stream needs grpcio: pip install 'tapewick[grpc]'")
    cases = {"one trade in a message": 1, f"{BATCH} in a message": BATCH}
    if args.tiny:
        for rows in cases.values():
            delivered(rows, 2, 0.1)
        return
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(args.rounds):
        for name, rows in cases.items():
            found[name].append(delivered(rows, CALLS, 2.0))
    bench = Bench("grpc_stream", __doc__ or "")
    one, many = (bench.figure(name, "trades/CPU-s", rounds) for name, rounds in found.items())
    bench.figure("load average of the machine", "", [os.getloadavg()[0]])
    bench.ratio(f"{BATCH} in a message vs one", many / one, 8)
    bench.write()


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("serve", "drain"):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(int(sys.argv[2])) if sys.argv[1] == "serve" else drain(sys.argv[2], int(sys.argv[3])))
    else:
        main()
