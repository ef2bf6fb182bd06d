"""Signatures of incoming webhooks, as the Standard Webhooks specification writes them.

HMAC-SHA256 over ``id.timestamp.body``; a request may carry several signatures and a receiver may know several
secrets, so that either side can change its secret without losing a message.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection
from hashlib import sha256

from tapewick.errors import ConfigError, Unauthorized

__all__ = ["WINDOW", "Signatures", "secret_of", "signature"]

WINDOW = 300
"""Seconds by which a message may be old, or ahead of our clock."""

MARK = "whsec_"
LEAST = 24  # bytes; the specification's least
MOST_SIGNATURES = 16


def secret_of(text: str) -> bytes:
    """The key in ``whsec_BASE64``. Raises ``ConfigError``, which does not repeat it."""
    try:
        secret = b64decode(text.removeprefix(MARK), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(MARK) or len(secret) < LEAST:
        raise ConfigError(f"an entry is no signing secret: write {MARK} and at least {LEAST} random bytes as base64")
    return secret


def signature(secret: bytes, id: str, timestamp: str, body: bytes) -> str:
    """The value a sender puts into ``webhook-signature``."""
    signed = b".".join((id.encode("latin-1", "replace"), timestamp.encode("latin-1", "replace"), body))
    return f"v1,{b64encode(hmac.digest(secret, signed, sha256)).decode()}"


class Signatures:
    """Checks requests against the ``whsec_…`` texts of ``ingest.secrets``. Raises ``ConfigError`` for a bad one."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        try:
            self._secrets = [secret_of(text) for text in secrets]
        except ConfigError as error:
            raise ConfigError(f"ingest.secrets: {error}") from None

    def check(self, header: Callable[[str], str | None], body: bytes, now: float) -> str:
        """The id of a message that one of the secrets signed; ``now`` in seconds since 1970.

        Raises ``Unauthorized`` for one that is unsigned, changed, too old or from the future.
        """
        id, timestamp, given = (header(f"webhook-{name}") for name in ("id", "timestamp", "signature"))
        if not id or not timestamp or not given:
            raise Unauthorized("a signed message has webhook-id, webhook-timestamp and webhook-signature")
        if not self._secrets:
            raise Unauthorized("no signing secret is set here (ingest.secrets): send an API key instead")
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise Unauthorized("webhook-timestamp is not a number of seconds since 1970")
        if abs(now - int(timestamp)) > WINDOW:
            raise Unauthorized(f"webhook-timestamp is over {WINDOW} s away from the server's clock: sign it again")
        wanted = [signature(secret, id, timestamp, body).encode() for secret in self._secrets]
        shown = [one.encode("latin-1", "replace") for one in given.split()[:MOST_SIGNATURES]]
        # All pairs are compared, each in constant time: how long it takes tells nothing.
        if not sum([hmac.compare_digest(one, other) for one in shown for other in wanted]):
            raise Unauthorized("no signature fits the message: was it signed with a current secret, and not changed?")
        return id
