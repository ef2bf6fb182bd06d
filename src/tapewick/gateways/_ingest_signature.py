"""Signatures of incoming webhooks, as the Standard Webhooks specification writes them.

HMAC-SHA256 over ``id.timestamp.body``; a request may carry several signatures and a receiver may know several
secrets, so that either side can change its secret without losing a message.
"""

from __future__ import annotations

import binascii
import hmac
import re
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


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
"""Names of those who sign; letters and digits, so that logs stay readable."""


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
    """Checks requests against the ``whsec_…`` or ``NAME=whsec_…`` texts of ``ingest.secrets``. Raises ``ConfigError``
    for a bad one."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        try:
            self._secrets = [_named(text) for text in secrets]
        except ConfigError as error:
            raise ConfigError(f"ingest.secrets: {error}") from None

    def check(self, header: Callable[[str], str | None], body: bytes, now: float) -> tuple[str, str]:
        """The id of a message that one of the secrets signed, and the secret's name, "" where it has none; ``now`` in
        seconds since 1970.

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
        wanted = [(signature(secret, id, timestamp, body).encode(), name) for name, secret in self._secrets]
        shown = [one.encode("latin-1", "replace") for one in given.split()[:MOST_SIGNATURES]]
        # All pairs are compared, each in constant time: how long it takes tells nothing.
        same = [(hmac.compare_digest(one, other), name) for one in shown for other, name in wanted]
        names = [name for equal, name in same if equal]
        if not names:
            raise Unauthorized("no signature fits the message: was it signed with a current secret, and not changed?")
        return id, names[0]


def _named(text: str) -> tuple[str, bytes]:
    """The name of who signs with a secret, and the secret."""
    name, _, secret = ("", "", text) if text.startswith(MARK) else text.partition("=")
    if name and NAME.fullmatch(name) is None:
        raise ConfigError("the name before a signing secret is of letters, digits, '.', '_' and '-', at most 63")
    return name, secret_of(secret)
