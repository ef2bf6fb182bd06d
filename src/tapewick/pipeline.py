"""The processes: all roles in one, one role alone, or just enough to bring a file into the store.

``serve`` runs collect, engine, scan and gateway around one bus and one store, ``run`` one of them; both are made of
``stages``. ``feed`` runs collect and engine until a file source ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from tapewick import registry, stages, venue_edge
from tapewick.clock import RealClock
from tapewick.engine_role import GROUP
from tapewick.errors import StoreBusy
from tapewick.granularity import OneGranularity
from tapewick.ownership import check_partitions, declared, partitions_name, shard_name
from tapewick.protocols import Bus, Source, Store
from tapewick.repair import RepairLane
from tapewick.roles import EngineRole, collect
from tapewick.settings import Settings
from tapewick.stages import Base, Shard, Stage, engine_of

__all__ = ["Progress", "Report", "Role", "Standing", "feed", "repairing", "run", "serve"]

Role: TypeAlias = Literal["collect", "engine", "gateway", "scan"]

SWITCH = 0.0005  # seconds the store's thread may keep the interpreter from the loop; Python's 5 ms are felt by clients
YOUNG = (5_000, 20, 20)  # thousands of clients are many objects: looking through them all takes 0.1 s, so do it rarely
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


class Standing(NamedTuple):
    """As whom a role's process stands, and where clients, of other roles operators, find it: "" where nobody does."""

    holder: str
    url: str
    grpc: str


async def feed(settings: Settings, source: Source, *, progress: Callable[[Progress], None] | None = None) -> Report:
    """Bring all of a finite ``source`` into the store, committed.

    Raises what the source raises once everything before it has been committed, ``StoreBusy`` at once where
    engines run on the store, and ``ConfigError`` for aggregates of a tape of single trades, or the other way round.
    """
    started = time.monotonic()
    engine = engine_of(settings)
    interval = settings.engine.commit_interval_ms / 1000
    async with AsyncExitStack() as stack:
        store: Store = await stack.enter_async_context(registry.store(settings))
        await _refuse_company(store)
        bus: Bus = await stack.enter_async_context(registry.bus(settings))
        # One shard: where another engine takes the tapes over this ends, instead of reporting what is not stored.
        role = EngineRole(bus, store, engine, RealClock(), interval=interval, provisional=False, shard=(0, 1))
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
            await _unless_failed(_drained(OneGranularity(source, store), bus), role)
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


async def _refuse_company(store: Store) -> None:
    """Raises ``StoreBusy`` where engines share the store: they and this process would take tapes from each other."""
    member = f"{GROUP}/member/"
    if names := [name for name in await store.lease(_holder("feed"), (), 1.0) if name.startswith(member)]:
        raise StoreBusy(
            f"an engine runs on this store ({names[0].removeprefix(member)}): stop it first, or let a running gateway "
            "do the work (--url, where the command has it)"
        )


async def _drained(source: Source, bus: Bus) -> None:
    try:
        await collect(source, bus)
    finally:
        await bus.settled("trades")


async def _unless_failed(work: Coroutine[None, None, None], role: EngineRole) -> None:
    """Run ``work`` to its end, or raise what ended the engine first."""
    tasks = [asyncio.create_task(work), asyncio.create_task(role.failed())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if task in done:
            return await task


async def serve(
    settings: Settings, *, demo: bool, on_ready: Callable[[str, str], None], source_ids: Sequence[str] = ()
) -> int:
    """Run all roles until a signal; the exit code (130 SIGINT, 143 SIGTERM, after draining).

    ``on_ready`` is told the page's URL and the gRPC address ("": there is none). ``demo`` collects
    from the simulated venue, else ``source_ids`` (``venue:SYMBOL``) or the configured symbols. Raises
    ``ConfigError`` for a port in use or another simulated market on the tape, ``StoreBusy`` for a data folder in use.
    """
    async with _base(settings, "serve") as (base, stop, stack):
        enter = stack.enter_async_context
        first_run = not any(instrument.simulated for instrument in await base.store.instruments())
        # Collecting before the engine: its repair lane hears what that wants at its start.
        collecting = await enter(stages.collecting(base, ids=source_ids, demo=demo, history=first_run))
        engine = await enter(stages.engine(base, rest_url=collecting.rest_url))
        scanning = await enter(stages.scanning(base))
        gateway = await enter(stages.gateway(base, [engine.trouble, scanning.trouble]))
        await _work([collecting, engine, scanning, gateway], stop, stack, partial(on_ready, gateway.url, gateway.grpc))
    return stop.result()


async def run(
    settings: Settings,
    role: Role,
    *,
    on_ready: Callable[[Standing], None],
    source_ids: Sequence[str] = (),
    shard: Shard | None = None,
) -> int:
    """Run one role until a signal; the exit code as that of ``serve``.

    ``on_ready`` is told where and as whom it stands. ``source_ids``: what a collector collects, none: what the
    settings name. ``shard``: the part of the instruments or partitions that is this process's.
    """
    async with _base(settings, role, shard) as (base, stop, stack):
        enter = stack.enter_async_context
        if role == "collect":
            stage = await enter(stages.collecting(base, ids=source_ids))
        elif role == "engine":
            stage = await enter(stages.engine(base))
        elif role == "scan":
            stage = await enter(stages.scanning(base, alone=True))
        else:
            stage = await enter(stages.gateway(base))
        status = ""
        if role != "gateway" and settings.admin.enabled:
            status = (await enter(registry.status_gateway(settings, stage.trouble, base.clock))).url
        ready = partial(on_ready, Standing(base.holder, stage.url or status, stage.grpc))
        await _work([stage], stop, stack, ready)
    return stop.result()


@asynccontextmanager
async def _base(
    settings: Settings, role: str, shard: Shard | None = None
) -> AsyncIterator[tuple[Base, asyncio.Future[int], AsyncExitStack]]:
    """Store and bus, what a signal resolves, and a stack that is unwound before they close."""
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    sys.setswitchinterval(SWITCH)
    gc.set_threshold(*YOUNG)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(registry.store(settings))
        bus = await stack.enter_async_context(registry.bus(settings))
        base = Base(settings=settings, store=store, bus=bus, clock=RealClock(), holder=_holder(role), shard=shard)
        if base.shared:
            # Others may stand on the same bus and store, and do the same.
            await check_partitions(store, settings.engine.partitions)
            if role != "gateway":
                base.leases = await stack.enter_async_context(registry.leases(settings, store, base.holder))
                names = [partitions_name(settings.engine.partitions, base.holder)]
                names += [shard_name(shard, base.holder)] if shard is not None and role == "engine" else []
                await stack.enter_async_context(declared(base.leases, names))
        yield base, stop, stack


def _holder(role: str) -> str:
    """A name no other process has."""
    return f"{role}-{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(3)}"


async def _work(
    all_stages: Sequence[Stage], stop: asyncio.Future[int], stack: AsyncExitStack, ready: Callable[[], None]
) -> None:
    """Run what the stages do until a signal; raises what ends any of it.

    Until here a signal cancels what is being opened, which may hang; from here on it lets the stages drain.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _resolve, stop, 128 + number)
    tasks = [asyncio.create_task(work(), name=name) for stage in all_stages for name, work in stage.works]
    if tasks:
        stack.push_async_callback(_cancelled, tasks)
    ready()
    watched: set[asyncio.Future[Any]] = {stop, *tasks}
    while not stop.done():  # work that has ended leaves the rest, and what is stored, to be served
        done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


@asynccontextmanager
async def repairing(
    settings: Settings, store: Store, bus: Bus, venues: Mapping[str, Literal["raw", "agg"]]
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Engine and repair lane on an open store and bus, without any source: what is missing gets fetched.

    ``venues``: what the tapes of each hold. Yields the tasks, of which none ends but by failing.
    """
    found = (venue_edge.repairer(settings, venue, granularity=kind) for venue, kind in venues.items())
    interval = settings.engine.commit_interval_ms / 1000
    async with AsyncExitStack() as stack:
        await _refuse_company(store)
        repairers = [await stack.enter_async_context(one) for one in found if one is not None]
        lane = RepairLane(repairers, bus, cap=5.0)
        role = EngineRole(
            bus, store, engine_of(settings), RealClock(), interval=interval, provisional=False, shard=(0, 1)
        )
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
