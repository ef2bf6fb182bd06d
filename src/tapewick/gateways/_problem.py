"""Errors as RFC 9457 problem bodies: the same shape for every 4xx and 5xx of the port."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Literal, get_args, get_origin

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from tapewick import metrics
from tapewick.errors import ApiError, Conflict, ModelError, StoreError, TooManyRequests, Unauthorized, Unavailable
from tapewick.secrecy import masked

__all__ = ["HANDLERS", "MEDIA_TYPE", "Problem", "body", "headers_of"]

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
_MISSING = re.compile(r"^Missing required \w+ parameter '(\w+)'")

AnyRequest = Request[Any, Any, Any]


class Problem(msgspec.Struct, omit_defaults=True):
    """What went wrong, what to do about it, and which field it was about."""

    title: str
    status: int
    detail: str
    field: str | None = None
    type: str = "about:blank"


def body(status: int, detail: str, field: str | None = None) -> bytes:
    """A problem as JSON."""
    detail = masked(detail)
    problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return msgspec.json.encode(problem if field is None else {**problem, "field": field})


def headers_of(error: ApiError) -> dict[str, str]:
    """What HTTP wants to be told beside the status."""
    if isinstance(error, Conflict | TooManyRequests | Unavailable):
        return {"retry-after": str(error.retry_after)}
    return {"www-authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}


def _response(
    status: int, detail: str, field: str | None = None, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    metrics.http_requests.labels(str(status)).inc()
    return Response(
        body(status, detail, field),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={**(headers or {}), "cache-control": "no-store"},
    )


def _api(request: AnyRequest, error: ApiError) -> Response[bytes]:
    return _response(error.status, str(error), error.field, headers_of(error))


def _model(request: AnyRequest, error: ModelError) -> Response[bytes]:
    return _response(400, str(error))


def _store(request: AnyRequest, error: StoreError) -> Response[bytes]:
    log.error("a request failed in the store", path=request.url.path, cause=str(error))
    return _response(503, "the store does not answer; try again", headers={"retry-after": "1"})


def _http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    status, detail, field = error.status_code, error.detail, None
    if status == 404:
        detail = f"no route {request.url.path[:80]}; GET /docs lists them"
    elif status == 405:
        detail = f"{request.method} is not allowed on {request.url.path[:80]}"
    elif (missing := _MISSING.match(detail)) is not None:
        field = missing[1]
        detail = f"{field} is required"
    elif isinstance(error.extra, list) and error.extra and isinstance(error.extra[0], dict):
        field = str(error.extra[0].get("key", "")) or None
        detail = f"{field}: {_expected(request, field or '', str(error.extra[0].get('message', detail)))}"
    return _response(status, detail, field, error.headers)


def _expected(request: AnyRequest, field: str, said: str) -> str:
    """What a parameter takes, in words for people."""
    parameter = request.route_handler.parsed_fn_signature.parameters.get(field)
    choices = [] if parameter is None else list(_choices(parameter.raw))
    if choices:
        return f"expected one of {', '.join(map(str, choices))}"
    bound = re.fullmatch(r"Expected `(int|float)`(?: ([<>]=?) (\S+))?(?:, got .*)?", said)
    if bound is None:
        return said
    kind = "a whole number" if bound[1] == "int" else "a number"
    words = {"<=": "of at most", ">=": "of at least", "<": "below", ">": "above"}
    return f"expected {kind}" + (f" {words[bound[2]]} {bound[3]}" if bound[2] else "")


def _choices(hint: object) -> Iterator[object]:
    """The values of every ``Literal`` in an annotation."""
    for one in get_args(hint):
        if get_origin(hint) is Literal:
            yield one
        else:
            yield from _choices(one)


def _unexpected(request: AnyRequest, error: Exception) -> Response[bytes]:
    log.error("a request failed", path=request.url.path, exc_info=error)
    return _response(500, "an unexpected error; the server's log has the details")


HANDLERS: dict[type[Exception] | int, Any] = {
    ApiError: _api,
    ModelError: _model,
    StoreError: _store,
    HTTPException: _http,
    Exception: _unexpected,
}
"""Litestar's exception handlers."""
