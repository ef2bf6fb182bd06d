"""The OpenAPI document: what routes declare of themselves, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Reference,
    Schema,
    SecurityScheme,
)
from litestar.routes import HTTPRoute

from tapewick import __version__
from tapewick.gateways._limiter import EXEMPT
from tapewick.gateways._problem import MEDIA_TYPE

__all__ = ["completed", "config"]

DESCRIPTION = """\
Prices that can be proven: trades as a tape without holes or duplicates, candles of every timeframe, order books.
Prices and sizes are exact decimal strings. Errors are `application/problem+json` and name their field. The same data
is pushed over `/v1/ws` and `/v1/sse`, which this document cannot describe: `/docs` does."""
KEY, SIGNATURE = "key", "signature"
SCHEMES = {
    KEY: SecurityScheme(
        type="http", scheme="bearer", description="A key of `tapewick keys create`, or one of `server.tokens`."
    ),
    SIGNATURE: SecurityScheme(
        type="apiKey",
        name="webhook-signature",
        security_scheme_in="header",
        description="Standard Webhooks: with `webhook-id` and `webhook-timestamp`, made with one of `ingest.secrets`.",
    ),
}
METHODS = ("get", "post", "delete")
REFUSED = {
    "401": "No token, or one that is not known here",
    "403": "The key lacks the scope that this needs",
    "429": "The quota of this key or address is used up; Retry-After tells when to go on",
    "503": "The store or the bus does not answer; Retry-After tells when to try again",
}


def config(title: str) -> OpenAPIConfig:
    """What Litestar is to make the document of; ``completed`` finishes it."""
    return OpenAPIConfig(
        title=title,
        version=__version__,
        description=DESCRIPTION,
        path="/schema",
        render_plugins=[JsonRenderPlugin()],
        components=Components(security_schemes=dict(SCHEMES)),
        use_handler_docstrings=True,
    )


def completed(app: Litestar, *, open: bool) -> dict[str, Any]:
    """The document of ``app``, from now on what it serves: with who may ask what, how any route can refuse, and what
    the shapes mean. ``open``: reading needs no token."""
    document = app.openapi_schema
    for path, handler, operation in _operations(app):
        _secured(handler, operation, open)
        if not handler.opt.get("public"):
            _refusing(path, operation)
    meanings = {shape.__name__: shape.__doc__ for shape in _shapes(msgspec.Struct)}
    for name, schema in (document.components.schemas or {}).items():
        if isinstance(schema, Schema) and schema.description is None and (text := meanings.get(name)):
            schema.description = cleandoc(text)
    return document.to_schema()


def _operations(app: Litestar) -> Iterator[tuple[str, HTTPRouteHandler, Operation]]:
    paths = app.openapi_schema.paths or {}
    for route in app.routes:
        if not isinstance(route, HTTPRoute) or route.path_format not in paths:
            continue
        for handler in route.route_handlers:
            for method in METHODS:
                operation = getattr(paths[route.path_format], method)
                if operation is not None and method.upper() in handler.http_methods:
                    yield route.path_format, handler, operation


def _secured(handler: HTTPRouteHandler, operation: Operation, open: bool) -> None:
    """What a client must show: a public route that refuses nevertheless checks it by itself."""
    if handler.opt.get("public"):
        operation.security = [{KEY: []}, {SIGNATURE: []}] if "401" in (operation.responses or {}) else []
    elif open and handler.opt.get("scope", "read") == "read":
        operation.security = [{}, {KEY: []}]
    else:
        operation.security = [{KEY: []}]


def _refusing(path: str, operation: Operation) -> None:
    """The refusals that no route declares: those of the door, and of a store that is away."""
    responses = operation.responses = operation.responses or {}
    problem = {MEDIA_TYPE: OpenAPIMediaType(schema=Reference(ref="#/components/schemas/Problem"))}
    wrong = responses.get("400")
    own = wrong.content if isinstance(wrong, OpenAPIResponse) else None  # another API has its own shape
    for status, text in REFUSED.items():
        if path not in EXEMPT or status in ("401", "403"):
            content = problem if status == "503" or not own else own
            responses.setdefault(status, OpenAPIResponse(description=text, content=content))


def _shapes(base: type) -> Iterator[type]:
    """The structs that gateways define."""
    known: list[type] = base.__subclasses__()
    for shape in known:
        if shape.__module__.startswith("tapewick.gateways."):
            yield shape
        yield from _shapes(shape)
