"""Every request that writes or administers, on the audit's record: which key, from where, and how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tapewick import audit
from tapewick.gateways._auth import Guard, carried

__all__ = ["audited"]

Asgi = Callable[[Any, Any, Any], Any]
ABSENT = (404, 405)  # there was nothing to be changed
READING = ("GET", "HEAD", "OPTIONS")
MOST_PATH = 200  # characters
SIGNED = b"webhook-signature"
INGEST = "/v1/ingest/trades"


def audited(app: Asgi, guard: Guard) -> Asgi:
    """``app`` whose requests other than reading ones are recorded with their status."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] in READING:
            await app(scope, receive, send)
            return
        status = 0

        async def told(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, told)
        finally:
            if status not in ABSENT:
                _record(scope, status, guard)

    return asgi


def _record(scope: Any, status: int, guard: Guard) -> None:
    found = dict(scope["headers"])
    token = carried(lambda name: found.get(name.lower().encode(), b"").decode("latin-1"))
    known = "signature" if SIGNED in found and scope["path"] == INGEST else guard.known(token)  # as it was let in
    stranger = "unknown key" if token else "nobody"
    audit.record(
        f"{scope['method']} {scope['path'][:MOST_PATH]}",
        who=known or stranger,
        outcome=status,
        address=str((scope["client"] or ("",))[0]),
    )
