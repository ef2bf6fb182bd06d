"""The gRPC port: ``tapewick.v1.MarketData``, the legacy ``aggregator.AggregatorService``, health, reflection.

Needs the extra ``grpc``. The server runs in our own loop; messages of streams are encoded by the hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tapewick.errors import (
    ApiError,
    ConfigError,
    ModelError,
    NotFound,
    StoreError,
    TooManyRequests,
    Unavailable,
)
from tapewick.gateways._address import Addresses
from tapewick.gateways._auth import Guard
from tapewick.gateways._grpc_auth import GuardInterceptor, token_in
from tapewick.gateways._grpc_candlesticks import Candlesticks
from tapewick.gateways._grpc_connections import Connections
from tapewick.gateways._grpc_limits import Callers, later
from tapewick.gateways._grpc_query import Queries
from tapewick.gateways._grpc_stream import End, Sink, Stream
from tapewick.gateways._limiter import Limiter
from tapewick.gateways._quota import Quota
from tapewick.hub import Hub
from tapewick.market import Market
from tapewick.outbox import Limits, Outbox
from tapewick.v1 import aggregator_pb2, service_pb2

__all__ = ["GrpcGateway", "Tls"]

log = structlog.get_logger()

NATIVE, LEGACY = "tapewick.v1.MarketData", "aggregator.AggregatorService"
MOST_BYTES = 4 << 20  # of a message; clients accept no more unless told to
MOST_REQUEST = 65_536
DEADLINE = 10.0  # seconds a unary call may take whose client sets none
LOOK = 0.5  # seconds between looks at the readiness, and at who is connected
THRIFT = 50  # times as long as a look at who is connected takes, until the next
MOST_CONNECTIONS = "grpc.max_allowed_incoming_connections"
OPTIONS = [
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.max_receive_message_length", MOST_REQUEST),
    # The defaults refuse clients that ping more often than every 5 min, and find dead ones after 2 h.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # So that load balancers can spread clients anew; gRPC adds a jitter of 10 %.
    ("grpc.max_connection_age_ms", 1_800_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files. With ``client_ca`` only clients with a certificate of that authority come in."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""

    def credentials(self) -> grpc.ServerCredentials | None:
        """None without TLS. Raises ``ConfigError`` for files that cannot be read, or one without the other."""
        if not (self.cert or self.key or self.client_ca):
            return None
        if not self.cert or not self.key:
            raise ConfigError("TLS needs both a certificate and its key: set grpc.tls_cert and grpc.tls_key")
        try:
            pair = Path(self.key).read_bytes(), Path(self.cert).read_bytes()
            authority = Path(self.client_ca).read_bytes() if self.client_ca else None
        except OSError as error:
            raise ConfigError(f"cannot read a file of grpc.tls_*: {error}") from None
        return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


class GrpcGateway:
    """Serves ``market`` while its context is open.

    ``port`` 0 lets the system choose: ``address`` tells. ``readiness`` returns why the process is not ready,
    None while it is. ``venue``: whose instruments the legacy service sends; empty: Binance's. ``drain``: seconds
    calls have to end when the gateway stops. ``tokens``: see ``Guard``; ``guard``: one instead. ``heavy_requests``:
    costly calls that one address may have under way at once; ``push_per_address``: streams; ``requests_per_min``:
    calls of one key, or address without a key, 0: any number; ``trusted_proxies``: see ``Addresses``.
    ``max_connections``: TCP connections of all clients; ``connections_per_address``: of one of them. Raises
    ``ConfigError``.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 50_051,
        readiness: Callable[[], str | None] = lambda: None,
        limits: Limits | None = None,
        drain: float = 2.0,
        venue: str = "",
        tls: Tls | None = None,
        tokens: Collection[str] = (),
        guard: Guard | None = None,
        heavy_requests: int = 8,
        push_per_address: int = 16_384,
        requests_per_min: int = 0,
        trusted_proxies: Collection[str] = (),
        max_connections: int = 16_384,
        connections_per_address: int = 16_384,
    ) -> None:
        self._market, self._host, self._port = market, host, port
        self._readiness, self._drain, self._tls = readiness, drain, tls or Tls()
        self._limits, self._guard = limits or Limits(), guard or Guard(tokens)
        self._addresses = Addresses(trusted_proxies)
        self._connections = max_connections, connections_per_address
        self._callers = Callers(self._addresses, Limiter(requests_per_min, self._guard, market.now))
        self.quota = Quota(heavy_requests, 64)
        self.push_quota = Quota(push_per_address, what="push connections", setting="server.push_per_address")
        self._hub = Hub(market, self._limits, "grpc")
        self._queries = Queries(market)
        self._candlesticks = Candlesticks(market, venue=venue, queue_bytes=self._limits.queue_bytes)
        self._streams: set[Stream] = set()
        self._sinks: set[Sink] = set()
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._watching: list[asyncio.Task[None]] = []
        self.address = ""

    @property
    def calls(self) -> int:
        """Streams open now."""
        return len(self._sinks)

    @property
    def sinks(self) -> frozenset[Sink]:
        """What waits to be written to each of them."""
        return frozenset(self._sinks)

    @property
    def connections(self) -> frozenset[Outbox]:
        """The native ones."""
        return frozenset(self._hub.outboxes)

    @property
    def channels(self) -> list[str]:
        """Channels somebody follows."""
        return self._hub.channels

    @property
    def followed(self) -> dict[str, str]:
        """The instrument the legacy service sends for each symbol."""
        return self._candlesticks.ids

    async def __aenter__(self) -> Self:
        checks = () if self._guard.open else (GuardInterceptor(self._guard),)
        server = self._server = grpc.aio.server(
            interceptors=checks, options=[*OPTIONS, (MOST_CONNECTIONS, self._connections[0])]
        )
        self._add_services(server)
        host = f"[{self._host}]" if ":" in self._host else self._host
        credentials, wanted = self._tls.credentials(), f"{host}:{self._port}"
        try:
            port = server.add_secure_port(wanted, credentials) if credentials else server.add_insecure_port(wanted)
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {wanted} for gRPC: choose another grpc.port (0 takes any free one), stop the other "
                f"server, or check grpc.tls_cert and grpc.tls_key ({error})"
            ) from None
        self.address = f"{host}:{port}"
        await self._guard.start()
        await self._candlesticks.start()
        await self._tell_health()
        await server.start()
        connections = Connections(port, self._connections[1], self._addresses)
        self._watching = [
            asyncio.create_task(self._watch_health(), name="grpc health"),
            asyncio.create_task(self._watch_connections(connections), name="grpc connections"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Not serving any more; streams get what waits and end UNAVAILABLE, calls finish, within ``drain``."""
        assert self._server is not None
        for task in self._watching:
            task.cancel()
        await self._health.enter_graceful_shutdown()
        for stream in list(self._streams):
            stream.going_away()
        for sink in list(self._sinks):
            sink.end(End(grpc.StatusCode.UNAVAILABLE, "the server stops; reconnect"), flush=True)
        await self._server.stop(self._drain)
        await self._candlesticks.stop()
        await self._guard.stop()

    def _add_services(self, server: grpc.aio.Server) -> None:
        methods: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(call, self.quota, self._callers), read, lambda message: message.SerializeToString()
            )
            for name, (read, call) in self._queries.calls().items()
        }
        methods["Subscribe"] = grpc.stream_stream_rpc_method_handler(
            self._subscribe, service_pb2.SubscribeRequest.FromString
        )
        legacy = grpc.unary_stream_rpc_method_handler(self._stream, aggregator_pb2.StreamRequest.FromString)
        handlers = [
            grpc.method_handlers_generic_handler(NATIVE, methods),
            grpc.method_handlers_generic_handler(LEGACY, {"StreamCandlesticks": legacy}),
        ]
        server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((NATIVE, LEGACY, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    # -- streams -------------------------------------------------------------------------------

    async def _subscribe(self, requests: object, context: Any) -> None:
        await self._placed(context, self._serve)

    async def _stream(self, request: aggregator_pb2.StreamRequest, context: Any) -> None:
        await self._placed(context, self._broadcast)

    async def _placed(self, context: Any, serve: Callable[[Any], Awaitable[End]]) -> None:
        """``serve`` the call, unless its address or key has as many as it may."""
        try:
            seat = self._guard.seat(self._guard.check(token_in(context.invocation_metadata())))
            slot = self.push_quota.slot(self._callers.admit(context))
        except TooManyRequests as error:
            end = later(error)
        else:
            with slot, seat or nullcontext():
                end = await serve(context)
        await _finish(context, end)

    async def _serve(self, context: Any) -> End:
        stream = Stream(self._market, self._hub)
        self._streams.add(stream)
        self._sinks.add(stream.sink)
        try:
            return await stream.serve(context)
        finally:
            self._streams.discard(stream)
            self._sinks.discard(stream.sink)

    async def _broadcast(self, context: Any) -> End:
        sink = Sink()
        self._sinks.add(sink)
        self._candlesticks.enter(sink)
        try:
            await context.send_initial_metadata(())  # the client knows that from now on it misses nothing
            return await sink.run(context)
        finally:
            self._candlesticks.leave(sink)
            self._sinks.discard(sink)

    # -- health --------------------------------------------------------------------------------

    async def _tell_health(self) -> None:
        ready = (self._readiness() or self._market.trouble) is None
        kinds = health_pb2.HealthCheckResponse
        for service in ("", NATIVE, LEGACY):
            await self._health.set(service, kinds.SERVING if ready else kinds.NOT_SERVING)

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self._tell_health()

    async def _watch_connections(self, connections: Connections) -> None:
        took, now = 0.0, asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(LOOK, took * THRIFT))  # with very many sockets, other ports' too, a look is dear
            began = now()
            await asyncio.to_thread(connections.look)
            took = now() - began


def _answering(
    call: Callable[[Any], Coroutine[Any, Any, Any]], quota: Quota, callers: Callers
) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]:
    """A unary call's handler: a place if it is costly, a deadline, and errors as statuses."""

    async def answer(request: Any, context: Any) -> Any:
        left = context.time_remaining()
        try:
            with quota.for_rows(callers.admit(context), getattr(request, "limit", 0)):
                async with asyncio.timeout(DEADLINE if left is None else left):
                    return await call(request)
        except TimeoutError:
            end = End(grpc.StatusCode.DEADLINE_EXCEEDED, "it took too long; ask for less")
        except (TooManyRequests, Unavailable) as error:
            end = later(error)
        except NotFound as error:
            end = End(grpc.StatusCode.NOT_FOUND, str(error))
        except (ApiError, ModelError) as error:
            end = End(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except StoreError as error:
            log.error("a gRPC call failed in the store", cause=str(error))
            end = End(grpc.StatusCode.UNAVAILABLE, "the store does not answer; try again")
        await _finish(context, end)

    return answer


async def _finish(context: Any, end: End) -> None:
    """Set the status; returns for OK only."""
    if end.code != grpc.StatusCode.OK:
        await context.abort(end.code, end.details, end.trailers)
