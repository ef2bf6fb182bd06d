"""What a request's head must be beyond what the parser checks: two readers of it must never read two things.

A proxy in front and this server have to agree on where a request ends, whom it is for and who sent it. Whatever could
be read in two ways is refused, and its connection closed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Fault", "fault"]

VERSIONS = ("1.0", "1.1")
SINGLE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"origin",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"upgrade",
        b"webhook-id",
        b"webhook-signature",
        b"webhook-timestamp",
        b"x-api-key",
        b"x-mbx-apikey",
    }
)
"""Headers of which a second one could mean something else to the next reader."""

HOST = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=]*(:\d{0,5})?|\[[0-9A-Fa-f:.]+\](:\d{0,5})?")
ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class Fault(NamedTuple):
    """Why a request is not answered, and with which status."""

    status: int
    detail: str


def fault(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], *, upgrades: bool) -> Fault | None:
    """What is wrong with a head: ``version`` as in HTTP/1.1, the request's ``target``, names in lower case.
    ``upgrades``: it asks for another protocol, so that the parser takes what follows for no body."""
    if version not in VERSIONS:
        return Fault(505, f"HTTP/{version} is not spoken here: use HTTP/1.1")
    repeated = [name for name, count in Counter(name for name, _ in headers).items() if count > 1 and name in SINGLE]
    if repeated:
        return Fault(400, f"the header {repeated[0].decode()} is there more than once: send one")
    named = dict(headers)
    if upgrades and (b"transfer-encoding" in named or named.get(b"content-length", b"0").strip(b"0 \t")):
        return Fault(400, "a request for another protocol has no body here: leave out Upgrade, or the body")
    return _host(version, target, named.get(b"host")) or _coding(
        version, [value for name, value in headers if name == b"transfer-encoding"]
    )


def _host(version: str, target: bytes, host: bytes | None) -> Fault | None:
    if host is None:
        return Fault(400, "an HTTP/1.1 request names its host: send the header Host") if version == "1.1" else None
    if HOST.fullmatch(host) is None:
        return Fault(400, "the header Host is no name or address with a port")
    absolute = ABSOLUTE.match(target)
    if absolute is not None and absolute[1].lower() != host.lower():
        return Fault(400, "the address and the header Host name different hosts")
    return None


def _coding(version: str, codings: Sequence[bytes]) -> Fault | None:
    """Bodies come as they are, whole or in chunks."""
    if not codings:
        return None
    if version == "1.0":
        return Fault(400, "HTTP/1.0 knows no Transfer-Encoding: send Content-Length")
    if len(codings) > 1 or codings[0].strip(b" \t").lower() != b"chunked":
        return Fault(501, "of transfer encodings only chunked, once and alone, is taken: send the body as it is")
    return None
