"""The one public port: REST, documents, the web page, metrics, and WebSocket upgrades.

Litestar on uvicorn inside our own loop (``_port.py``); upgrades leave uvicorn for picows (``_bridge.py``). Metrics
and administration can have a second port instead, which the public need not reach.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import structlog
from litestar import Litestar, Response, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from picows import WSUpgradeRequest

from tapewick.gateways import (
    _docs,
    _openapi,
    _operation,
    _problem,
    _repair,
    export,
    orders,
    rest,
    sse,
    static,
    stream,
    udf,
    watch,
)
from tapewick.gateways._address import Addresses
from tapewick.gateways._asking import TextRequest
from tapewick.gateways._audited import audited
from tapewick.gateways._auth import PUBLIC, Guard, route_guard
from tapewick.gateways._bridge import Answer as Upgrade
from tapewick.gateways._bridge import Bridge, Door, guarded
from tapewick.gateways._connection import Entrance
from tapewick.gateways._limiter import Limiter, limited
from tapewick.gateways._port import Port, Tls
from tapewick.gateways._quota import Quota
from tapewick.gateways.binance import BinanceGateway, Options
from tapewick.gateways.ingest import IngestGateway
from tapewick.gateways.ingest import Options as IngestOptions
from tapewick.hub import Hub
from tapewick.market import Market
from tapewick.outbox import Limits, Outbox

__all__ = ["Admin", "HttpGateway"]

log = structlog.get_logger()


class Admin(NamedTuple):
    """Where metrics and administration are served instead of the public port."""

    host: str = "127.0.0.1"
    port: int = 0


class HttpGateway:
    """Serves ``market`` on one port while its context is open.

    ``port`` 0 lets the system choose: ``url`` tells. ``readiness`` returns why the process is not
    ready, None while it is. ``allowed_origins``: other web origins that may call the API. ``drain``:
    seconds clients have to take what is queued when the gateway stops. ``binance``: what Binance clients
    are served. ``tls_cert``, ``tls_key``: PEM files; with them the port speaks TLS only. ``tls_client_ca``: of the
    authority whose certificates clients must show; "": none.
    ``heavy_requests``: costly ones that one address may have under way at once; ``push_per_address``: WebSockets
    and event streams it may have open. ``tokens``: see ``Guard``. ``ws_deflate``: compress frames for WebSocket
    clients that offer it. ``guard``: instead of ``tokens``, with stored keys too; ``ingest``: what may be written,
    None: nothing. ``connections_per_address``: HTTP connections one address may have open; ``requests_per_min``:
    requests of one key, or address without a key, 0: any number; ``trusted_proxies``: see ``Addresses``. ``admin``:
    where metrics and administration are served instead; ``admin_url`` tells. Raises ``ConfigError``.
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
        tls_client_ca: str = "",
        heavy_requests: int = 8,
        push_per_address: int = 16_384,
        tokens: Collection[str] = (),
        ws_deflate: bool = False,
        guard: Guard | None = None,
        ingest: IngestOptions | None = None,
        connections_per_address: int = 16_384,
        requests_per_min: int = 0,
        trusted_proxies: Collection[str] = (),
        admin: Admin | None = None,
    ) -> None:
        self._market, self._title = market, title
        self._origins, self._readiness, self._drain = tuple(allowed_origins), readiness, drain
        self._hub = Hub(market, limits or Limits())
        self._webapp = webapp
        self.quota = Quota(heavy_requests, 64)
        self.push_quota = Quota(push_per_address, what="push connections", setting="server.push_per_address")
        self._guard, self._deflate = guard or Guard(tokens), ws_deflate
        self._ingest = None
        if ingest is not None:
            self._ingest = IngestGateway(market.intake(), self._guard, ingest, readiness, market.now)
        self._limiter = Limiter(requests_per_min, self._guard, market.now)
        places = Quota(connections_per_address, what="connections", setting="server.connections_per_address")
        self._entrance = Entrance(Addresses(trusted_proxies), places, self._limiter)
        made = partial(Port, tls=Tls(tls_cert, tls_key, tls_client_ca), drain=drain, entrance=self._entrance)
        self._public, self._own = made(host, port), None if admin is None else made(*admin)
        wanted = binance or Options()
        self.binance = BinanceGateway(market, self._hub, wanted, self._origins) if wanted.enabled else None
        self.url = self.admin_url = ""

    @property
    def connections(self) -> frozenset[Outbox]:
        """The push connections open now."""
        return frozenset(self._hub.outboxes)

    async def __aenter__(self) -> Self:
        await self._guard.start()
        try:
            if self._ingest is not None:
                await self._ingest.start()
            await self._open()
        except BaseException:
            if self._ingest is not None:
                await self._ingest.close()
            await self._guard.stop()
            raise
        return self

    async def _open(self) -> None:
        upgrades = partial(
            Bridge, self._door(), self.push_quota, self._entrance, self._hub.limits.frame_bytes, self._drain
        )
        await self._public.open(self._wrapped(self._application()), ws=upgrades)
        self.url = self._public.url
        if self._own is not None:
            try:
                await self._own.open(self._wrapped(self._administration()))
            except BaseException:
                await self._public.close()
                raise
            self.admin_url = self._own.url
            log.info("administration", url=self.admin_url)
        if self.binance is not None:
            self.binance.start()

    async def __aexit__(self, *exc: object) -> None:
        """Stop accepting, tell WebSocket clients (1001), let answers finish within ``drain``."""
        await self._public.close()
        if self._own is not None:
            await self._own.close()
        if self.binance is not None:
            await self.binance.stop()
        if self._ingest is not None:
            await self._ingest.close()
        await self._guard.stop()

    @property
    def _trouble(self) -> str | None:
        """Why the process is not ready; None while it is."""
        theirs = self.binance.trouble if self.binance is not None else None
        waiting = self._ingest.trouble if self._ingest is not None else None
        return self._readiness() or self._market.trouble or theirs or waiting

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
                orders.router(),
                export.router(),
                udf.router(),
                sse.handler(self._market, self._hub, self._origins, self.push_quota, self._guard),
                *_operation.health(self._market, lambda: self._trouble),
                *([] if self._own is not None else self._private()),
                *self._documents(),
                *([] if self._ingest is None else [self._ingest.route()]),
                *([] if self.binance is None else self.binance.routes()),
                *static.handlers(self._webapp),
            ],
            exception_handlers=_problem.HANDLERS,
            guards=[route_guard(self._guard)],
            openapi_config=_openapi.config(self._title),
            cors_config=_cors(self._origins),
            logging_config=None,
            request_class=TextRequest,
            state=State({"market": self._market, "quota": self.quota}),
        )
        app.state.docs = _docs.render(_openapi.completed(app, open=self._guard.open))
        return app

    def _administration(self) -> Litestar:
        """What the second port serves."""
        return Litestar(
            [*_operation.health(self._market, lambda: self._trouble), *self._private()],
            exception_handlers=_problem.HANDLERS,
            guards=[route_guard(self._guard)],
            openapi_config=None,
            logging_config=None,
            request_class=TextRequest,
            state=State({"market": self._market, "quota": self.quota}),
        )

    def _private(self) -> list[Any]:
        """Routes that can be moved to the second port."""
        return [_operation.prometheus(), _repair.router(), watch.router()]

    def _wrapped(self, app: Any) -> Any:
        """``app`` behind the limits of every port, and with its changes audited."""
        weighed = self.binance is not None
        return limited(audited(app, self._guard), self._limiter, self._origins, weighed=weighed)

    def _documents(self) -> list[HTTPRouteHandler]:
        """Documents, and what is told to who does not upgrade."""

        @get("/v1/ws", include_in_schema=False, opt=PUBLIC)
        async def unupgraded() -> Response[bytes]:
            detail = "this address speaks WebSocket: connect with ws:// or wss://, or read /v1/sse with plain HTTP"
            headers = {"upgrade": "websocket", "connection": "upgrade"}
            return Response(
                _problem.body(426, detail), status_code=426, media_type=_problem.MEDIA_TYPE, headers=headers
            )

        @get("/docs", include_in_schema=False, opt=PUBLIC)
        async def docs(state: State) -> Response[bytes]:
            return rest.answer(state.docs, media_type="text/html")

        @get("/docs/style.css", include_in_schema=False, opt=PUBLIC)
        async def style() -> Response[bytes]:
            return rest.answer(_docs.STYLE, media_type="text/css")

        @get("/docs/datafeed.js", include_in_schema=False, opt=PUBLIC)
        async def datafeed() -> Response[bytes]:
            return rest.answer(_docs.DATAFEED, media_type="text/javascript")

        return [unupgraded, docs, style, datafeed]


def _cors(origins: Collection[str]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(allow_origins=list(origins), allow_methods=["GET"], allow_credentials=False)
