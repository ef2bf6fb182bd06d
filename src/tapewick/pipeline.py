"""The whole system, wired: the only file that sees every part.

``serve`` runs collect, engine and gateway in one process around one bus and one store;
``feed`` runs collect and engine until a file source ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import structlog

from tapewick import registry
from tapewick.book_keeper import keep_books
from tapewick.clock import Clock, RealClock
from tapewick.engine.tape import Engine
from tapewick.errors import ConfigError, StoreError
from tapewick.model import Health
from tapewick.protocols import Bus, Source, Store
from tapewick.repair import RepairLane
from tapewick.roles import EngineRole, collect
from tapewick.settings import Settings
from tapewick.timeframe import DAY, HOUR, SECOND

if TYPE_CHECKING:
    from tapewick.record import Recorder
    from tapewick.sources._binance_repair import BinanceRepairer
    from tapewick.sources.venue_klines import VenueKlines

__all__ = ["Progress", "Report", "feed", "repairing", "serve"]

log = structlog.get_logger()

SWITCH = 0.0005  # seconds the store's thread may keep the interpreter from the loop; Python's 5 ms are felt by clients
SHUTDOWN = 8.0  # seconds for draining; the promise outside is 10


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a feed has come; byte counts are 0 where the source has none."""

    trades: int
    duplicates: int
    bytes_read: int
    bytes_total: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class Report:
    """What a feed did. ``rejects`` counts quarantined records by reason, ``gaps`` the open holes
    of the instruments it touched."""

    trades: int
    duplicates: int
    rejects: dict[str, int] = field(default_factory=dict)
    gaps: int = 0
    seconds: float = 0.0


def _engine(settings: Settings) -> Engine:
    own = settings.engine
    return Engine(
        lateness=own.lateness_ms * 1_000_000,
        grace=own.final_grace_s * SECOND,
        attempts=settings.repair.max_attempts,
    )


async def feed(settings: Settings, source: Source, *, progress: Callable[[Progress], None] | None = None) -> Report:
    """Bring all of a finite ``source`` into the store, committed.

    Raises what the source raises once everything before it has been committed.
    """
    started = time.monotonic()
    engine = _engine(settings)
    interval = settings.engine.commit_interval_ms / 1000
    async with AsyncExitStack() as stack:
        store: Store = await stack.enter_async_context(registry.store(settings))
        bus: Bus = await stack.enter_async_context(registry.bus(settings))
        role = EngineRole(bus, store, engine, RealClock(), interval=interval, provisional=False)
        await stack.enter_async_context(role)

        def now() -> Progress:
            return Progress(
                trades=role.trades,
                duplicates=engine.rejects["duplicate"],
                bytes_read=getattr(source, "bytes_read", 0),
                bytes_total=getattr(source, "bytes_total", 0),
                seconds=time.monotonic() - started,
            )

        async def report() -> None:
            while progress is not None:
                progress(now())
                await asyncio.sleep(0.5)

        reporter = asyncio.create_task(report())
        try:
            await _unless_failed(_drained(source, bus), role)
        finally:
            reporter.cancel()
        if progress is not None:
            progress(now())
    told: Counter[str] = Counter(getattr(source, "rejects", ()))
    rejects = engine.rejects + told
    return Report(
        trades=role.trades,
        duplicates=rejects.pop("duplicate", 0),
        rejects=dict(rejects),
        gaps=sum(tape.open_gaps for id, tape in engine.tapes.items() if id in engine.fed),
        seconds=time.monotonic() - started,
    )


async def _drained(source: Source, bus: Bus) -> None:
    try:
        await collect(source, bus)
    finally:
        await bus.settled("trades")


async def _unless_failed(work: Coroutine[None, None, None], role: EngineRole) -> None:
    """Run ``work`` to its end, or raise what ended the engine first."""
    task = asyncio.create_task(work)
    watch = asyncio.create_task(role.failed())
    await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        watch.cancel()
        await task
    else:
        task.cancel()
        await watch


async def serve(
    settings: Settings, *, demo: bool, on_ready: Callable[[str, str], None], source_ids: Sequence[str] = ()
) -> int:
    """Run all roles until a signal; the exit code (130 SIGINT, 143 SIGTERM, after draining).

    ``on_ready`` is told the page's URL and the gRPC address ("": there is none). ``demo`` collects
    from the simulated venue, else ``source_ids`` (``venue:SYMBOL``) or the configured symbols. Raises
    ``ConfigError`` for a port in use or another simulated market on the tape, ``StoreBusy`` for a data folder in use.
    """
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _resolve, stop, 128 + number)
    clock = RealClock()
    sys.setswitchinterval(SWITCH)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(registry.store(settings))
        bus = await stack.enter_async_context(registry.bus(settings))
        first_run = not any(instrument.simulated for instrument in await store.instruments())
        recorder = registry.recorder(settings)
        if recorder is not None:
            await stack.enter_async_context(recorder)
        sources, repairers, klines = await stack.enter_async_context(
            _sources(settings, store, source_ids, demo=demo, history=first_run, recorder=recorder)
        )
        for repairer in repairers:
            await stack.enter_async_context(repairer)
        lane = RepairLane(repairers, bus)  # before the engine: it hears what that wants at its start
        role = EngineRole(bus, store, _engine(settings), clock, interval=settings.engine.commit_interval_ms / 1000)
        await stack.enter_async_context(role)
        market = await stack.enter_async_context(registry.market(bus, store, clock))
        gateway = await stack.enter_async_context(
            registry.gateway(settings, market, lambda: role.trouble or bus.trouble)
        )
        grpc_address = ""
        if settings.grpc.enabled:
            grpc_gateway = registry.grpc_gateway(settings, market, lambda: role.trouble or bus.trouble)
            grpc_address = (await stack.enter_async_context(grpc_gateway)).address
        tasks = [asyncio.create_task(_report_health(bus), name="health"), asyncio.create_task(role.failed())]
        tasks += [asyncio.create_task(lane.run(), name="repair")]
        if settings.books.store_interval_s:
            own = settings.books
            keeping = keep_books(bus, store, clock, interval=own.store_interval_s, levels=own.store_levels)
            tasks.append(asyncio.create_task(keeping, name="books"))
        if any(settings.retention):
            tasks.append(asyncio.create_task(_expire(settings, store, clock), name="retention"))
        if settings.verify.interval_s:
            for venue in klines.values():
                await stack.enter_async_context(venue)
            verifier = registry.verifier(settings, market, klines, clock, want=partial(bus.offer, "repairs"))
            tasks.append(asyncio.create_task(verifier.run(), name="verify"))
        tasks += [asyncio.create_task(collect(source, bus), name=source.name) for source in sources]
        stack.push_async_callback(_cancelled, tasks)
        on_ready(gateway.url, grpc_address)
        watched: set[asyncio.Future[Any]] = {stop, *tasks}
        while not stop.done():  # a source that has ended leaves the others, and what is stored, to be served
            done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    return stop.result()


@asynccontextmanager
async def repairing(
    settings: Settings, store: Store, bus: Bus, venues: Mapping[str, Literal["raw", "agg"]]
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Engine and repair lane on an open store and bus, without any source: what is missing gets fetched.

    ``venues``: what the tapes of each hold. Yields the tasks, of which none ends but by failing.
    """
    found = (registry.repairer(settings, venue, granularity=kind) for venue, kind in venues.items())
    interval = settings.engine.commit_interval_ms / 1000
    async with AsyncExitStack() as stack:
        repairers = [await stack.enter_async_context(one) for one in found if one is not None]
        lane = RepairLane(repairers, bus, cap=5.0)
        role = EngineRole(bus, store, _engine(settings), RealClock(), interval=interval, provisional=False)
        await stack.enter_async_context(role)
        tasks = [asyncio.create_task(lane.run(), name="repair"), asyncio.create_task(role.failed())]
        stack.push_async_callback(_cancelled, tasks)
        yield tasks


def _resolve(stop: asyncio.Future[int], code: int) -> None:
    if not stop.done():
        stop.set_result(code)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=SHUTDOWN)


@asynccontextmanager
async def _sources(
    settings: Settings, store: Store, ids: Sequence[str], *, demo: bool, history: bool, recorder: Recorder | None
) -> AsyncIterator[tuple[list[Source], list[BinanceRepairer], dict[str, VenueKlines]]]:
    """The sources to collect from, what repairs their tapes, and whose klines to compare candles with.

    For the demo with the simulated venue behind them, and its past if asked. Raises ``ConfigError`` where ``store``
    holds another simulated market.
    """
    if demo:
        async with registry.venue(settings) as venue:
            await registry.continue_market(settings, store, venue)
            source = registry.simulated_source(settings, venue, history=history, recorder=recorder)
            repairers = _repairers(settings, [source.name], rest_url=venue.rest_url)
            yield [source], repairers, registry.klines(settings, [source.name], rest_url=venue.rest_url)
        return
    symbols: dict[str, list[str]] = defaultdict(list)
    for id in ids or [f"binance:{symbol}" for symbol in settings.binance.symbols]:
        name, colon, symbol = id.partition(":")
        if not colon or not symbol:
            raise ConfigError(f"{id!r} is no instrument: write venue:SYMBOL, for example binance:BTCUSDT")
        symbols[name].append(symbol)
    sources = [registry.source(settings, venue, wanted, recorder=recorder) for venue, wanted in symbols.items()]
    yield sources, _repairers(settings, list(symbols)), registry.klines(settings, list(symbols))


def _repairers(settings: Settings, venues: Sequence[str], *, rest_url: str = "") -> list[BinanceRepairer]:
    """One for each of ``venues`` that can be asked for trades by id."""
    if not settings.repair.enabled:
        return []
    found = (registry.repairer(settings, venue, rest_url=rest_url) for venue in venues)
    return [repairer for repairer in found if repairer is not None]


async def _expire(settings: Settings, store: Any, clock: Clock) -> None:
    """Let the store forget what is too old, each hour. A store that cannot just now is asked again."""
    own = settings.retention
    while True:
        try:
            done = await store.expire(
                trades=own.trades_days * DAY, minutes=own.minutes_days * DAY, books=own.books_days * DAY
            )
            log.info("retention", **done)
        except StoreError as error:
            log.warning("retention failed; it is tried again in an hour", cause=str(error))
        await clock.sleep(HOUR // SECOND)


async def _report_health(bus: Bus) -> None:
    """One log line per change of a source's state."""
    known: dict[tuple[str, str], tuple[str, str]] = {}
    async for delivery in bus.subscribe(["health"]):
        health = delivery.message
        if isinstance(health, Health) and known.get((health.source, health.instrument)) != (
            health.state,
            health.detail,
        ):
            known[health.source, health.instrument] = (health.state, health.detail)
            report = log.info if health.state == "connected" else log.warning
            report(health.state, source=health.source, detail=health.detail)
