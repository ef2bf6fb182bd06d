"""``POST /v1/repair/{id}``: have the engine ask its venue again for what a tape lacks."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from tapewick.errors import BadRequest
from tapewick.gateways import _problem, rest
from tapewick.market import Market
from tapewick.model import NO_TIME, Wanted

__all__ = ["RepairAnswer", "router", "same_origin"]

MOST_IDS = 10_000_000  # per request: who wants more asks again, and can stop in between
LARGEST = 2**62

AnyRequest = Request[Any, Any, Any]
Id = Annotated[int | None, QueryParameter(ge=0, le=LARGEST, description="Trade id; both ends or none.")]
Since = Annotated[
    int | None, QueryParameter(ge=0, le=4_102_444_800_000, description="A time, in ms, not after the first of the ids.")
]


class RepairAnswer(msgspec.Struct):
    """What was asked of the engine: these ids, or all that is missing."""

    instrument: str
    asked: list[tuple[int, int]]


def same_origin(request: AnyRequest, doing: str) -> None:
    """Refuse another site's page: a browser would send this request in its user's name without asking."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise BadRequest(f"pages of {origin[:80]} may not {doing}; use the command line", field="origin")


@post(
    "/repair/{id:path}",
    opt={"scope": "admin"},
    status_code=202,
    summary="Ask the venue again for what the tape lacks",
    responses={
        202: ResponseSpec(RepairAnswer, description="The engine was told", generate_examples=False),
        400: ResponseSpec(_problem.Problem, description="What was wrong", media_type=_problem.MEDIA_TYPE),
        404: ResponseSpec(_problem.Problem, description="No such instrument", media_type=_problem.MEDIA_TYPE),
    },
)
async def repair(
    request: AnyRequest, id: FromPath[str], from_id: Id = None, to_id: Id = None, since: Since = None
) -> Response[bytes]:
    """Also for gaps that were given up. With ``from_id`` and ``to_id``: for these ids; the tape is extended to them."""
    same_origin(request, "start a repair")
    ranges: tuple[tuple[int, int], ...] = ()
    if from_id is not None and to_id is not None:
        if not from_id <= to_id < from_id + MOST_IDS:
            raise BadRequest(f"to_id must lie less than {MOST_IDS:,} ids after from_id, not before it", field="to_id")
        ranges = ((from_id, to_id),)
    elif from_id is not None or to_id is not None:
        raise BadRequest("give from_id and to_id, or neither", field="to_id" if to_id is None else "from_id")
    market: Market = request.app.state.market
    instrument = id.removeprefix("/")
    times = (NO_TIME if since is None else since * 1_000_000,) * len(ranges)
    await market.repair(Wanted(instrument=instrument, ranges=ranges, since=times))
    return rest.answer(msgspec.json.encode(RepairAnswer(instrument, list(ranges))), 202)


def router() -> Router:
    """The route; it finds the market in ``app.state.market``."""
    return Router("/v1", route_handlers=[repair], tags=["operation"])
