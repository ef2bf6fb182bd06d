"""What a message server between the roles costs: the whole chain's rate, and the time a hop adds.

Work, rate: N trades of 8 instruments (fixed seed, contiguous ids, batches of 256 columns as a busy socket yields them)
from a source that waits → bus → engine (tape, 17 timeframes, durable DuckDB) → bus → market, to a listener on every
instrument's trades. The clock runs until every trade has reached its listener; the tape is checked afterwards. Each
role has a connection of its own to the bus, all in this process, so the memory bus has the same work without the hop.
Servers are real, on loopback, with their default settings, and share the machine's cores with us.

Work, hop: a message of one trade on an otherwise idle chain of bus, from ``offer`` to its delivery at another
connection's subscriber, 100 a second; the sample is that time, the figure its p50 minus the memory bus's. One batch
interval (2 ms) is granted on top of the goal, as messages that come while one is sent go together.

Redis, NATS with JetStream and Kafka each take part where they are installed, and are named as missing where not.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import uvloop

import measured
from harness import Bench, arguments
from tapewick import registry
from tapewick.channel import Batch, Channel
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.market import Market
from tapewick.model import CandleBatch, Event, Instrument, TradeBatch
from tapewick.protocols import Bus
from tapewick.roles import EngineRole, collect
from tapewick.settings import Bus as BusSettings
from tapewick.settings import Kafka, Nats, Redis, Settings
from tapewick.stores.duckdb import DuckDBStore

sys.path.insert(0, str(Path(__file__).parent.parent))  # the servers are started as the tests start them

NETWORK = ("redis", "nats", "kafka")
SYMBOLS = [f"bench:S{number}" for number in range(8)]
BATCH = 256
T0 = 1_700_000_000 * 10**9
INTERVAL_MS = 2.0  # the longest that a batch waits for more
HOPS_PER_S = 100


@contextmanager
def servers(kinds: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Addresses of those that could be started."""
    from tests.parts.kafka import KafkaServer
    from tests.parts.nats import NatsServer
    from tests.parts.redis import RedisServer

    makers: dict[str, Any] = {"redis": RedisServer, "nats": NatsServer, "kafka": KafkaServer}
    found: dict[str, str] = {}
    with ExitStack() as stack:
        for kind in kinds:
            try:
                server = stack.enter_context(contextmanager(makers[kind]().running)())
            except BaseException as error:  # a skipped test's exception is none of Exception
                if isinstance(error, KeyboardInterrupt) or os.environ.get("CI"):
                    raise
                sys.stdout.write(f"missing: {kind} ({error})\n")
            else:
                found[kind] = server.url
        yield found


def settings_of(kind: str, url: str) -> Settings:
    """A bus of its own name on that server."""
    made = Settings(bus=BusSettings(kind, name=f"b{uuid4().hex[:12]}"))
    if kind == "redis":
        return made._replace(redis=Redis(url))
    if kind == "nats":
        return made._replace(nats=Nats(url))
    return made._replace(kafka=Kafka((url,))) if kind == "kafka" else made


@asynccontextmanager
async def connections(kind: str, url: str, count: int) -> AsyncIterator[list[Bus]]:
    """So many, connected with each other: the memory bus is one and the same."""
    settings = settings_of(kind, url)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(registry.bus(settings))
        others = [] if kind == "memory" else [registry.bus(settings) for _ in range(count - 1)]
        yield [first, *[await stack.enter_async_context(one) for one in others]] if others else [first] * count


class Market8:
    """A ``Source`` of ``count`` trades, instruments in turn, a batch at a time."""

    name, pull = "bench", True

    def __init__(self, count: int) -> None:
        self._count = count

    async def events(self) -> AsyncGenerator[Event, None]:
        rng, sent, ids = np.random.default_rng(1), 0, dict.fromkeys(SYMBOLS, 1)
        for id in SYMBOLS:
            yield Instrument(id=id, venue="bench", symbol=id[6:], price_scale=2, size_scale=5)
        while sent < self._count:
            id = SYMBOLS[sent // BATCH % len(SYMBOLS)]
            rows = min(BATCH, self._count - sent)
            yield batch(id, ids[id], rows, rng)
            ids[id] += rows
            sent += rows


def batch(id: str, first: int, rows: int, rng: np.random.Generator) -> TradeBatch:
    ids = np.arange(first, first + rows, dtype=np.int64)
    return TradeBatch(
        instrument=id,
        trade_id=ids,
        first_id=ids.copy(),
        count=np.ones(rows, np.int32),
        ts_event=T0 + ids * 20_000_000,
        ts_recv=T0 + ids * 20_000_000 + 1_000_000,
        price=rng.integers(6_000_000, 6_100_000, rows),
        size=rng.integers(1, 10**6, rows),
        side=rng.choice(np.array([-1, 1], np.int8), rows),
        price_scale=2,
        size_scale=5,
        source="bench",
    )


class Counter:
    """A ``Listener`` that counts trades until all have come."""

    def __init__(self, wanted: int) -> None:
        self._left = wanted
        self.done = asyncio.Event()

    def durable(self, batch: Batch) -> None:
        self._left -= len(batch) if isinstance(batch, TradeBatch) else 0
        if self._left <= 0:
            self.done.set()

    def provisional(self, batch: CandleBatch) -> None:
        return None

    def restarted(self) -> None:
        raise AssertionError("the tape was begun anew")


async def chain(kind: str, url: str, count: int) -> float:
    """Trades per second from the source to the listeners."""
    clock = RealClock()
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(DuckDBStore(folder))
            collecting, engine, gateway = await stack.enter_async_context(connections(kind, url, 3))
            await stack.enter_async_context(EngineRole(engine, store, Engine(), clock))
            market = await stack.enter_async_context(Market(gateway, store, clock))
            await collect(Market8(0), collecting)  # the instruments are known, and every role is in its place
            await collecting.settled("trades")
            async with asyncio.timeout(60):
                while len(await market.instruments()) < len(SYMBOLS):  # noqa: ASYNC110 (no event tells)
                    await asyncio.sleep(0.01)
            counter = Counter(count)
            for id in SYMBOLS:
                await market.attach(Channel.parse(f"trade@{id}"), counter)
            started = time.perf_counter()
            await collect(Market8(count), collecting)
            async with asyncio.timeout(300):
                await counter.done.wait()
            took = time.perf_counter() - started
            for id in SYMBOLS:
                state = await store.coverage(id)
                assert state.ranges[:, :2].tolist() == [[1, state.seq]], f"{kind}: {id} is not whole"
            assert sum([(await store.head(id)).seq for id in SYMBOLS]) == count
    return count / took


async def hop(kind: str, url: str, samples: int) -> float:
    """Median milliseconds from ``offer`` to the delivery."""
    rng = np.random.default_rng(2)
    async with connections(kind, url, 2) as (out, back):
        reader = back.subscribe(["tape"])
        for warm in range(10):  # topics are made, and the reader is in its place
            await out.publish("tape", batch(SYMBOLS[0], 1 + warm, 1, rng))
        async with asyncio.timeout(60):
            while int((await anext(reader)).message.trade_id[-1]) < 10:  # type: ignore[union-attr]
                continue
        times = []
        for number in range(samples):
            await asyncio.sleep(1 / HOPS_PER_S)
            one = batch(SYMBOLS[0], 11 + number, 1, rng)
            started = time.perf_counter_ns()
            assert out.offer("tape", one)
            await anext(reader)
            times.append((time.perf_counter_ns() - started) / 1e6)
    return float(np.median(times))


def main() -> None:
    """Measure, print, write the result file unless ``--tiny``."""
    if find_spec("pytest") is None:  # the peers' environment has neither drivers nor the tests' servers
        os.execv(measured.PYTHON, [measured.PYTHON, *sys.argv])
    args = arguments(__doc__)
    count, samples, rounds = (4_000, 20, 1) if args.tiny else (200_000, 200, min(args.rounds, 3))
    with servers(NETWORK) as urls, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kinds = {"memory": "", **urls}
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(rounds + (not args.tiny)):
            for kind, url in kinds.items():
                rate, took = runner.run(chain(kind, url, count)), runner.run(hop(kind, url, samples))
                if number or args.tiny:  # the first round is not counted
                    rates[kind].append(rate)
                    times[kind].append(took)
    bench = Bench("buses", __doc__ or "")
    base_rate = bench.figure("whole chain, memory", "trades/s", rates["memory"])
    base_time = bench.figure("hop, memory, p50", "ms", times["memory"])
    for kind in urls:
        rate = bench.figure(f"whole chain, {kind}", "trades/s", rates[kind])
        took = bench.figure(f"hop, {kind}, p50", "ms", times[kind])
        bench.ratio(f"whole chain, {kind} / memory", rate / base_rate, 0.4)
        bench.ratio(f"a hop over {kind} adds, p50, ms", took - base_time, 2.0 + INTERVAL_MS, at_most=True)
    if not args.tiny:
        bench.write()


if __name__ == "__main__":
    main()
