"""What a role is made of: collecting, engine, scanning and gateway, each wired around one bus and one store.

``pipeline.py`` puts all of them into one process, or one of them. A stage is prepared when its context opens; its
``works`` run once every stage of the process is, so that nobody talks before the others listen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog

from tapewick import registry, venue_edge
from tapewick.book_keeper import keep_books
from tapewick.clock import Clock
from tapewick.collectors import Collectors
from tapewick.engine.tape import Engine
from tapewick.errors import ConfigError, StoreError
from tapewick.model import partition_of
from tapewick.ownership import watch_owners
from tapewick.protocols import Bus, Store
from tapewick.repair import RepairLane
from tapewick.roles import EngineRole
from tapewick.scan_role import ScanRole
from tapewick.settings import Settings
from tapewick.timeframe import DAY, HOUR, SECOND
from tapewick.watches import spelled

if TYPE_CHECKING:
    from tapewick.leases import Leases
    from tapewick.market import Market
    from tapewick.sim.venue import SimVenue
    from tapewick.sources.venue_klines import VenueKlines
    from tapewick.verify import Verifier

__all__ = ["Base", "Shard", "Stage", "collecting", "engine", "engine_of", "gateway", "scanning"]

log = structlog.get_logger()

Shard: TypeAlias = tuple[int, int]
"""The ``i``-th of ``n`` parts, counted from 0: the partitions p with p % n = i."""
Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


@dataclass(kw_only=True)
class Base:
    """What all stages of a process stand on. ``leases``: who does what is settled between processes by them;
    None: this process does everything."""

    settings: Settings
    store: Store
    bus: Bus
    clock: Clock
    holder: str = ""
    leases: Leases | None = None
    shard: Shard | None = None

    @property
    def shared(self) -> bool:
        """Whether other processes may stand on the same bus and store."""
        return self.settings.bus.kind != "memory" and self.settings.store.kind != "duckdb"

    def owns(self, instrument: str) -> bool:
        """Whether ``instrument`` is of this process's shard."""
        if self.shard is None:
            return True
        number, count = self.shard
        return partition_of(instrument, self.settings.engine.partitions) % count == number

    def sole(self, name: str, work: Work) -> Work:
        """``work`` that runs while this process holds the lease ``name``, where there are leases."""
        return work if self.leases is None else partial(self.leases.guarded, name, work)


@dataclass(kw_only=True)
class Stage:
    """``works``: what runs from when the process is ready until it ends, by name. ``trouble`` tells why the stage is
    not ready, None while it is. ``url`` and ``grpc``: where clients find it. ``rest_url``: of the simulated venue."""

    works: list[tuple[str, Work]] = field(default_factory=list)
    trouble: Callable[[], str | None] = lambda: None
    url: str = ""
    grpc: str = ""
    rest_url: str = ""


def engine_of(settings: Settings) -> Engine:
    """The engine as the settings want it, without any tape."""
    own = settings.engine
    return Engine(
        lateness=own.lateness_ms * 1_000_000,
        grace=own.final_grace_s * SECOND,
        attempts=settings.repair.max_attempts,
    )


@asynccontextmanager
async def collecting(
    base: Base, *, ids: Sequence[str] = (), demo: bool = False, history: bool = False
) -> AsyncIterator[Stage]:
    """Sources and repair. ``ids``: what to collect, none: what the settings name. ``demo``: from the simulated venue,
    which runs behind it, with its past if ``history``. Raises ``ConfigError``."""
    settings = base.settings
    async with AsyncExitStack() as stack:
        recorder = venue_edge.recorder(settings)
        if recorder is not None:
            await stack.enter_async_context(recorder)
        venue = await stack.enter_async_context(venue_edge.venue(settings)) if demo else None
        if venue is not None:
            await venue_edge.continue_market(settings, base.store, venue)
        symbols, rest_url = _symbols(base, ids, venue), "" if venue is None else venue.rest_url
        make = partial(venue_edge.source, settings, recorder=recorder)
        if venue is not None:
            sources = [venue_edge.simulated_source(settings, venue, history=history, recorder=recorder)]
        else:
            sources = [make(name, wanted) for name, wanted in symbols.items() if wanted]
        lane = RepairLane((), base.bus, clock=base.clock, leases=base.leases)
        joined = partial(_join, settings, lane, stack, rest_url=rest_url)
        for name in symbols:
            await joined(name)
        fixed = [f"{name}:{symbol}" for name, wanted in symbols.items() for symbol in wanted]
        own = partial(Collectors, make=make, fixed=fixed, joined=joined, holder=base.holder, owns=base.owns)
        collectors = own(base.bus, base.store, base.clock, sources)
        yield Stage(
            works=[("repair", lane.run), ("collect", collectors.run)],
            trouble=lambda: base.bus.trouble or collectors.trouble,
            rest_url=rest_url,
        )


async def _join(settings: Settings, lane: RepairLane, stack: AsyncExitStack, name: str, *, rest_url: str) -> None:
    """Have the tapes of a venue repaired from now on, where it can be asked."""
    repairer = venue_edge.repairer(settings, name, rest_url=rest_url) if settings.repair.enabled else None
    if repairer is not None:
        lane.add(await stack.enter_async_context(repairer))


def _symbols(base: Base, ids: Sequence[str], venue: SimVenue | None) -> dict[str, list[str]]:
    """What to collect, by venue; a venue with nothing for this shard is there too: its tapes may want repair."""
    settings = base.settings
    if venue is not None:
        return {"sim": list(settings.sim.symbols)}
    symbols: defaultdict[str, list[str]] = defaultdict(list)
    for id in ids or [f"binance:{symbol}" for symbol in settings.binance.symbols]:
        name, colon, symbol = id.partition(":")
        if not colon or not symbol:
            raise ConfigError(f"{id!r} is no instrument: write venue:SYMBOL, for example binance:BTCUSDT")
        symbols[name] += [symbol] if base.owns(spelled(id)) else []
    return symbols


@asynccontextmanager
async def engine(base: Base, *, rest_url: str = "") -> AsyncIterator[Stage]:
    """The engine, and what looks after the store beside it: books, retention, comparing with the venues.

    ``rest_url``: of the simulated venue, where this process has it.
    """
    settings, bus, store, clock = base.settings, base.bus, base.store, base.clock
    interval = settings.engine.commit_interval_ms / 1000
    role = EngineRole(
        bus,
        store,
        engine_of(settings),
        clock,
        interval=interval,
        leases=base.leases if base.shard is None else None,
        shard=base.shard,
        partitions=settings.engine.partitions,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(role)
        works: list[tuple[str, Work]] = [("engine", role.failed)]
        books = settings.books
        if books.store_interval_s:
            keep = partial(keep_books, bus, store, clock, interval=books.store_interval_s, levels=books.store_levels)
            works.append(("books", base.sole("books", keep)))
        if any(settings.retention):
            works.append(("retention", base.sole("retention", partial(_expire, settings, store, clock))))
        if settings.verify.interval_s:
            works.append(("verify", base.sole("verify", await _verifying(base, rest_url))))
        yield Stage(works=works, trouble=lambda: role.trouble or bus.trouble)


@asynccontextmanager
async def scanning(base: Base, *, alone: bool = False) -> AsyncIterator[Stage]:
    """Scanners of the contracts that the settings name; none where they name none.

    ``alone``: a chain that contradicts what is stored of it ends the process; else it is told as trouble.
    """
    settings = base.settings
    if not settings.chain.contracts:
        yield Stage()
        return
    async with AsyncExitStack() as stack:
        leases = base.leases
        if leases is None:  # nobody else stands on this store, but it wants to see the lease all the same
            leases = await stack.enter_async_context(registry.leases(settings, base.store, base.holder))
        rpc = await stack.enter_async_context(registry.rpc(settings))
        store = registry.scan_store(base.store)
        make = partial(registry.scanner, settings, rpc, store, leases.holder, base.clock)
        own = partial(ScanRole, make=make, bus=base.bus, store=store, leases=leases, clock=base.clock, last=alone)
        roles = [own(component) for component in registry.components(settings)]

        def trouble() -> str | None:
            found = next((told for role in roles if (told := role.trouble) is not None), base.bus.trouble)
            return found or leases.trouble

        yield Stage(works=[(f"scan {role.component}", role.run) for role in roles], trouble=trouble)


@asynccontextmanager
async def gateway(base: Base, trouble: Iterable[Callable[[], str | None]] = ()) -> AsyncIterator[Stage]:
    """The client surfaces. ``trouble``: of the process's other stages, for readiness."""
    settings = base.settings
    others = tuple(trouble)

    def cause() -> str | None:
        found = next((found for one in others if (found := one()) is not None), base.bus.trouble)
        return found or getattr(base.store, "trouble", None)  # an embedded store answers as long as its process does

    async with AsyncExitStack() as stack:
        market: Market = await stack.enter_async_context(registry.market(base.bus, base.store, base.clock))
        http = await stack.enter_async_context(registry.gateway(settings, market, cause))
        grpc = ""
        if settings.grpc.enabled:
            grpc = (await stack.enter_async_context(registry.grpc_gateway(settings, market, cause))).address
        works: list[tuple[str, Work]] = []
        if base.shared:
            watch = partial(watch_owners, count=settings.engine.partitions)
            works.append(("owners", partial(watch, base.store, base.bus, base.clock)))
        yield Stage(works=works, trouble=cause, url=http.url, grpc=grpc)


async def _verifying(base: Base, rest_url: str) -> Work:
    """What compares candles with those of every venue there are instruments of. Raises ``ConfigError``."""
    settings, clock = base.settings, base.clock
    market = registry.market(base.bus, base.store, clock)  # never opened: only the past is looked at
    want = partial(base.bus.offer, "repairs")

    def verifier(venues: Mapping[str, VenueKlines]) -> Verifier:
        return venue_edge.verifier(settings, market, venues, clock, want=want)

    async def verify() -> None:
        klines: dict[str, VenueKlines] = {}
        own = verifier(klines)
        async with AsyncExitStack() as stack:
            while True:
                await clock.sleep(settings.verify.interval_s)
                fresh = {instrument.venue for instrument in await market.instruments()} - klines.keys()
                venues = sorted(fresh & {"sim"} if rest_url else fresh)
                for name, venue in venue_edge.klines(settings, venues, rest_url=rest_url).items():
                    klines[name] = await stack.enter_async_context(venue)
                await own.check_all()

    known = venue_edge.klines(settings, ["binance"])
    async with known["binance"]:
        verifier(known)  # refuses timeframes that cannot be compared
    return verify


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
