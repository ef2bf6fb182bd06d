"""TradingView's UDF under ``/udf``: history for charting libraries that poll it.

Times are seconds, prices JSON numbers written from the exact decimals. Empty buckets between trades are flat
bars, as charts expect; the rows themselves are those of every other surface.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, get
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter

from tapewick import metrics
from tapewick.decimals import format_mantissa
from tapewick.engine.candles import sums
from tapewick.errors import ApiError, BadRequest, NotFound
from tapewick.gateways import _udf_marks as own_marks
from tapewick.gateways import _udf_symbols as listing
from tapewick.gateways._asking import JSON, AnyRequest, answer, heavy_rows, market_of
from tapewick.gateways._problem import headers_of
from tapewick.gateways.rest import proven
from tapewick.market import Market, Window
from tapewick.model import CandleBatch
from tapewick.timeframe import BY_NAME, SECOND, Timeframe

__all__ = ["MAX_BARS", "router"]

MAX_BARS = 10_000
MAX_QUOTES = 20
LATEST = 9_000_000_000  # seconds; the year 2255

Name = Annotated[str, QueryParameter(max_length=100, description="EXCHANGE:SYMBOL, an instrument id, or a symbol.")]
Resolution = Annotated[str, QueryParameter(max_length=8, description="1S, minutes (1 to 720), 1D 3D 1W 1M.")]
From = Annotated[int, QueryParameter(name="from", ge=0, le=LATEST, description="First time, seconds.")]
MaybeFrom = Annotated[int | None, QueryParameter(name="from", ge=0, le=LATEST, description="First time, seconds.")]
To = Annotated[int, QueryParameter(ge=0, le=LATEST, description="Times before this, seconds.")]
Text = Annotated[str, QueryParameter(max_length=100)]


class UdfError(msgspec.Struct):
    """How UDF tells that a request cannot be served."""

    s: Literal["error"]
    errmsg: str


def _documented(shape: Any, media_type: str = JSON) -> dict[int, ResponseSpec]:
    refused = ResponseSpec(UdfError, description="What was wrong", media_type=JSON, generate_examples=False)
    good = ResponseSpec(shape, description="The answer", media_type=media_type, generate_examples=False)
    return {200: good, 400: refused, 404: refused, 429: refused}


_OBJECT, _LIST = _documented(dict[str, Any]), _documented(list[dict[str, Any]])


def _json(body: object, headers: dict[str, str] | None = None) -> Response[bytes]:
    metrics.http_requests.labels("200").inc()
    return Response(
        msgspec.json.encode(body), media_type=JSON, headers={"cache-control": "no-store", **(headers or {})}
    )


def _timeframe(resolution: str) -> Timeframe:
    name = listing.RESOLUTIONS.get({"D": "1D", "W": "1W", "M": "1M", "S": "1S"}.get(resolution, resolution))
    if name is None:
        raise BadRequest("bad_resolution", field="resolution")
    return BY_NAME[name]


@get("/config", summary="UDF: what this server offers", responses=_OBJECT)
async def config(request: AnyRequest) -> Response[bytes]:
    """Resolutions and exchanges."""
    return _json(
        {
            "supports_search": True,
            "supports_group_request": False,
            "supports_marks": True,
            "supports_timescale_marks": True,
            "supports_time": True,
            "supported_resolutions": list(listing.RESOLUTIONS),
            "exchanges": listing.exchanges(await market_of(request).instruments()),
            "symbols_types": [{"name": "All", "value": ""}, {"name": "Crypto", "value": "crypto"}],
        }
    )


@get("/symbols", summary="UDF: one symbol", responses=_OBJECT)
async def symbols(request: AnyRequest, symbol: Name) -> Response[bytes]:
    """How a chart shows the instrument."""
    return _json(listing.describe(await listing.resolve(market_of(request), symbol)))


@get("/symbol_info", summary="UDF: all symbols of an exchange", responses=_OBJECT)
async def symbol_info(request: AnyRequest, group: Text) -> Response[bytes]:
    """In columns."""
    found = [own for own in await market_of(request).instruments() if own.venue == group.lower()]
    if not found:
        raise NotFound("unknown_group", field="group")
    return _json(listing.column_form(found))


@get("/search", summary="UDF: find symbols", responses=_LIST)
async def search(
    request: AnyRequest,
    text: Annotated[str, QueryParameter(name="query", max_length=100)] = "",
    type: Text = "",
    exchange: Text = "",
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 30,
) -> Response[bytes]:
    """Symbols whose name or description holds the text."""
    return _json(listing.search(await market_of(request).instruments(), text, type, exchange, limit))


@get("/history", summary="UDF: bars", responses=_OBJECT)
async def history(
    request: AnyRequest,
    symbol: Name,
    resolution: Resolution,
    to: To,
    from_: MaybeFrom = None,
    countback: Annotated[int | None, QueryParameter(ge=1, le=10**9, description="So many bars, up to ``to``.")] = None,
) -> Response[bytes]:
    """Bars with open times before ``to``, ascending: ``countback`` of them, else those since ``from``; at most
    10000, the newest. Header ``tapewick-complete`` tells whether they are proven whole."""
    tf, market = _timeframe(resolution), market_of(request)
    own = await listing.resolve(market, symbol)
    if countback is None and from_ is None:
        raise BadRequest("from or countback is required", field="from")
    limit = min(MAX_BARS, countback or MAX_BARS)
    start = None if countback else (from_ or 0) * SECOND
    if start is not None and start >= to * SECOND:
        return await _no_data(market, own.id, tf, to * SECOND)
    with heavy_rows(request, limit):
        found = await market.candles(own.id, tf, Window(start, to * SECOND, limit, newest=True), fill="prev")
    if not len(found.batch.rows):
        return await _no_data(market, own.id, tf, to * SECOND if start is None else start)
    complete = msgspec.json.encode(proven(found.batch.rows)).decode()
    bars = await asyncio.to_thread(_bars, found.batch)  # thousands of them would hold up the loop
    return _json({"s": "ok", **bars}, {"tapewick-complete": complete})


async def _no_data(market: Market, id: str, tf: Timeframe, before: int) -> Response[bytes]:
    """There are no bars; where the closest older one is."""
    rows = (await market.candles(id, tf, Window(end=before, limit=1, newest=True))).batch.rows
    older = {"nextTime": int(rows["open_time"][0]) // SECOND} if len(rows) else {}
    return _json({"s": "no_data", **older})


def _bars(batch: CandleBatch) -> dict[str, list[Any]]:
    rows = batch.rows
    names = {"o": "open", "h": "high", "l": "low", "c": "close"}
    columns: dict[str, list[Any]] = {"t": (rows["open_time"] // SECOND).tolist()}
    for short, name in names.items():
        columns[short] = [_number(format_mantissa(one, batch.price_scale)) for one in rows[name].tolist()]
    columns["v"] = [_number(format_mantissa(one, batch.size_scale)) for one in sums(rows, "volume")]
    return columns


def _number(text: str) -> msgspec.Raw:
    """Exact decimal text as a JSON number."""
    return msgspec.Raw(text.encode())


@get("/time", summary="UDF: the server's time", responses=_documented(int, "text/plain"), media_type="text/plain")
async def time(request: AnyRequest) -> Response[bytes]:
    """Seconds since 1970."""
    return answer(str(market_of(request).now() // SECOND).encode(), media_type="text/plain")


@get("/marks", summary="UDF: marks on bars", responses=_OBJECT)
async def marks(request: AnyRequest, symbol: Name, from_: From, to: To, resolution: Resolution) -> Response[bytes]:
    """Bars that are not proven whole, and bars that were revised after they closed."""
    tf, market = _timeframe(resolution), market_of(request)
    own = await listing.resolve(market, symbol)
    window = Window(from_ * SECOND, to * SECOND, MAX_BARS, newest=True)
    with heavy_rows(request, MAX_BARS):
        rows = (await market.candles(own.id, tf, window)).batch.rows if from_ < to else None
    return _json(await asyncio.to_thread(own_marks.on_bars, rows))


@get("/timescale_marks", summary="UDF: marks on the time axis", responses=_LIST)
async def timescale_marks(
    request: AnyRequest, symbol: Name, from_: From, to: To, resolution: Resolution
) -> Response[bytes]:
    """Where trades are missing."""
    tf, market = _timeframe(resolution), market_of(request)
    own = await listing.resolve(market, symbol)
    gaps = (await market.coverage(own.id)).gaps
    return _json(own_marks.on_axis(gaps, tf, from_ * SECOND, to * SECOND))


@get("/quotes", summary="UDF: current prices", responses=_OBJECT)
async def quotes(
    request: AnyRequest, symbols: Annotated[str, QueryParameter(max_length=1000, description="Up to 20, by comma.")]
) -> Response[bytes]:
    """Last price, change of 24 h, best bid and ask where known."""
    names = symbols.split(",")
    if len(names) > MAX_QUOTES:
        raise BadRequest(f"over {MAX_QUOTES} symbols in one request; ask in parts", field="symbols")
    return _json({"s": "ok", "d": [await _quote(market_of(request), name) for name in names]})


async def _quote(market: Market, name: str) -> dict[str, Any]:
    try:
        own = await listing.resolve(market, name)
    except NotFound:
        return {"s": "error", "n": name, "v": {}}
    ticker, best = await market.ticker(own.id), market.books_of(own.id)[1]
    values: dict[str, Any] = {
        "short_name": own.symbol,
        "exchange": own.venue.upper(),
        "description": listing.describe(own)["description"],
    }
    fields = {
        "ch": "change_24h",
        "chp": "change_pct_24h",
        "lp": "last",
        "open_price": "open_24h",
        "high_price": "high_24h",
        "low_price": "low_24h",
        "prev_close_price": "open_24h",
        "volume": "volume_24h",
    }
    values |= {short: _number(str(ticker[long])) for short, long in fields.items() if ticker[long] is not None}
    if best is not None:
        values["bid"] = _number(format_mantissa(best.bid, best.price_scale))
        values["ask"] = _number(format_mantissa(best.ask, best.price_scale))
    return {"s": "ok", "n": listing.full_name(own), "v": values}


def _error(status: int, text: str) -> Response[bytes]:
    return answer(msgspec.json.encode({"s": "error", "errmsg": text}), status)


def _refused(request: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    made = _error(error.status, str(error))
    made.headers.update(headers_of(error))
    return made


def _malformed(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    extra = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    told = f"{extra.get('key', '')}: {extra['message']}" if isinstance(extra, dict) and "message" in extra else ""
    return _error(error.status_code, told or error.detail)


def router() -> Router:
    """The routes; they find the market and the quota in ``app.state``. Errors have UDF's own shape."""
    handlers = [config, symbols, symbol_info, search, history, time, marks, timescale_marks, quotes]
    return Router(
        "/udf",
        route_handlers=handlers,
        tags=["TradingView UDF"],
        exception_handlers={ApiError: _refused, HTTPException: _malformed},
    )
