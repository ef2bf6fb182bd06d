"""Who may come in: one check of a client's token, for REST, sockets, event streams and gRPC alike.

A token travels in a header, or where a browser cannot set one in the list of subprotocols or the first message;
never in a query string.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tapewick.errors import ConfigError, Unauthorized

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

__all__ = ["PUBLIC", "Guard", "carried", "offered", "route_guard"]

PUBLIC = {"public": True}
"""The ``opt`` of routes that anybody may ask: the page, its files, documents, whether the process lives."""

DOCUMENTS = "/schema"
HASHED = "sha256:"
LEAST = 16  # characters of a token: shorter ones can be guessed
SUBPROTOCOL = "tapewick.key."


class Guard:
    """Knows the tokens. Each of ``tokens`` is one as it is, or ``sha256:`` and the hex digest of one; with none
    everybody may come in. Raises ``ConfigError`` for one that is too short, or no digest."""

    def __init__(self, tokens: Collection[str] = ()) -> None:
        self._digests = [_digest(number, token) for number, token in enumerate(tokens, 1)]

    @property
    def open(self) -> bool:
        """Whether everybody may come in."""
        return not self._digests

    def check(self, token: str | None) -> None:
        """Raises ``Unauthorized`` unless ``token`` lets its bearer in."""
        if self.open:
            return
        if token is None:
            raise Unauthorized("a token is required: send it as Authorization: Bearer TOKEN")
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        # All are compared, each in constant time: how long it takes tells nothing.
        if not sum([hmac.compare_digest(digest, known) for known in self._digests]):
            raise Unauthorized("the token is not known here")

    def admits(self, token: str | None) -> bool:
        """Whether ``check`` passes."""
        try:
            self.check(token)
        except Unauthorized:
            return False
        return True


def _digest(number: int, token: str) -> bytes:
    """Messages name a token by its place: it is a secret."""
    if token.startswith(HASHED):
        try:
            digest = bytes.fromhex(token.removeprefix(HASHED))
        except ValueError:
            digest = b""
        if len(digest) != sha256().digest_size:
            raise ConfigError(f"server.tokens: entry {number} is no SHA-256 digest; write sha256: and 64 hex digits")
        return digest
    if len(token) < LEAST:
        raise ConfigError(f"server.tokens: entry {number} is too short; use at least {LEAST} random characters")
    return sha256(token.encode()).digest()


def carried(header: Callable[[str], str | None]) -> str | None:
    """The token in a request's headers: ``Authorization``, or the one Binance clients send. None without one."""
    scheme, _, token = (header("Authorization") or "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return header("X-MBX-APIKEY") or None


def offered(subprotocols: Collection[str]) -> str | None:
    """The token among the subprotocols a browser's WebSocket offers, as ``tapewick.key.TOKEN``."""
    return next((one.removeprefix(SUBPROTOCOL) for one in subprotocols if one.startswith(SUBPROTOCOL)), None)


def route_guard(guard: Guard) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """``guard`` for all routes that are not ``PUBLIC``."""

    async def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if not handler.opt.get("public") and not connection.scope["path"].startswith(DOCUMENTS):
            guard.check(carried(connection.headers.get))

    return check
