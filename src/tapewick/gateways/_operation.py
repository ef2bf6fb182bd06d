"""What operators and their machines ask: health and metrics, on the public port or on one of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from tapewick import metrics
from tapewick.gateways import _problem, rest
from tapewick.gateways._auth import PUBLIC
from tapewick.market import Market
from tapewick.secrecy import masked

__all__ = ["health", "prometheus", "readiness"]

_STATUS = {
    200: ResponseSpec(dict[str, Any], description="How it stands", media_type=rest.JSON, generate_examples=False),
    503: ResponseSpec(_problem.Problem, description="Why not", media_type=_problem.MEDIA_TYPE, generate_examples=False),
}
_METRICS = {200: ResponseSpec(str, description="The metrics", media_type=metrics.CONTENT_TYPE, generate_examples=False)}


def readiness(trouble: Callable[[], str | None]) -> list[HTTPRouteHandler]:
    """Routes for machines; ``trouble`` tells why the process is not ready, None while it is."""

    @get("/health/live", summary="Whether the process runs", tags=["operation"], responses=_STATUS, opt=PUBLIC)
    async def live() -> Response[bytes]:
        """200 for as long as the process answers at all: whoever restarts it asks here."""
        return rest.answer(b'{"status":"ok"}')

    @get(
        "/health/ready",
        summary="Whether it can serve; 503 names the cause",
        tags=["operation"],
        responses=_STATUS,
        opt=PUBLIC,
    )
    async def ready() -> Response[bytes]:
        """Whoever sends it clients asks here: 503 while it cannot answer them as it should, `detail` says why."""
        cause = trouble()
        if cause is None:
            return rest.answer(b'{"status":"ready"}')
        return rest.answer(_problem.body(503, cause), 503, _problem.MEDIA_TYPE)

    return [live, ready]


def health(market: Market, trouble: Callable[[], str | None]) -> list[HTTPRouteHandler]:
    """The same, and one for people."""

    @get(
        "/health",
        summary="How sources, books and gaps stand; the rows of channel health",
        tags=["operation"],
        responses=_STATUS,
    )
    async def all_of_it() -> Response[bytes]:
        """For people, and 200 either way: `status` ready or unready with its `cause`, and as `conditions` the rows of
        channel `health`."""
        cause = trouble()
        body = {
            "status": "ready" if cause is None else "unready",
            "cause": cause,
            "conditions": await market.conditions(""),
        }
        return rest.answer(masked(msgspec.json.encode(body).decode()).encode())

    return [*readiness(trouble), all_of_it]


def prometheus() -> HTTPRouteHandler:
    """The route of the metrics."""

    @get("/metrics", summary="Prometheus metrics", tags=["operation"], responses=_METRICS)
    async def metered() -> Response[bytes]:
        """What this process counts, in the text format that Prometheus reads."""
        return rest.answer(metrics.render(), media_type=metrics.CONTENT_TYPE)

    return metered
