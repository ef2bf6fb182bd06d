"""The one public port: REST, documents, the web page, metrics, and WebSocket upgrades.

Litestar on uvicorn inside our own loop; upgrades leave uvicorn for picows (``_bridge.py``). The
listening socket is ours, so that the port is known, its errors are explained, and stalled
readers are not fed megabytes of old prices by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import uvicorn
from litestar import Litestar, Response, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from picows import WSUpgradeRequest

from tapewick import __version__, metrics
from tapewick.errors import ConfigError
from tapewick.gateways import _docs, _problem, _repair, export, rest, sse, static, stream, udf
from tapewick.gateways._auth import PUBLIC, Guard, route_guard
from tapewick.gateways._bridge import Answer as Upgrade
from tapewick.gateways._bridge import Bridge, Door, HttpProtocol, guarded
from tapewick.gateways._quota import Quota
from tapewick.gateways.binance import BinanceGateway, Options
from tapewick.gateways.ingest import IngestGateway
from tapewick.gateways.ingest import Options as IngestOptions
from tapewick.hub import Hub
from tapewick.market import Market
from tapewick.outbox import Limits, Outbox

__all__ = ["HttpGateway"]

NOTSENT_LOWAT = 16_384  # bytes the kernel takes ahead of the wire; without it up to 4 MB of stale prices
SECURITY = [
    # The hash is that of the one inline <style> in use, of the chart library's attribution logo
    # (web/src/test/theme.test.ts pins it to the library's version); scripts come from files only.
    (
        "content-security-policy",
        "default-src 'self'; style-src 'self' 'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]


_STATUS = {
    200: ResponseSpec(dict[str, Any], description="How it stands", media_type=rest.JSON, generate_examples=False),
    503: ResponseSpec(_problem.Problem, description="Why not", media_type=_problem.MEDIA_TYPE, generate_examples=False),
}
_METRICS = {200: ResponseSpec(str, description="The metrics", media_type=metrics.CONTENT_TYPE, generate_examples=False)}


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class HttpGateway:
    """Serves ``market`` on one port while its context is open.

    ``port`` 0 lets the system choose: ``url`` tells. ``readiness`` returns why the process is not
    ready, None while it is. ``allowed_origins``: other web origins that may call the API. ``drain``:
    seconds clients have to take what is queued when the gateway stops. ``binance``: what Binance clients
    are served. ``tls_cert``, ``tls_key``: PEM files; with them the port speaks TLS only.
    ``heavy_requests``: costly ones that one address may have under way at once; ``push_per_address``: WebSockets
    and event streams it may have open. ``tokens``: see ``Guard``. ``ws_deflate``: compress frames for WebSocket
    clients that offer it. ``guard``: instead of ``tokens``, with stored keys too; ``ingest``: what may be written,
    None: nothing. Raises ``ConfigError``.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        title: str = "tapewick",
        allowed_origins: Collection[str] = (),
        readiness: Callable[[], str | None] = lambda: None,
        limits: Limits | None = None,
        drain: float = 5.0,
        webapp: Path = static.WEBAPP,
        binance: Options | None = None,
        tls_cert: str = "",
        tls_key: str = "",
        heavy_requests: int = 8,
        push_per_address: int = 16_384,
        tokens: Collection[str] = (),
        ws_deflate: bool = False,
        guard: Guard | None = None,
        ingest: IngestOptions | None = None,
    ) -> None:
        self._market, self._host, self._port, self._title = market, host, port, title
        self._origins, self._readiness, self._drain = tuple(allowed_origins), readiness, drain
        self._hub = Hub(market, limits or Limits())
        self._webapp = webapp
        self.quota = Quota(heavy_requests, 64)
        self.push_quota = Quota(push_per_address, what="push connections", setting="server.push_per_address")
        self._guard, self._deflate = guard or Guard(tokens), ws_deflate
        self._ingest = None
        if ingest is not None:
            self._ingest = IngestGateway(market.intake(), self._guard, ingest, readiness, market.now)
        self._tls = tls_cert, tls_key
        wanted = binance or Options()
        self.binance = BinanceGateway(market, self._hub, wanted, self._origins) if wanted.enabled else None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.url = ""

    @property
    def connections(self) -> frozenset[Outbox]:
        """The push connections open now."""
        return frozenset(self._hub.outboxes)

    async def __aenter__(self) -> Self:
        application = self._application()
        listener = _listener(self._host, self._port)
        port = listener.getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)
        scheme = "https" if any(self._tls) else "http"
        self.url = f"{scheme}://{f'[{shown}]' if ':' in shown and '[' not in shown else shown}:{port}"
        config = uvicorn.Config(
            application,
            http=HttpProtocol,
            ws=partial(Bridge, self._door(), self.push_quota, self._hub.limits.frame_bytes, self._drain),  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=SECURITY,
            timeout_graceful_shutdown=max(1, round(self._drain)),
        )
        try:
            _load_tls(config, *self._tls)
        except BaseException:
            listener.close()
            raise
        server = self._server = _Server(config)
        self._serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        listening = asyncio.create_task(server.listening.wait())
        try:
            await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._serving.done():
            self._serving.result()
        if self.binance is not None:
            self.binance.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop accepting, tell WebSocket clients (1001), let answers finish within ``drain``."""
        assert self._server is not None and self._serving is not None
        self._server.should_exit = True
        await self._serving
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.transport.abort()
        if self.binance is not None:
            await self.binance.stop()
        if self._ingest is not None:
            await self._ingest.close()

    @property
    def _trouble(self) -> str | None:
        """Why the process is not ready; None while it is."""
        theirs = self.binance.trouble if self.binance is not None else None
        return self._readiness() or self._market.trouble or theirs

    def _door(self) -> Door:
        """Who may upgrade: to the native protocol, or to Binance's at its paths."""
        native = stream.door(self._market, self._hub, self._origins, self._guard, deflates=self._deflate)
        binance = self.binance
        theirs = native if binance is None else guarded(binance.door, self._guard)

        def answer(request: WSUpgradeRequest) -> Upgrade:
            path = request.path.decode("latin-1").partition("?")[0]
            return theirs(request) if binance is not None and binance.owns(path) else native(request)

        return answer

    def _application(self) -> Litestar:
        app = Litestar(
            [
                rest.router(),
                export.router(),
                udf.router(),
                sse.handler(self._market, self._hub, self._origins, self.push_quota),
                _repair.router(),
                *self._own_routes(),
                *([] if self._ingest is None else [self._ingest.route()]),
                *([] if self.binance is None else self.binance.routes()),
                *static.handlers(self._webapp),
            ],
            exception_handlers=_problem.HANDLERS,
            guards=[] if self._guard.open else [route_guard(self._guard)],
            openapi_config=OpenAPIConfig(
                title=self._title, version=__version__, path="/schema", render_plugins=[JsonRenderPlugin()]
            ),
            cors_config=_cors(self._origins),
            logging_config=None,
            state=State({"market": self._market, "quota": self.quota}),
        )
        app.state.docs = _docs.render(app.openapi_schema.to_schema())
        return app

    def _own_routes(self) -> list[HTTPRouteHandler]:
        """Health, metrics and documents."""

        @get("/health/live", summary="Whether the process runs", tags=["operation"], responses=_STATUS, opt=PUBLIC)
        async def live() -> Response[bytes]:
            return rest.answer(b'{"status":"ok"}')

        @get(
            "/health/ready",
            summary="Whether it can serve; 503 names the cause",
            tags=["operation"],
            responses=_STATUS,
            opt=PUBLIC,
        )
        async def ready() -> Response[bytes]:
            cause = self._trouble
            if cause is None:
                return rest.answer(b'{"status":"ready"}')
            return rest.answer(_problem.body(503, cause), 503, _problem.MEDIA_TYPE)

        @get(
            "/health",
            summary="How sources, books and gaps stand; the rows of channel health",
            tags=["operation"],
            responses=_STATUS,
        )
        async def health() -> Response[bytes]:
            cause = self._trouble
            body = {
                "status": "ready" if cause is None else "unready",
                "cause": cause,
                "conditions": await self._market.conditions(""),
            }
            return rest.answer(msgspec.json.encode(body))

        @get("/v1/ws", include_in_schema=False, opt=PUBLIC)
        async def unupgraded() -> Response[bytes]:
            detail = "this address speaks WebSocket: connect with ws:// or wss://, or read /v1/sse with plain HTTP"
            headers = {"upgrade": "websocket", "connection": "upgrade"}
            return Response(
                _problem.body(426, detail), status_code=426, media_type=_problem.MEDIA_TYPE, headers=headers
            )

        @get("/metrics", summary="Prometheus metrics", tags=["operation"], responses=_METRICS)
        async def prometheus() -> Response[bytes]:
            return rest.answer(metrics.render(), media_type=metrics.CONTENT_TYPE)

        @get("/docs", include_in_schema=False, opt=PUBLIC)
        async def docs(state: State) -> Response[bytes]:
            return rest.answer(state.docs, media_type="text/html")

        @get("/docs/style.css", include_in_schema=False, opt=PUBLIC)
        async def style() -> Response[bytes]:
            return rest.answer(_docs.STYLE, media_type="text/css")

        @get("/docs/datafeed.js", include_in_schema=False, opt=PUBLIC)
        async def datafeed() -> Response[bytes]:
            return rest.answer(_docs.DATAFEED, media_type="text/javascript")

        return [live, ready, health, unupgraded, prometheus, docs, style, datafeed]


def _cors(origins: Collection[str]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(allow_origins=list(origins), allow_methods=["GET"], allow_credentials=False)


def _load_tls(config: uvicorn.Config, cert: str, key: str) -> None:
    """Have the server speak TLS with a certificate. Raises ``ConfigError`` when it cannot be used."""
    if not cert and not key:
        return
    if not cert or not key:
        raise ConfigError("TLS needs both a certificate and its key: set server.tls_cert and server.tls_key")
    config.ssl_certfile, config.ssl_keyfile = cert, key
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"cannot use server.tls_cert {cert} with server.tls_key {key}: {error}") from None


def _listener(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ``ConfigError`` with the remedy when that fails."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"cannot listen on port {port}: choose one from 1 to 65535, or 0 for any")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on host {host!r}, port {port}: {error}") from None
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use: choose another (--port 0 takes any free one), or stop the other server"
            ) from None
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} needs privileges: choose one from 1024 on with --port") from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
