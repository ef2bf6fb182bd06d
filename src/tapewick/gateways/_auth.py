"""Who may come in: one check of a client's token, for REST, sockets, event streams and gRPC alike.

A token travels in a header, or where a browser cannot set one in the list of subprotocols or the first message;
never in a query string.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tapewick.errors import ConfigError, Forbidden, Unauthorized
from tapewick.keys import SCOPES, Grant, KeyFile

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
EVERYBODY = Grant("", frozenset(SCOPES))


class Guard:
    """Knows the tokens and the stored keys. Each of ``tokens`` is one as it is, or ``sha256:`` and the hex digest of
    one; they may do everything. With none, and unless keys are ``required``, everybody may read.
    Raises ``ConfigError`` for one that is too short, or no digest."""

    def __init__(self, tokens: Collection[str] = (), keys: KeyFile | None = None, *, required: bool = False) -> None:
        self._digests = [_digest(number, token) for number, token in enumerate(tokens, 1)]
        self._keys, self._required = keys, required

    @property
    def open(self) -> bool:
        """Whether everybody may come in."""
        return not self._digests and not self._required

    def check(self, token: str | None, scope: str = "read") -> Grant:
        """What ``token`` grants its bearer; where everybody may come in, that to who shows none.

        Raises ``Unauthorized`` unless it is known, ``Forbidden`` if it is not for ``scope``. Writing trades is never
        open to everybody.
        """
        if self.open and scope != "ingest":
            return EVERYBODY
        if token is None:
            how = " (tapewick keys create makes one)" if scope == "ingest" else ""
            raise Unauthorized(f"a token is required{how}: send it as Authorization: Bearer TOKEN")
        grant = self._known(token)
        if grant is None:
            raise Unauthorized("the token is not known here")
        if scope not in grant.scopes and "admin" not in grant.scopes:
            raise Forbidden(f"key {grant.id} lacks the scope {scope}: use a key that has it")
        return grant

    def _known(self, token: str) -> Grant | None:
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        # All are compared, each in constant time: how long it takes tells nothing.
        same = [hmac.compare_digest(digest, known) for known in self._digests]
        stored = self._keys.grant(token) if self._keys is not None else None
        return Grant(f"token-{same.index(True) + 1}", frozenset(SCOPES)) if any(same) else stored

    def admits(self, token: str | None) -> bool:
        """Whether ``check`` passes."""
        try:
            self.check(token)
        except (Unauthorized, Forbidden):
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
    """``guard`` for all routes that are not ``PUBLIC``; the ``opt`` ``scope`` says what is needed, default read."""

    async def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if not handler.opt.get("public") and not connection.scope["path"].startswith(DOCUMENTS):
            guard.check(carried(connection.headers.get), handler.opt.get("scope", "read"))

    return check
