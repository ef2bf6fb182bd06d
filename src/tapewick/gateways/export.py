"""``/v1/export/…``: whole ranges as files, streamed while they are read.

The answer begins at once and costs one page of memory however long it gets; a reader that stops
stops the reading. Its head tells the position it was begun at.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Annotated

from litestar import Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from litestar.response import Stream

from tapewick import export, metrics
from tapewick.formats import FORMATS, Format
from tapewick.gateways import _query
from tapewick.gateways._asking import (
    AnyRequest,
    End,
    InstrumentId,
    SinceText,
    Start,
    check_range,
    documented,
    heavy,
    known,
    market_of,
    only_known,
)
from tapewick.gateways._quota import Slot
from tapewick.gateways._schema import ExportOperation
from tapewick.gateways._since import own_offset

__all__ = ["router"]

FormatName = Annotated[Format, QueryParameter(description="jsonl, csv, arrow (a stream) or parquet.")]

_RESPONSES = {
    **documented(bytes),
    200: ResponseSpec(bytes, description="The file", media_type="application/x-ndjson", generate_examples=False),
}


@get("/trades", summary="Trades as a file", responses=_RESPONSES, operation_class=ExportOperation)
async def trades(
    request: AnyRequest,
    instrument: InstrumentId,
    format: FormatName = "jsonl",
    since: SinceText = None,
    start: Start = None,
    end: End = None,
) -> Stream:
    """Ascending by seq: all, those after ``since``, or those of a range of time. Header ``tapewick-position`` is
    the position up to which the tape was read: pass it as ``since`` to get what came later."""
    market = market_of(request)
    first, last = _query.time_ns(start, "start"), _query.time_ns(end, "end")
    check_range(first, last)
    await known(market, instrument)
    offset = None if since is None else own_offset(since, await market.head(instrument))
    slot = heavy(request)
    made = await export.trades(market, instrument, since=offset, start=first, end=last)
    return _file(made, format, f"{instrument}-trades", slot)


@get("/candles", summary="Candles as a file", responses=_RESPONSES, operation_class=ExportOperation)
async def candles(
    request: AnyRequest,
    instrument: InstrumentId,
    tf: Annotated[str, QueryParameter(description="1s 1m 3m 5m 15m 30m 45m 1h 2h 3h 4h 6h 8h 12h 1d 3d 1w 1M")],
    format: FormatName = "jsonl",
    start: Start = None,
    end: End = None,
) -> Stream:
    """Ascending by open time, the open candle included. What changed while the file was written has a higher pos than
    header ``tapewick-position``: ask ``/v1/candles`` for it with ``since``."""
    market, frame = market_of(request), _query.timeframe(tf)
    first, last = _query.time_ns(start, "start"), _query.time_ns(end, "end")
    check_range(first, last)
    await known(market, instrument)
    slot = heavy(request)
    made = await export.candles(market, instrument, frame, start=first, end=last)
    return _file(made, format, f"{instrument}-{frame.name}", slot)


def _file(made: export.Export, format: Format, name: str, slot: Slot) -> Stream:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)

    async def body() -> AsyncGenerator[bytes, None]:
        with slot:
            async for chunk in export.chunks(made, format):
                yield chunk

    metrics.http_requests.labels("200").inc()
    headers = {
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="{safe}.{format}"',
        "tapewick-position": made.position,
    }
    return Stream(body(), media_type=FORMATS[format].media_type, headers=headers)


def router() -> Router:
    """The routes; they find the market and the quota in ``app.state``."""
    return Router("/v1/export", route_handlers=[trades, candles], before_request=only_known, tags=["export"])
