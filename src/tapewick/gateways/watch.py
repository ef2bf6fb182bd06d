"""``/v1/watch``: what is collected at run time, beside what the settings name."""

from __future__ import annotations

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody

from tapewick.errors import NotFound
from tapewick.gateways._asking import JSON, AnyRequest, answer, market_of, only_known
from tapewick.gateways._problem import MEDIA_TYPE, Problem
from tapewick.gateways._repair import same_origin
from tapewick.watches import State

__all__ = ["WatchAnswer", "WatchList", "WatchRequest", "router"]

ADMIN = {"scope": "admin"}


class WatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to collect from now on, as venue:SYMBOL."""

    instrument: str


class WatchAnswer(msgspec.Struct, omit_defaults=True):
    """One watched instrument. ``collected``: it has a tape; ``pending``: no collector has answered yet; ``refused``:
    a collector cannot collect it, ``detail`` says why."""

    instrument: str
    state: State
    detail: str = ""


class WatchList(msgspec.Struct):
    """Everything watched."""

    watched: list[WatchAnswer]


def _problem(description: str) -> ResponseSpec:
    return ResponseSpec(Problem, description=description, media_type=MEDIA_TYPE, generate_examples=False)


def _good(shape: type, description: str) -> ResponseSpec:
    return ResponseSpec(shape, description=description, media_type=JSON, generate_examples=False)


_BAD = {400: _problem("What was wrong"), 503: _problem("Store or bus are away; Retry-After tells when to try again")}


@get("/watch", summary="Instruments collected at run time", responses={200: _good(WatchList, "The list"), **_BAD})
async def watched(request: AnyRequest) -> Response[bytes]:
    """What was asked for here and at every other gateway, by id; not what the settings of collectors name."""
    only_known(request)
    found = await market_of(request).watches().listed()
    return answer(msgspec.json.encode(WatchList([WatchAnswer(id, *how) for id, how in found.items()])))


@post(
    "/watch",
    status_code=201,
    opt=ADMIN,
    summary="Collect an instrument from now on",
    responses={
        201: _good(WatchAnswer, "It has a tape"),
        202: _good(WatchAnswer, "No collector has answered yet; a refusal that comes later takes the wish back"),
        **_BAD,
    },
)
async def watch(request: AnyRequest, data: JSONBody[WatchRequest]) -> Response[bytes]:
    """Reaches every collector at once, and survives restarts. A symbol the venue does not list is refused, and not
    kept."""
    same_origin(request, "change what is collected")
    row = await market_of(request).watches().add(data.instrument)
    return answer(msgspec.json.encode(WatchAnswer(*row)), 201 if row[1] == "collected" else 202)


@delete(
    "/watch/{id:path}",
    status_code=204,
    opt=ADMIN,
    summary="Collect an instrument no longer",
    responses={404: _problem("It is not watched"), **_BAD},
)
async def unwatch(request: AnyRequest, id: FromPath[str]) -> None:
    """What is on its tape stays, and is served. What the settings of a collector name goes on."""
    same_origin(request, "change what is collected")
    if not await market_of(request).watches().end(id.removeprefix("/")):
        raise NotFound(f"{id[1:80]} is not watched; GET /v1/watch lists what is", field="id")


def router() -> Router:
    """The routes; they find the market in ``app.state.market``."""
    return Router("/v1", route_handlers=[watched, watch, unwatch], tags=["operation"])
