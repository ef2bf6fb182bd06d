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
from tapewick.gateways._address import FORWARDED, loopback
from tapewick.gateways._quota import Quota, Slot
from tapewick.keys import SCOPES, Grant, Keys

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

__all__ = ["PUBLIC", "Guard", "carried", "offered", "route_guard"]

PUBLIC = {"public": True}
"""The ``opt`` of routes that anybody may ask: the page, its files, documents, whether the process lives."""

DOCUMENTS = "/schema"
HASHED = "sha256:"
FORWARDING = (
    FORWARDED,
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-forwarded",
    "x-forwarded-by",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-envoy-external-address",
    "forwarded-for",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
)
"""Headers of which any tells that the request came through somebody else."""
NAMES_OF_HERE = ("localhost", "127.0.0.1", "[::1]")
LEAST = 16  # characters of a token: shorter ones can be guessed
SUBPROTOCOL = "tapewick.key."
EVERYBODY = Grant("", frozenset(SCOPES))


class Guard:
    """Knows the tokens and the stored keys. Each of ``tokens`` is one as it is, or ``sha256:`` and the hex digest of
    one; they may do everything. With none, and unless keys are ``required``, everybody may read. ``push_per_key``:
    push connections one of them may have open; ``local_admin``: whoever asks from this very machine may administer
    where everybody may read. Raises ``ConfigError`` for one that is too short, or no digest."""

    def __init__(
        self,
        tokens: Collection[str] = (),
        keys: Keys | None = None,
        *,
        required: bool = False,
        push_per_key: int = 16_384,
        local_admin: bool = True,
    ) -> None:
        self._digests = [_digest(number, token) for number, token in enumerate(tokens, 1)]
        self._keys, self._required, self._local_admin = keys, required, local_admin
        self._seats = Quota(push_per_key, what="push connections", whose="this key", setting="server.push_per_key")

    async def start(self) -> None:
        """Be able to answer: where keys are shared, know them. Raises ``TapewickError``."""
        if self._keys is not None:
            await self._keys.start()

    async def stop(self) -> None:
        """Let go of where the keys are."""
        if self._keys is not None:
            await self._keys.stop()

    @property
    def open(self) -> bool:
        """Whether everybody may come in."""
        return not self._digests and not self._required

    def check(self, token: str | None, scope: str = "read", *, local: bool = True) -> Grant:
        """What ``token`` grants its bearer; where everybody may come in, that to who shows none.

        Raises ``Unauthorized`` unless it is known, ``Forbidden`` if it is not for ``scope``. Writing trades is never
        open to everybody, administration only to who is ``local``: at this very machine.
        """
        here = local and self._local_admin and token is None
        if self.open and (scope == "read" or (scope == "admin" and here)):
            return EVERYBODY
        if token is None:
            how = "" if scope == "read" else f" (tapewick keys create --scope {scope} makes one)"
            if scope == "admin" and self.open and not self._local_admin:
                how += "; server.local_admin lets this machine do without, where no proxy forwards to this port"
            raise Unauthorized(f"a token is required{how}: send it as Authorization: Bearer TOKEN")
        grant = self._known(token)
        if grant is None:
            raise Unauthorized("the token is not known here")
        if scope not in grant.scopes and "admin" not in grant.scopes:
            raise Forbidden(f"key {grant.id} lacks the scope {scope}: use a key that has it")
        return grant

    def known(self, token: str | None) -> str | None:
        """The id of the key ``token`` is; None for a stranger, or no token."""
        grant = self._known(token) if token else None
        return None if grant is None else grant.id

    def seat(self, grant: Grant) -> Slot | None:
        """A place for a push connection of the grant's key; None needs none. Raises ``TooManyRequests``."""
        return self._seats.slot(grant.id) if grant.id else None

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
    """The token in a request's headers: ``Authorization``, or the one that Binance clients or clients of older
    systems send. None without one."""
    scheme, _, token = (header("Authorization") or "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return header("X-MBX-APIKEY") or header("X-API-Key") or None


def offered(subprotocols: Collection[str]) -> str | None:
    """The token among the subprotocols a browser's WebSocket offers, as ``tapewick.key.TOKEN``."""
    return next((one.removeprefix(SUBPROTOCOL) for one in subprotocols if one.startswith(SUBPROTOCOL)), None)


def route_guard(guard: Guard) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """``guard`` for all routes that are not ``PUBLIC``; the ``opt`` ``scope`` says what is needed, default read."""

    async def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if not handler.opt.get("public") and not connection.scope["path"].startswith(DOCUMENTS):
            scope = handler.opt.get("scope", "read")
            if scope != "read" or not guard.open:
                guard.check(carried(connection.headers.get), scope, local=_local(connection))

    return check


def _local(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether somebody at this machine seems to ask: no proxy that says so in between, and no page whose name was made
    to point here. One that forwards bare connections cannot be told: hence ``local_admin``."""
    headers = connection.headers
    near = connection.client is not None and loopback(connection.client.host)
    direct = not any(name in headers for name in FORWARDING)
    host = headers.get("host", "")
    return near and direct and (host if host.endswith("]") else host.rpartition(":")[0] or host) in NAMES_OF_HERE
