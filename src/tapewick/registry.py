"""Name to implementation: what ``store.kind``, ``bus.kind`` and ``--source`` may say, and how each is made.

Values are ``module:Class``, imported when first asked for. Packages add theirs through the
entry points ``tapewick.sources``, ``tapewick.buses`` and ``tapewick.stores``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from tapewick.config import Settings, closest
from tapewick.errors import ConfigError

if TYPE_CHECKING:
    from tapewick.clock import Clock
    from tapewick.gateways.http import HttpGateway
    from tapewick.market import Market
    from tapewick.protocols import Bus, Source, Store
    from tapewick.sim.venue import SimVenue

__all__ = ["BUILT_IN", "bus", "find", "gateway", "market", "names", "simulated_source", "source", "store", "venue"]

SIM_ORIGIN = 1_767_225_600_000  # 2026-01-01: fixed, so that a restarted demo continues its tape
SIM_HISTORY_MS = 6 * 3_600_000  # what a new demo folder starts with
Kind = Literal["sources", "buses", "stores"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "sources": {"binance": "tapewick.sources.binance:BinanceSource"},
    "buses": {"memory": "tapewick.buses.memory:MemoryBus"},
    "stores": {"duckdb": "tapewick.stores.duckdb:DuckDBStore"},
}


def names(kind: Kind) -> list[str]:
    """Every name that ``find`` knows."""
    return sorted({*BUILT_IN[kind], *(point.name for point in entry_points(group=f"tapewick.{kind}"))})


def find(kind: Kind, name: str) -> Any:
    """The class called ``name``. Raises ``ConfigError`` when there is none, with the nearest name."""
    if (built_in := BUILT_IN[kind].get(name)) is not None:
        module, _, attribute = built_in.partition(":")
        return getattr(import_module(module), attribute)
    for point in entry_points(group=f"tapewick.{kind}", name=name):
        return point.load()
    raise ConfigError(f"{name!r} is none of the {kind} ({', '.join(names(kind))}){closest(name, names(kind))}")


def store(settings: Settings, *, read_only: bool = False) -> Store:
    """The configured store on the data folder, not yet open."""
    cls = find("stores", settings.store.kind)
    made: Store = cls(settings.data.dir, read_only=read_only, memory_limit=settings.store.memory_limit)
    return made


def bus(settings: Settings) -> Bus:
    """The configured bus, not yet open."""
    made: Bus = find("buses", settings.bus.kind)(max_bytes=settings.bus.max_bytes)
    return made


def market(bus: Bus, store: Store, clock: Clock) -> Market:
    """What gateways see of ``store`` and ``bus``, not yet open."""
    from tapewick.market import Market

    return Market(bus, store, clock)


def gateway(settings: Settings, market: Market, trouble: Callable[[], str | None]) -> HttpGateway:
    """The public port; ``trouble`` tells why the process is not ready, None while it is."""
    from tapewick.gateways.http import HttpGateway

    own = settings.server
    return HttpGateway(market, host=own.host, port=own.port, allowed_origins=own.allowed_origins, readiness=trouble)


def venue(settings: Settings) -> SimVenue:
    """The simulated venue, not yet listening."""
    from tapewick.sim.venue import SimVenue

    own = settings.sim
    return SimVenue(own.symbols, seed=own.seed, rate=own.rate, origin=SIM_ORIGIN)


def simulated_source(settings: Settings, venue: SimVenue, *, history: bool) -> Source:
    """The live source pointed at the simulated venue; its instruments are ``sim:…``.

    ``history``: begin with the venue's last hours, for a data folder that has none.
    """
    live: Source = find("sources", "binance")(
        settings.sim.symbols, venue="sim", rest_url=venue.rest_url, ws_url=venue.ws_url, retry_cap=1.0
    )
    if not history:
        return live
    from tapewick.sim.history import WithHistory

    return WithHistory(live, venue.markets(), now=venue.now(), start=venue.now() - SIM_HISTORY_MS)


def source(settings: Settings, venue: str, symbols: Sequence[str]) -> Source:
    """A live source for ``symbols`` of ``venue``. Raises ``ConfigError`` for an unknown venue or symbol."""
    own = settings.binance
    if venue.partition("-")[0] == "binance":
        made: Source = find("sources", "binance")(
            symbols, venue=venue, rest_url=own.rest_url or None, ws_url=own.ws_url or None, stream=own.stream
        )
        return made
    other: Source = find("sources", venue)(symbols)
    return other
