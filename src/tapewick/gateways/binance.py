"""Binance's spot market data protocol, spoken to unmodified Binance clients on the public port.

REST under ``/api/v3``, sockets at ``/ws``, ``/ws/<streams>`` and ``/stream``, and the whole tree again under
``/binance``. Deviations from the venue are few and deliberate: trades are never invented, an incomplete
answer says so in a header, and a book that is not live is not served.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

import msgspec
import structlog
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from picows import WSUpgradeRequest, WSUpgradeResponse
from picows import WSUpgradeResponseWithListener as Accepted

from tapewick import metrics
from tapewick.errors import ApiError, ModelError, StoreError
from tapewick.gateways._binance_fanout import Form
from tapewick.gateways._binance_query import Query, Refused, Unit, busy, parse
from tapewick.gateways._binance_rest import Answer, Endpoints
from tapewick.gateways._binance_session import Rules, Session
from tapewick.gateways._binance_streams import Streams
from tapewick.gateways._binance_symbols import Symbols
from tapewick.gateways._binance_weights import Meter, Spent
from tapewick.gateways._bridge import Answer as Upgrade
from tapewick.gateways._bridge import refuse
from tapewick.hub import Hub
from tapewick.market import Market

__all__ = ["BinanceGateway", "Options", "Rules"]

log = structlog.get_logger()

ALIAS = "/binance"
MEDIA_TYPE = "application/json;charset=UTF-8"
SMALL = 512  # bytes; shorter bodies are not worth compressing
LARGE = 65_536  # bytes; longer ones are compressed beside the loop
METHODS = ("GET", "POST", "PUT", "DELETE")
AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the gateway serves, and to what bounds.

    ``venue``: whose instruments (empty: binance, else sim, else the only venue that has a symbol).
    ``weight_per_min``: request weight an address may use. ``aggregate_raw``: serve each raw trade as an
    aggregate of one. ``oracles``: list oracle feeds too. ``trade_fee``: answer the account endpoint some
    clients demand with a constant.
    """

    enabled: bool = True
    venue: str = ""
    weight_per_min: int = 6000
    aggregate_raw: bool = True
    oracles: bool = False
    trade_fee: bool = False
    rules: Rules = field(default_factory=Rules)


class BinanceGateway:
    """``routes`` and ``door`` mount it on a port; sockets are served between ``start`` and ``stop``."""

    def __init__(self, market: Market, hub: Hub, options: Options, allowed_origins: Collection[str] = ()) -> None:
        self._market, self._hub, self._options, self._origins = market, hub, options, allowed_origins
        self._symbols = Symbols(market, venue=options.venue, oracles=options.oracles)
        self._meter = Meter(options.weight_per_min, market.now)
        self.streams = Streams(market, self._symbols, aggregate_raw=options.aggregate_raw)
        self._endpoints = Endpoints(
            market,
            self._symbols,
            self.streams,
            weight=options.weight_per_min,
            aggregate_raw=options.aggregate_raw,
        )

    def start(self) -> None:
        """Begin serving streams."""
        self.streams.start()

    @property
    def trouble(self) -> str | None:
        """Why streams no longer flow; None while they do."""
        return self.streams.trouble

    async def stop(self) -> None:
        """End all streams; sockets have been told before."""
        await self.streams.stop()

    # -- REST --------------------------------------------------------------------------------------

    def routes(self) -> list[HTTPRouteHandler]:
        """Everything under ``/api`` and ``/sapi``, at the root and under the alias."""
        paths = [f"{prefix}{root}/{{path:path}}" for prefix in ("", ALIAS) for root in ("/api", "/sapi")]

        async def rest(request: AnyRequest, path: FromPath[str]) -> Response[bytes]:
            return await self._respond(request)

        return [HTTPRouteHandler(paths, http_method=METHODS, include_in_schema=False, status_code=200)(rest)]  # type: ignore[arg-type]

    async def _respond(self, request: AnyRequest) -> Response[bytes]:
        peer = request.client.host if request.client else ""
        path = request.url.path.removeprefix(ALIAS)
        endpoint = path.removeprefix("/api/v3/") if request.method == "GET" else ""
        query, wrong = Query({}), None
        try:
            query = parse(request.scope["query_string"].decode("utf-8", "replace"))
            weight = self._endpoints.cost(endpoint, query)
        except Refused as error:
            wrong, weight = error, 1
        spent = self._meter.spend(peer, weight)
        if spent.wait is not None:
            answer, status = self._too_much(spent), 429
        elif wrong is not None:
            answer, status = Answer(wrong.body), wrong.status
        else:
            unit = _unit(request.headers.get("x-mbx-time-unit") or "")
            answer, status = await self._served(path, endpoint, query, unit)
        metrics.http_requests.labels(str(status)).inc()
        body, coding = await _compressed(answer.body, request.headers.get("accept-encoding", ""))
        headers = {"X-MBX-USED-WEIGHT": str(spent.used), "X-MBX-USED-WEIGHT-1M": str(spent.used)}
        headers |= {"cache-control": "no-store", **answer.headers, **coding}
        return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)

    async def _served(self, path: str, endpoint: str, query: Query, unit: Unit) -> tuple[Answer, int]:
        """The answer and its status; errors in the venue's words."""
        try:
            return await self._answer(path, endpoint, query, unit), 200
        except Refused as error:
            refused = error
        except (ApiError, ModelError) as error:
            refused = Refused(-1130, str(error))
        except StoreError as error:
            log.error("a request failed in the store", path=path[:80], cause=str(error))
            refused = busy("the store does not answer")
        return Answer(refused.body, {"Retry-After": "1"} if refused.status == 503 else {}), refused.status

    async def _answer(self, path: str, endpoint: str, query: Query, unit: Unit) -> Answer:
        if path == "/sapi/v1/asset/tradeFee" and self._options.trade_fee:
            wanted = [await self._symbols.find(query.symbol())] if "symbol" in query else await self._symbols.all()
            fee = {"makerCommission": "0.001", "takerCommission": "0.001"}
            return Answer(msgspec.json.encode([{"symbol": one.symbol, **fee} for one in wanted]))
        return await self._endpoints.answer(endpoint, query, unit)

    def _too_much(self, spent: Spent) -> Answer:
        limit = self._meter.limit
        text = f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."
        return Answer(Refused(-1003, text).body, {"Retry-After": str(spent.wait)})

    # -- sockets -----------------------------------------------------------------------------------

    def owns(self, path: str) -> bool:
        """Whether an upgrade at ``path`` is this protocol's."""
        bare = path.removeprefix(ALIAS).rstrip("/")
        return bare in ("/ws", "/stream") or bare.startswith("/ws/")

    def door(self, request: WSUpgradeRequest) -> Upgrade:
        """Who may come in: anybody but a page of an origin that is not allowed."""
        path, _, text = request.path.decode("utf-8", "replace").partition("?")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins:
            if origin.partition("://")[2] != request.headers.get("Host"):
                return refuse(403, f"origin {origin[:80]} is not allowed; add it to server.allowed_origins")
        values = dict(part.partition("=")[::2] for part in text.split("&"))
        bare = path.removeprefix(ALIAS).rstrip("/")
        combined = bare == "/stream"
        listed = values.get("streams", "") if combined else bare.removeprefix("/ws")
        names = [name for name in unquote(listed).split("/") if "@" in name]
        form = Form(combined, _unit(values.get("timeUnit", "")))
        session = Session(
            self.streams, self._hub, self._options.rules, form, list(dict.fromkeys(names)), self._market.now
        )
        return Accepted(WSUpgradeResponse.create_101_response(None), session)


def _unit(text: str) -> Unit:
    return 1_000 if text.upper() == "MICROSECOND" else 1_000_000


async def _compressed(body: bytes, accepted: str) -> tuple[bytes, Mapping[str, str]]:
    """``body`` as the client accepts it, and the headers that say so."""
    offers = {part.partition(";")[0].strip().lower() for part in accepted.split(",") if not _refuses(part)}
    coding = next((name for name in ("gzip", "deflate") if name in offers), None)
    if coding is None or len(body) < SMALL:
        return body, {"vary": "accept-encoding"}
    if len(body) < LARGE:
        packed = _pack(body, coding)
    else:
        packed = await asyncio.to_thread(_pack, body, coding)
    return packed, {"vary": "accept-encoding", "content-encoding": coding}


def _refuses(part: str) -> bool:
    """``gzip;q=0`` means: anything but gzip."""
    return part.partition(";")[2].replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000")


def _pack(body: bytes, coding: Literal["gzip", "deflate"] | str) -> bytes:
    return gzip.compress(body, 1, mtime=0) if coding == "gzip" else zlib.compress(body, 1)
