"""How often one client may ask: requests a minute of each key, and of each address that shows none.

Beyond it the answer is 429 with ``Retry-After``. Asking how the server is costs nothing, and Binance's paths count
their own weight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from tapewick import metrics
from tapewick.errors import TooManyRequests
from tapewick.gateways._auth import Guard, carried
from tapewick.gateways._binance_weights import Meter
from tapewick.gateways._problem import MEDIA_TYPE, body

__all__ = ["EXEMPT", "Limiter", "limited"]

EXEMPT = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
WEIGHED = ("/api/", "/sapi/", "/binance/api/", "/binance/sapi/")  # Binance's own count of weight bounds these

Asgi = Callable[[Any, Any, Any], Any]


class Limiter:
    """``per_minute`` requests for each account, 0: any number; ``now`` in ns. A known key is an account of its own,
    so that clients behind one address do not use up each other's."""

    def __init__(self, per_minute: int, guard: Guard, now: Callable[[], int]) -> None:
        self._guard, self._meter = guard, Meter(per_minute, now) if per_minute else None

    def take(self, address: str, token: str | None) -> None:
        """Count one request. Raises ``TooManyRequests``."""
        if self._meter is None:
            return
        key = self._guard.known(token)
        spent = self._meter.spend(address if key is None else f"key {key}", 1)
        if spent.wait is not None:
            metrics.limited.labels("requests").inc()
            whose = "this address" if key is None else "this key"
            raise TooManyRequests(
                f"{self._meter.limit:,} requests a minute of {whose} are used up (server.requests_per_min); "
                f"wait {spent.wait} s",
                retry_after=spent.wait,
            )


def limited(app: Asgi, limiter: Limiter, origins: Collection[str], *, weighed: bool) -> Asgi:
    """``app`` behind ``limiter``. Pages of ``origins`` can read refusals; ``weighed``: Binance's paths are served."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path not in EXEMPT and not (weighed and path.startswith(WEIGHED)):
            found = dict(scope["headers"])
            token = carried(lambda name: found.get(name.lower().encode(), b"").decode("latin-1"))
            try:
                limiter.take(str((scope["client"] or ("",))[0]), token)
            except TooManyRequests as error:
                await _refuse(send, error, found.get(b"origin", b"").decode("latin-1"), origins)
                return
        await app(scope, receive, send)

    return asgi


async def _refuse(send: Any, error: TooManyRequests, origin: str, origins: Collection[str]) -> None:
    content = body(error.status, str(error))
    headers = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(content)),
        "cache-control": "no-store",
        "retry-after": str(error.retry_after),
    }
    if origin in origins:
        headers |= {"access-control-allow-origin": origin, "vary": "Origin"}
    metrics.http_requests.labels(str(error.status)).inc()
    told = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": told})
    await send({"type": "http.response.body", "body": content})
