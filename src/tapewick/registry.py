"""Name to implementation: what ``store.kind``, ``bus.kind`` and ``--source`` may say, and how each is made.

Values are ``module:Class``, imported when first asked for. Packages add theirs through the
entry points ``tapewick.sources``, ``tapewick.buses`` and ``tapewick.stores``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tapewick.config import closest
from tapewick.errors import ConfigError, MissingExtra
from tapewick.settings import Settings

if TYPE_CHECKING:
    from tapewick.answers import Answers
    from tapewick.chain.scanner import Scanner
    from tapewick.clock import Clock
    from tapewick.gateways._auth import Guard
    from tapewick.gateways.grpc import GrpcGateway
    from tapewick.gateways.http import HttpGateway
    from tapewick.gateways.status import StatusGateway
    from tapewick.keys import KeyFile
    from tapewick.leases import Leases
    from tapewick.market import Market
    from tapewick.net.jsonrpc import JsonRpc
    from tapewick.protocols import Bus, ScanStore, Store
    from tapewick.scans import Announcement
    from tapewick.stores._postgres_keys import KeyTable

__all__ = [
    "BUILT_IN",
    "answers",
    "bus",
    "components",
    "find",
    "gateway",
    "grpc_gateway",
    "guard",
    "keys",
    "leases",
    "market",
    "names",
    "rpc",
    "scan_store",
    "scanner",
    "status_gateway",
    "store",
]

Kind = Literal["sources", "buses", "stores"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "sources": {
        "binance": "tapewick.sources.binance:BinanceSource",
        "ccxt": "tapewick.sources.ccxt:CcxtSource",
    },
    "buses": {
        "memory": "tapewick.buses.memory:MemoryBus",
        "redis": "tapewick.buses.redis:RedisBus",
        "nats": "tapewick.buses.nats:NatsBus",
        "kafka": "tapewick.buses.kafka:KafkaBus",
    },
    "stores": {
        "duckdb": "tapewick.stores.duckdb:DuckDBStore",
        "postgres": "tapewick.stores.postgres:PostgresStore",
    },
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
    """The configured store, not yet open. Raises ``MissingExtra`` where its driver is not installed."""
    own = settings.store
    cls = find("stores", own.kind)
    if own.kind == "postgres":
        servers = {"read_dsn": own.read_dsn, "migrate_dsn": own.migrate_dsn}
        shared: Store = cls(own.dsn, **servers, pool_min=own.pool_min, pool_max=own.pool_max, read_only=read_only)
        return shared
    made: Store = cls(settings.data.dir, read_only=read_only, memory_limit=own.memory_limit)
    return made


def leases(settings: Settings, store: Store, holder: str) -> Leases:
    """The leases of a process called ``holder``, not yet open."""
    from tapewick.leases import Leases

    return Leases(store, holder=holder, ttl=float(settings.engine.lease_s))


def bus(settings: Settings) -> Bus:
    """The configured bus, not yet open. Raises ``MissingExtra`` where its driver is not installed."""
    own, kind = settings.bus, settings.bus.kind
    options: dict[str, Any] = {"max_bytes": own.max_bytes, "partitions": settings.engine.partitions}
    if kind in ("redis", "nats", "kafka"):
        options |= {"name": own.name, **_server_options(settings, kind)}
    made: Bus = find("buses", kind)(**options)
    return made


def _server_options(settings: Settings, kind: str) -> dict[str, Any]:
    """What a bus is told of its server."""
    from tapewick.buses._broker import Tls

    if kind == "redis":
        redis = settings.redis
        tls = Tls(redis.tls_ca, redis.tls_cert, redis.tls_key)
        return {"url": redis.url, "maxlen": redis.maxlen, "keep": redis.keep_s, "tls": tls}
    if kind == "nats":
        nats = settings.nats
        return {
            "url": nats.url,
            "stream_bytes": nats.stream_bytes,
            "max_age": nats.max_age_s,
            "dedupe": nats.dedupe_s,
            "replicas": nats.replicas,
            "credentials": nats.credentials,
            "tls": Tls(nats.tls_ca, nats.tls_cert, nats.tls_key),
        }
    kafka = settings.kafka
    return {
        "brokers": kafka.brokers,
        "replication": kafka.replication,
        "retention": kafka.retention_s,
        "username": kafka.username,
        "password": kafka.password,
        "mechanism": kafka.mechanism,
        "encrypt": kafka.tls,
        "tls": Tls(kafka.tls_ca, kafka.tls_cert, kafka.tls_key),
    }


def rpc(settings: Settings) -> JsonRpc:
    """The chain's nodes, not yet asked."""
    from tapewick.net.jsonrpc import JsonRpc

    return JsonRpc(settings.chain.rpc_urls, chain_id=settings.chain.id)


def components(settings: Settings) -> list[str]:
    """The name of each contract's scanner."""
    own = settings.chain
    return [f"{own.id}/{address}" for address in dict.fromkeys(one.lower() for one in own.contracts)]


def scan_store(store: Store) -> ScanStore:
    """The part of a store that keeps what scanners find. Raises ``ConfigError`` for one that has none."""
    from tapewick.protocols import ScanStore

    if not isinstance(store, ScanStore):
        raise ConfigError(f"{type(store).__name__} keeps no orders: set store.kind = postgres or duckdb")
    return store


def scanner(
    settings: Settings,
    rpc: JsonRpc,
    store: ScanStore,
    holder: str,
    clock: Clock,
    component: str,
    announce: Callable[[Sequence[Announcement]], None],
) -> Scanner:
    """The scanner of a contract, not yet running; ``announce`` is called after each of its commits."""
    from tapewick.chain.scanner import Scanner

    own = settings.chain

    async def told(news: Sequence[Announcement]) -> None:
        announce(news)

    return Scanner(
        rpc,
        store,
        chain_id=own.id,
        contract=component.partition("/")[2],
        start=own.start_block if own.start_block >= 0 else None,
        confirmations=own.confirmations if own.confirmations >= 0 else None,
        depth=own.depth if own.depth >= 0 else None,
        poll=own.poll_s,
        span=own.span,
        holder=holder,
        clock=clock,
        announce=told,
    )


def market(bus: Bus, store: Store, clock: Clock) -> Market:
    """What gateways see of ``store`` and ``bus``, not yet open."""
    from tapewick.market import Market

    return Market(bus, store, clock)


def keys(settings: Settings) -> KeyFile | KeyTable:
    """The API keys: in the data folder, or where the store is shared in its database."""
    if settings.store.kind == "postgres":
        from tapewick.stores._postgres_keys import KeyTable

        return KeyTable(settings.store.dsn)
    from tapewick.keys import KeyFile

    return KeyFile(settings.data.dir)


def answers(settings: Settings) -> Answers:
    """What requests with an idempotency key were answered: kept where the API keys are."""
    from tapewick.answers import AnswerFile, Sheltered

    keep = settings.ingest.idempotency_h * 3600.0
    here = AnswerFile(settings.data.dir, keep)
    if settings.store.kind != "postgres":
        return here
    from tapewick.stores._postgres_answers import AnswerTable

    return Sheltered(AnswerTable(settings.store.dsn, keep), here)


def guard(settings: Settings) -> Guard:
    """Who may come in: the tokens of the settings, and the stored keys."""
    from tapewick.gateways._auth import Guard

    own = settings.server
    return Guard(
        own.tokens,
        keys(settings),
        required=own.require_keys,
        push_per_key=own.push_per_key,
        local_admin=own.local_admin,
    )


def gateway(settings: Settings, market: Market, trouble: Callable[[], str | None]) -> HttpGateway:
    """The public port; ``trouble`` tells why the process is not ready, None while it is."""
    from tapewick.gateways.binance import Options, Rules
    from tapewick.gateways.http import Admin, HttpGateway
    from tapewick.gateways.ingest import Options as IngestOptions

    own, binance = settings.server, settings.binance_gateway._asdict()
    farewell = binance.pop("shutdown_event")
    return HttpGateway(
        market,
        host=own.host,
        port=own.port,
        allowed_origins=own.allowed_origins,
        readiness=trouble,
        binance=Options(**binance, rules=Rules(farewell=farewell)),
        tls_cert=own.tls_cert,
        tls_key=own.tls_key,
        tls_client_ca=own.tls_client_ca,
        heavy_requests=own.heavy_requests,
        push_per_address=own.push_per_address,
        guard=guard(settings),
        ingest=IngestOptions(
            Path(settings.data.dir),
            *settings.ingest[:6],
            spool_bytes=settings.ingest.spool_bytes,
            answers=answers(settings),
        ),
        ws_deflate=own.ws_deflate,
        connections_per_address=own.connections_per_address,
        requests_per_min=own.requests_per_min,
        trusted_proxies=own.trusted_proxies,
        admin=Admin(settings.admin.host, settings.admin.port) if settings.admin.enabled else None,
    )


def status_gateway(settings: Settings, trouble: Callable[[], str | None], clock: Clock) -> StatusGateway:
    """The port of a process without clients, at the address of section ``admin``; ``trouble`` as for ``gateway``."""
    from tapewick.gateways._port import Tls
    from tapewick.gateways.status import StatusGateway

    own, ours = settings.admin, settings.server
    tls = Tls(ours.tls_cert, ours.tls_key, ours.tls_client_ca)
    return StatusGateway(trouble, guard(settings), clock, host=own.host, port=own.port, tls=tls)


def grpc_gateway(settings: Settings, market: Market, trouble: Callable[[], str | None]) -> GrpcGateway:
    """The gRPC port; ``trouble`` as for ``gateway``. Raises ``MissingExtra`` where its packages are not installed."""
    try:
        for package in ("grpc", "grpc_health.v1.health", "grpc_reflection.v1alpha.reflection", "google.protobuf"):
            import_module(package)
    except ImportError:
        raise MissingExtra("gRPC (setting grpc.enabled)", "grpc") from None
    from tapewick.gateways.grpc import GrpcGateway, Tls

    own = settings.grpc
    return GrpcGateway(
        market,
        host=own.host,
        port=own.port,
        readiness=trouble,
        venue=own.venue,
        tls=Tls(cert=own.tls_cert, key=own.tls_key, client_ca=own.tls_client_ca),
        guard=guard(settings),
        heavy_requests=settings.server.heavy_requests,
        push_per_address=settings.server.push_per_address,
        requests_per_min=settings.server.requests_per_min,
        trusted_proxies=settings.server.trusted_proxies,
        max_connections=own.max_connections,
        connections_per_address=settings.server.connections_per_address,
    )
