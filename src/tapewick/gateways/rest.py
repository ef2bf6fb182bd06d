"""REST under ``/v1``: instruments, trades, candles, ticker, coverage, books.

Rows come from the encoder as bytes and are spliced into the answer; no Python object is made
per row. Every answer carries its position; a range answer also its age and completeness.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
import numpy as np
from litestar import Request, Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from tapewick import metrics
from tapewick.book_frames import book_json
from tapewick.channel import parse_position
from tapewick.decimals import format_mantissa
from tapewick.engine import indicators as derived
from tapewick.errors import BadRequest, NotFound
from tapewick.gateways import _query
from tapewick.gateways._problem import MEDIA_TYPE, Problem
from tapewick.gateways._schema import (
    BookAnswer,
    CandlesAnswer,
    CoverageAnswer,
    InstrumentsAnswer,
    Ticker,
    TradesAnswer,
)
from tapewick.ladder import Levels
from tapewick.market import FAR, CandleAnswer, Market, Window
from tapewick.model import Candles, Head, State, position
from tapewick.timeframe import Timeframe, bucket_end

__all__ = ["JSON", "answer", "router"]

JSON = "application/json"
MS = 1_000_000

AnyRequest = Request[Any, Any, Any]
InstrumentId = Annotated[str, QueryParameter(description="Instrument, for example binance:BTCUSDT.")]
Start = Annotated[str | None, QueryParameter(description="First time, inclusive: ms since 1970 or ISO 8601.")]
End = Annotated[str | None, QueryParameter(description="Last time, exclusive: ms since 1970 or ISO 8601.")]
SinceText = Annotated[str | None, QueryParameter(description="Position of an earlier answer; only what came after.")]
Limit = Annotated[int, QueryParameter(ge=1, le=_query.MAX_ROWS, description="Most rows in the answer.")]
Filling = Annotated[
    Literal["none", "prev", "null"], QueryParameter(description="Empty buckets: omitted, last close, no prices.")
]
Times = Annotated[Literal["ms", "ns"], QueryParameter(description="ms: integers; ns: decimal strings.")]


def answer(content: bytes, status: int = 200, media_type: str = JSON) -> Response[bytes]:
    """A body that is already encoded; live data is never cached."""
    metrics.http_requests.labels(str(status)).inc()
    return Response(content, status_code=status, media_type=media_type, headers={"cache-control": "no-store"})


def _documented(shape: type) -> dict[int, ResponseSpec]:
    problem = ResponseSpec(Problem, description="What was wrong", media_type=MEDIA_TYPE, generate_examples=False)
    good = ResponseSpec(shape, description="The answer", media_type=JSON, generate_examples=False)
    return {200: good, 400: problem, 404: problem}


def _market(request: AnyRequest) -> Market:
    market: Market = request.app.state.market
    return market


def _only_known(request: AnyRequest) -> None:
    """Refuse a query parameter the route does not have: a typo must not silently mean nothing."""
    known = set(request.route_handler.parsed_fn_signature.parameters) - {"request", "id"}
    takes = ", ".join(sorted(known)) or "none"
    for name in request.query_params:
        if name not in known:
            raise BadRequest(f"unknown parameter {name[:40]!r}; this route takes: {takes}", field=name[:40])
        if len(request.query_params.getall(name)) > 1:
            raise BadRequest(f"{name} is given more than once", field=name)


def _next(request: AnyRequest, **changes: object) -> str:
    """This request's address with other parameters; None drops one."""
    kept = {**dict(request.query_params.items()), **changes}
    return f"{request.url.path}?{urlencode({k: str(v) for k, v in kept.items() if v is not None})}"


async def _known(market: Market, instrument: str) -> None:
    """Refuse an unknown instrument named by a parameter: the route exists, its argument is wrong."""
    try:
        await market.instrument(instrument)
    except NotFound as error:
        raise BadRequest(str(error), field="instrument") from error


def _own_offset(since: str, head: Head) -> int:
    epoch, offset = parse_position(since)
    if epoch not in (None, head.epoch):
        raise BadRequest(f"since={since!r} is of another tape (now {head.epoch}); read without it", field="since")
    return offset


def _check_range(start: int | None, end: int | None) -> None:
    if start is not None and end is not None and end <= start:
        raise BadRequest("end must be after start", field="end")


def _spliced(name: bytes, rows: bytes, rest: dict[str, object]) -> Response[bytes]:
    return answer(b'{"%s":%s,%s' % (name, rows, msgspec.json.encode(rest)[1:]))


@get("/instruments", summary="Instruments with a tape", responses=_documented(InstrumentsAnswer))
async def instruments(request: AnyRequest) -> Response[bytes]:
    """All instruments, by id."""
    rows = [
        {**msgspec.structs.asdict(instrument), "simulated": instrument.simulated}
        for instrument in await _market(request).instruments()
    ]
    return answer(msgspec.json.encode({"instruments": rows}))


@get("/trades", summary="Trades of one instrument", responses=_documented(TradesAnswer))
async def trades(
    request: AnyRequest,
    instrument: InstrumentId,
    since: SinceText = None,
    start: Start = None,
    end: End = None,
    limit: Limit = 500,
    times: Times = "ms",
) -> Response[bytes]:
    """Ascending by seq: after ``since``, or from ``start``; without either the newest ``limit``."""
    market = _market(request)
    first, last = _query.time_ns(start, "start"), _query.time_ns(end, "end")
    _check_range(first, last)
    await _known(market, instrument)
    offset = None if since is None else _own_offset(since, await market.head(instrument))
    newest = offset is None and first is None
    batch, head = await market.trades(instrument, since=offset, start=first, end=last, limit=limit, newest=newest)
    more = not newest and batch.seq is not None and len(batch) >= limit
    at = position(head.epoch, int(batch.seq[-1]) if more and batch.seq is not None else head.seq)
    rest: dict[str, object] = {
        "position": at,
        "data_age_ms": market.data_age_ms(instrument),
        "next": _next(request, since=at) if more else None,
    }
    return _spliced(b"trades", market.encode(batch, ns=times == "ns"), rest)


@get("/candles", summary="Candles of one instrument and timeframe", responses=_documented(CandlesAnswer))
async def candles(
    request: AnyRequest,
    instrument: InstrumentId,
    tf: Annotated[str, QueryParameter(description="1s 1m 3m 5m 15m 30m 45m 1h 2h 3h 4h 6h 8h 12h 1d 3d 1w 1M")],
    start: Start = None,
    end: End = None,
    limit: Limit = 500,
    since: SinceText = None,
    fill: Filling = "none",
    indicators: Annotated[str | None, QueryParameter(description="For example sma10,ema20,vwap.")] = None,
    times: Times = "ms",
) -> Response[bytes]:
    """Ascending by open time, the open candle included: from ``start``, or the newest ``limit``.

    With ``since``: stored rows that changed after that position, in their latest version, by pos.
    ``complete`` tells whether every closed candle of the answer, and all between, is proven whole.
    """
    market, frame, wanted = _market(request), _query.timeframe(tf), _query.indicators(indicators)
    window = Window(_query.time_ns(start, "start"), _query.time_ns(end, "end"), limit, newest=start is None)
    _check_range(window.start, window.end)
    await _known(market, instrument)
    if since is not None:
        if start is not None or end is not None or fill != "none" or wanted:
            raise BadRequest("since cannot be combined with start, end, fill or indicators", field="since")
        offset = _own_offset(since, await market.head(instrument))
        found, more = await market.changes(instrument, frame, offset, limit)
        at = position(found.head.epoch, int(found.batch.rows["pos"][-1]) if more else found.head.pos)
        following = _next(request, since=at) if more else None
    else:
        found = await market.candles(instrument, frame, window, fill=None if fill == "none" else fill)
        at = position(found.head.epoch, found.head.pos)
        following = _following(request, frame, window, found)
    rest: dict[str, object] = {
        "position": at,
        "data_age_ms": market.data_age_ms(instrument),
        "complete": _complete(found.batch.rows),
        "next": following,
    }
    if wanted:
        rest["indicators"] = await _indicators(market, frame, found, wanted)
    return _spliced(b"candles", market.encode(found.batch, ns=times == "ns"), rest)


def _following(request: AnyRequest, tf: Timeframe, window: Window, found: CandleAnswer) -> str | None:
    """The next page's address: later rows if the answer began at ``start``, else older ones."""
    rows = found.batch.rows
    if len(rows) >= window.limit:
        if window.newest:
            return _next(request, end=int(rows["open_time"][0]) // MS)
        return _next(request, start=bucket_end(tf, int(rows["open_time"][-1])) // MS)
    known = found.head.watermark  # short of the limit, and yet not at the end of what there is
    if found.reached < min(known, FAR if window.end is None else window.end):
        return _next(request, start=found.reached // MS)
    return None


def _complete(rows: Candles) -> bool | None:
    """Whether the closed rows, and with them all between, are proven; None if that cannot be told.

    Two proven rows that follow each other share a range of the ledger, for each one's proof
    holds a trade beyond its end: so nothing is missing in empty buckets between them either.
    """
    closed = rows["complete"][(rows["state"] != State.OPEN) & (rows["filled"] == 0)]
    if not len(closed) or (closed < 0).any():
        return None
    return bool((closed == 1).all())


async def _indicators(
    market: Market, tf: Timeframe, found: CandleAnswer, wanted: list[_query.Indicator]
) -> dict[str, list[str | None]]:
    """One column per indicator, parallel to the rows, computed with the candles before them."""
    rows, own = found.batch.rows, found.batch
    warm = max(derived.warm_up(one.name, one.n) for one in wanted)
    everything = rows
    if warm and len(rows):
        before = Window(end=int(rows["open_time"][0]), limit=warm, newest=True)
        everything = np.concatenate(((await market.candles(own.instrument, tf, before)).batch.rows, rows))
    skip, scale = len(everything) - len(rows), own.price_scale + derived.EXTRA
    return {
        one.label: [
            None if value is None else format_mantissa(value, scale)
            for value in derived.series(everything, one.name, one.n)[skip:]
        ]
        for one in wanted
    }


@get("/ticker/{id:path}", summary="Last price and 24 h statistics", responses=_documented(Ticker))
async def ticker(request: AnyRequest, id: FromPath[str]) -> Response[bytes]:
    """Rolling 24 h (whole minutes) and the UTC day; ``id`` percent-encoded or as path tail."""
    return answer(msgspec.json.encode(await _market(request).ticker(id.removeprefix("/"))))


@get("/coverage/{id:path}", summary="What the tape holds and what it lacks", responses=_documented(CoverageAnswer))
async def coverage(request: AnyRequest, id: FromPath[str], start: Start = None, end: End = None) -> Response[bytes]:
    """Covered id ranges and gaps that touch [``start``, ``end``); ``trades`` counts the whole tape."""
    first, last = _query.time_ns(start, "start"), _query.time_ns(end, "end")
    _check_range(first, last)
    low, high = first or 0, 2**63 - 1 if last is None else last
    state = await _market(request).coverage(id.removeprefix("/"))
    gaps = [gap for gap in state.gaps if gap.state != "closed" and gap.left_ts < high and gap.right_ts >= low]
    own = state.instrument
    body = {
        "instrument": own.id,
        "id_kind": own.id_kind,
        "trades": state.seq,
        "ranges": [(a, b) for a, b, from_ts, to_ts in state.ranges.tolist() if from_ts < high and to_ts >= low],
        "gaps": [
            {
                "left_id": gap.left_id,
                "right_id": gap.right_id,
                "left_ts": gap.left_ts // MS,
                "right_ts": gap.right_ts // MS,
                "state": gap.state,
                "reason": gap.reason,
                "attempts": gap.attempts,
            }
            for gap in gaps
        ],
        "complete": None if own.id_kind == "unique" else not gaps,
        "position": position(state.epoch, state.seq),
    }
    return answer(msgspec.json.encode(body))


@get("/book/{id:path}", summary="Order book of one instrument", responses=_documented(BookAnswer))
async def book(
    request: AnyRequest,
    id: FromPath[str],
    levels: Annotated[int, QueryParameter(ge=1, le=5000, description="Most levels of each side.")] = 100,
    at: Annotated[str | None, QueryParameter(description="The stored book at or before: ms or ISO 8601.")] = None,
) -> Response[bytes]:
    """Only a book whose ``state`` is ``live`` is current. A ``stale`` one shows the levels of ``last_update_id``, and
    ``detail`` says why it stopped there. With ``at`` a stored book, its state ``stored``. Levels deeper than the
    venue's own snapshot are unknown until they change."""
    market, id, time = _market(request), id.removeprefix("/"), _query.time_ns(at, "at")
    if time is not None:
        stored = await market.stored_book(id, time)
        sides = Levels(stored.bid_price, stored.bid_size, stored.ask_price, stored.ask_size).top(levels)
        return answer(book_json(stored, sides, "stored", data_age_ms=_age(market, stored.ts_event or stored.ts_recv)))
    view = await market.book(id)
    return answer(book_json(view, view.levels(levels), data_age_ms=_age(market, view.time)))


def _age(market: Market, time: int) -> int | None:
    """Milliseconds from ``time`` to now; None where there is no time."""
    return max(0, market.now() - time) // MS if time else None


def router() -> Router:
    """The routes; they find the market in ``app.state.market``."""
    handlers = [instruments, trades, candles, ticker, coverage, book]
    return Router("/v1", route_handlers=handlers, before_request=_only_known, tags=["market data"])
