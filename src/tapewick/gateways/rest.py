"""REST under ``/v1``: instruments, trades, candles, ticker, coverage, books.

Rows come from the encoder as bytes and are spliced into the answer; no Python object is made
per row. Answers about a tape carry their position; a range answer also its age and completeness.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
import numpy as np
from litestar import Response, Router, get
from litestar.params import FromPath, QueryParameter

from tapewick import __version__
from tapewick.book_frames import book_json
from tapewick.channel import span
from tapewick.decimals import format_mantissa
from tapewick.engine import ENGINE
from tapewick.engine import indicators as derived
from tapewick.errors import BadRequest
from tapewick.formats.text import CANDLE_COLUMNS, TRADE_COLUMNS
from tapewick.gateways import _query
from tapewick.gateways._asking import (
    JSON,
    AnyRequest,
    End,
    InstrumentId,
    RowFormat,
    Rows,
    SinceText,
    Start,
    answer,
    check_range,
    documented,
    heavy_rows,
    known,
    market_of,
    only_known,
    with_changes,
)
from tapewick.gateways._paging import turn
from tapewick.gateways._schema import (
    BookAnswer,
    CandlesAnswer,
    CoverageAnswer,
    InstrumentsAnswer,
    PriceAnswer,
    RowsOperation,
    StatusAnswer,
    Ticker,
    TradesAnswer,
)
from tapewick.gateways._since import changed_after, own_offset
from tapewick.ladder import Levels
from tapewick.market import CandleAnswer, Market, Window
from tapewick.model import Candles, State, position
from tapewick.timeframe import Timeframe

__all__ = ["JSON", "answer", "proven", "router"]

MS = 1_000_000

Limit = Annotated[int, QueryParameter(ge=1, le=_query.MAX_ROWS, description="Most rows in the answer.")]
Filling = Annotated[
    Literal["none", "prev", "null"], QueryParameter(description="Empty buckets: omitted, last close, no prices.")
]
Times = Annotated[Literal["ms", "ns"], QueryParameter(description="ms: integers; ns: decimal strings.")]


@get("/status", summary="What serves this, and whether it is well", responses=documented(StatusAnswer))
async def status(request: AnyRequest) -> Response[bytes]:
    """``engine``: native or reference, what encodes these answers; ``trouble``: what does not work at the moment,
    null while everything does; ``server_ts``: its clock, in ms."""
    market = market_of(request)
    told = {"version": __version__, "engine": ENGINE, "trouble": market.trouble, "server_ts": market.now() // MS}
    return answer(msgspec.json.encode(told))


@get("/instruments", summary="Instruments with a tape", responses=documented(InstrumentsAnswer))
async def instruments(request: AnyRequest) -> Response[bytes]:
    """All instruments, by id; ``price_scale`` and ``size_scale`` are their most decimals."""
    rows = [
        {**msgspec.structs.asdict(instrument), "simulated": instrument.simulated}
        for instrument in await market_of(request).instruments()
    ]
    return answer(msgspec.json.encode({"instruments": rows}))


@get(
    "/trades",
    summary="Trades of one instrument",
    responses=documented(TradesAnswer),
    operation_class=RowsOperation,
)
async def trades(
    request: AnyRequest,
    instrument: InstrumentId,
    since: SinceText = None,
    start: Start = None,
    end: End = None,
    limit: Limit = 500,
    times: Times = "ms",
    format: RowFormat = "json",
) -> Response[bytes]:
    """Ascending by seq: after ``since``, or from ``start``; without either the newest ``limit``.

    Between a ``start`` and an ``end`` that have passed, the answer has an ETag.
    """
    market = market_of(request)
    first, last = _query.time_ns(start, "start"), _query.time_ns(end, "end")
    check_range(first, last)
    await known(market, instrument)
    offset = None if since is None else own_offset(since, await market.head(instrument))
    newest = offset is None and first is None
    with heavy_rows(request, limit):
        batch, head = await market.trades(instrument, since=offset, start=first, end=last, limit=limit, newest=newest)
    more = not newest and batch.seq is not None and len(batch) >= limit
    at = position(head.epoch, int(batch.seq[-1]) if more and batch.seq is not None else head.seq)
    rest: dict[str, object] = {
        "position": at,
        "data_age_ms": market.data_age_ms(instrument),
        "next": with_changes(request, since=at) if more else None,
    }
    past = since is None and first is not None and last is not None and last <= head.watermark
    version = (head.epoch, span(batch)[1]) if past else None
    rows = Rows("trades", market.encode(batch, ns=times == "ns"), rest, version)
    return await rows.answer(request, format, TRADE_COLUMNS)


@get(
    "/candles",
    summary="Candles of one instrument and timeframe",
    responses=documented(CandlesAnswer),
    operation_class=RowsOperation,
)
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
    format: RowFormat = "json",
) -> Response[bytes]:
    """Ascending by open time, the open candle included: from ``start``, or the newest ``limit``.

    With ``since``: stored rows that changed after that position, in their latest version, by pos.
    ``complete`` tells whether every closed candle of the answer, and all between, is proven whole.
    Between a ``start`` and an ``end`` that have passed, the answer has an ETag: the same until a row is revised.
    """
    market, frame, wanted = market_of(request), _query.timeframe(tf), _query.indicators(indicators)
    window = Window(_query.time_ns(start, "start"), _query.time_ns(end, "end"), limit, newest=start is None)
    check_range(window.start, window.end)
    await known(market, instrument)
    if since is not None and (start is not None or end is not None or fill != "none" or wanted):
        raise BadRequest("since cannot be combined with start, end, fill or indicators", field="since")
    if wanted and format == "csv":
        raise BadRequest("a table has no indicators; ask for them with format=json or columns", field="indicators")
    with heavy_rows(request, limit):
        if since is not None:
            offset = await changed_after(market, instrument, frame, since)
            found, more = await market.changes(instrument, frame, offset, limit)
            at = position(found.head.epoch, int(found.batch.rows["pos"][-1]) if more else found.head.pos)
            following = with_changes(request, since=at) if more else None
        else:
            found = await market.candles(instrument, frame, window, fill=None if fill == "none" else fill)
            at = position(found.head.epoch, found.head.pos)
            following = _following(request, frame, window, found)
    rest: dict[str, object] = {
        "position": at,
        "data_age_ms": market.data_age_ms(instrument),
        "complete": proven(found.batch.rows),
        "next": following,
    }
    if wanted:
        rest["indicators"] = await _indicators(market, frame, found, wanted)
    version = None if wanted or since is not None else _version(window, found)
    rows = Rows("candles", await asyncio.to_thread(market.encode, found.batch, ns=times == "ns"), rest, version)
    return await rows.answer(request, format, CANDLE_COLUMNS if fill == "none" else (*CANDLE_COLUMNS, "filled"))


def _version(window: Window, found: CandleAnswer) -> tuple[str, int] | None:
    """Epoch and highest pos of an answer all of whose time has passed; None of others."""
    rows, end = found.batch.rows, window.end
    if window.start is None or end is None or end > found.head.watermark or (rows["state"] == State.OPEN).any():
        return None
    return found.head.epoch, int(rows["pos"].max()) if len(rows) else 0


def _following(request: AnyRequest, tf: Timeframe, window: Window, found: CandleAnswer) -> str | None:
    """The address of the page that ``turn`` finds."""
    later = turn(tf, window, found)
    return None if later is None else with_changes(request, **{later.bound: later.at // MS})


def proven(rows: Candles) -> bool | None:
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

    def column(one: _query.Indicator) -> list[str | None]:
        values = derived.series(everything, one.name, one.n)[skip:]
        return [None if value is None else format_mantissa(value, scale) for value in values]

    return {one.label: await asyncio.to_thread(column, one) for one in wanted}


@get("/ticker/{id:path}", summary="Last price and 24 h statistics", responses=documented(Ticker))
async def ticker(request: AnyRequest, id: FromPath[str]) -> Response[bytes]:
    """Rolling 24 h (whole minutes) and the UTC day; ``id`` percent-encoded or as path tail."""
    return answer(msgspec.json.encode(await market_of(request).ticker(id.removeprefix("/"))))


@get("/price/{id:path}", summary="Price as of a time", responses=documented(PriceAnswer))
async def price(
    request: AnyRequest,
    id: FromPath[str],
    at: Annotated[str | None, QueryParameter(description="ms since 1970 or ISO 8601; none: now.")] = None,
) -> Response[bytes]:
    """The last trade at or before ``at``. ``complete``: no trade between it and ``at`` is missing; null where ids
    cannot prove that, or the tape has not reached ``at``."""
    market, id, time = market_of(request), id.removeprefix("/"), _query.time_ns(at, "at")
    found = await market.price(id, market.now() if time is None else time)
    body = {
        "instrument": id,
        "price": format_mantissa(found.price, found.price_scale),
        "ts_event": found.ts_event // MS,
        "trade_id": str(found.trade_id) if found.text_id else found.trade_id,
        "at": found.at // MS,
        "age_ms": (found.at - found.ts_event) // MS,
        "complete": found.complete,
        "position": found.position,
    }
    return answer(msgspec.json.encode(body))


@get("/coverage/{id:path}", summary="What the tape holds and what it lacks", responses=documented(CoverageAnswer))
async def coverage(request: AnyRequest, id: FromPath[str], start: Start = None, end: End = None) -> Response[bytes]:
    """Covered id ranges and gaps that touch [``start``, ``end``); ``trades`` counts the whole tape."""
    first, last = _query.time_ns(start, "start"), _query.time_ns(end, "end")
    check_range(first, last)
    low, high = first or 0, 2**63 - 1 if last is None else last
    state = await market_of(request).coverage(id.removeprefix("/"))
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
                "left_ts": gap.times_ms[0],
                "right_ts": gap.times_ms[1],
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


@get("/book/{id:path}", summary="Order book of one instrument", responses=documented(BookAnswer))
async def book(
    request: AnyRequest,
    id: FromPath[str],
    levels: Annotated[int, QueryParameter(ge=1, le=5000, description="Most levels of each side.")] = 100,
    at: Annotated[str | None, QueryParameter(description="The stored book at or before: ms or ISO 8601.")] = None,
) -> Response[bytes]:
    """Only a book whose ``state`` is ``live`` is current. A ``stale`` one shows the levels of ``last_update_id``, and
    ``detail`` says why it stopped there. With ``at`` a stored book, its state ``stored``. Levels deeper than the
    venue's own snapshot are unknown until they change."""
    market, id, time = market_of(request), id.removeprefix("/"), _query.time_ns(at, "at")
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
    handlers = [status, instruments, trades, candles, ticker, price, coverage, book]
    return Router("/v1", route_handlers=handlers, before_request=only_known, tags=["market data"])
