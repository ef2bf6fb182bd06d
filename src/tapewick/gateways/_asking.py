"""What the REST routes share: parameters, the checks on them, answers and their caching."""

from __future__ import annotations

import asyncio
import re
from contextlib import AbstractContextManager
from hashlib import blake2b
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter

from tapewick import metrics
from tapewick.errors import BadRequest, NotFound
from tapewick.formats.text import csv_head, csv_rows
from tapewick.gateways._problem import MEDIA_TYPE, Problem
from tapewick.gateways._quota import HEAVY_ROWS, Quota, Slot
from tapewick.market import Market
from tapewick.model import position

__all__ = [
    "CSV",
    "HEAVY_ROWS",
    "JSON",
    "AnyRequest",
    "End",
    "InstrumentId",
    "RowFormat",
    "Rows",
    "SinceText",
    "Start",
    "TextRequest",
    "answer",
    "check_range",
    "documented",
    "heavy",
    "heavy_rows",
    "known",
    "market_of",
    "only_known",
    "with_changes",
]

JSON, CSV = "application/json", "text/csv"
_ID = re.compile(r"[^\s:]+:\S+")
MANY_BYTES = 65_536  # of rows: what is done with more would hold up the loop

AnyRequest = Request[Any, Any, Any]


class TextRequest(Request[Any, Any, Any]):
    """A request whose JSON body may be anything: what cannot be read is the sender's mistake, not ours."""

    async def json(self) -> Any:
        """The body. Raises ``BadRequest`` for bytes that are no UTF-8, or values that are nested too deep."""
        try:
            (await self.body()).decode()
            return await super().json()
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"the body is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}", field="body"
            ) from None
        except RecursionError:
            raise BadRequest("the body is nested too deep", field="body") from None


InstrumentId = Annotated[str, QueryParameter(description="Instrument, for example binance:BTCUSDT.")]
Start = Annotated[str | None, QueryParameter(description="First time, inclusive: ms since 1970 or ISO 8601.")]
End = Annotated[str | None, QueryParameter(description="Last time, exclusive: ms since 1970 or ISO 8601.")]
SinceText = Annotated[str | None, QueryParameter(description="Position of an earlier answer; only what came after.")]
RowFormat = Annotated[
    Literal["json", "columns", "csv"],
    QueryParameter(description="json: one object per row; columns: one list per field; csv: a table as text/csv."),
]


def answer(content: bytes, status: int = 200, media_type: str = JSON) -> Response[bytes]:
    """A body that is already encoded; live data is never cached."""
    metrics.http_requests.labels(str(status)).inc()
    return Response(content, status_code=status, media_type=media_type, headers={"cache-control": "no-store"})


def documented(shape: type) -> dict[int, ResponseSpec]:
    """What a route answers, for the OpenAPI document."""
    problem = ResponseSpec(Problem, description="What was wrong", media_type=MEDIA_TYPE, generate_examples=False)
    good = ResponseSpec(shape, description="The answer", media_type=JSON, generate_examples=False)
    return {200: good, 400: problem, 404: problem, 429: problem}


def market_of(request: AnyRequest) -> Market:
    """What the routes read."""
    market: Market = request.app.state.market
    return market


def heavy(request: AnyRequest) -> Slot:
    """A place for a costly request of this client's address. Raises ``TooManyRequests``."""
    return _quota(request).slot(_address(request))


def heavy_rows(request: AnyRequest, limit: int) -> AbstractContextManager[object]:
    """A place for a request of ``limit`` rows, if that many are costly. Raises ``TooManyRequests``."""
    return _quota(request).for_rows(_address(request), limit)


def _quota(request: AnyRequest) -> Quota:
    quota: Quota = request.app.state.quota
    return quota


def _address(request: AnyRequest) -> str:
    return request.client.host if request.client else ""


def only_known(request: AnyRequest) -> None:
    """Refuse a query parameter the route does not have: a typo must not silently mean nothing."""
    known = set(request.route_handler.parsed_fn_signature.parameters) - {"request", "id"}
    known = {"from" if name == "from_" else name for name in known}
    takes = ", ".join(sorted(known)) or "none"
    for name in request.query_params:
        if name not in known:
            raise BadRequest(f"unknown parameter {name[:40]!r}; this route takes: {takes}", field=name[:40])
        if len(request.query_params.getall(name)) > 1:
            raise BadRequest(f"{name} is given more than once", field=name)


def with_changes(request: AnyRequest, **changes: object) -> str:
    """This request's address with other parameters; None drops one."""
    kept = {**dict(request.query_params.items()), **changes}
    return f"{request.url.path}?{urlencode({k: str(v) for k, v in kept.items() if v is not None})}"


async def known(market: Market, instrument: str) -> None:
    """Raises ``NotFound`` for an instrument without a tape, ``BadRequest`` for what cannot be one."""
    try:
        await market.instrument(instrument)
    except NotFound as error:
        if _ID.fullmatch(instrument):
            raise
        raise BadRequest(f"{error}; an instrument is written venue:symbol", field="instrument") from error


def check_range(start: int | None, end: int | None) -> None:
    """Raises ``BadRequest`` for a range that holds no time."""
    if start is not None and end is not None and end <= start:
        raise BadRequest("end must be after start", field="end")


class Rows:
    """Encoded rows and what is told beside them, answered in the format the request asks for.

    ``version``: epoch and highest offset of a range in which nothing opens any more, None elsewhere. Such an
    answer has a weak ETag: it stays the same until a row is revised, whatever ``data_age_ms`` says.
    """

    def __init__(self, name: str, rows: bytes, rest: dict[str, object], version: tuple[str, int] | None) -> None:
        self._name, self._rows, self._rest, self._version = name, rows, rest, version

    async def answer(self, request: AnyRequest, format: str, columns: tuple[str, ...]) -> Response[bytes]:
        if len(self._rows) > MANY_BYTES:
            return await asyncio.to_thread(self._answer, request, format, columns)
        return self._answer(request, format, columns)

    def _answer(self, request: AnyRequest, format: str, columns: tuple[str, ...]) -> Response[bytes]:
        headers = {"cache-control": "no-store"}
        if self._version is not None:
            digest = blake2b(self._rows, digest_size=8)
            digest.update(msgspec.json.encode([self._rest.get("complete"), self._rest.get("next")]))
            tag = f'W/"{position(*self._version)}-{digest.hexdigest()}"'
            headers = {"etag": tag, "cache-control": "no-cache"}  # to be asked again: it may have been revised
            if _held(tag, request.headers.get("if-none-match", "")):
                metrics.http_requests.labels("304").inc()
                return Response(b"", status_code=304, media_type=JSON, headers=headers)
        metrics.http_requests.labels("200").inc()
        if format == "csv":
            body, media_type = csv_head(columns) + csv_rows(columns, self._rows), CSV
            headers |= _told_beside(self._rest)
        else:
            rows = self._rows if format == "json" else _columns(self._rows, columns)
            head = b'{"%s":%s,' % (self._name.encode(), rows)
            body, media_type = head + msgspec.json.encode(self._rest)[1:], JSON
        return Response(body, media_type=media_type, headers=headers)


def _held(tag: str, asked: str) -> bool:
    """Whether the client's If-None-Match names ``tag``, compared weakly."""
    held = [one.strip().removeprefix("W/") for one in asked.split(",")]
    return "*" in held or tag.removeprefix("W/") in held


def _columns(rows: bytes, names: tuple[str, ...]) -> bytes:
    """A JSON array of rows as one JSON list per field; a trade stands for itself unless it says otherwise."""
    found = msgspec.json.decode(rows)
    for row in found:
        if "trade_id" in row:
            row.setdefault("first_id", row["trade_id"])
            row.setdefault("count", 1)
    return msgspec.json.encode({name: [row.get(name) for row in found] for name in names})


def _told_beside(rest: dict[str, object]) -> dict[str, str]:
    """What a table has no place for, as headers."""
    headers = {"tapewick-position": str(rest["position"])}
    if "complete" in rest:
        headers["tapewick-complete"] = msgspec.json.encode(rest["complete"]).decode()
    if rest["data_age_ms"] is not None:
        headers["tapewick-data-age-ms"] = str(rest["data_age_ms"])
    if rest["next"] is not None:
        headers["link"] = f'<{rest["next"]}>; rel="next"'
    return headers
