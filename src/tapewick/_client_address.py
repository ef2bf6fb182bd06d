"""Where a client's server is and whom it trusts there; and, where it does not answer, what to try next."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from tapewick.errors import ConfigError
from tapewick.net.address import shown

__all__ = ["address", "advice", "authorization", "trust"]


def address(url: str) -> str:
    """``url`` as requests are built from it. Raises ``ConfigError`` for what is no server address."""
    like = "write it like http://127.0.0.1:8080"
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.netloc and parts.port != 0
    except ValueError as error:
        raise ConfigError(f"{url!r} is no server address ({error}): {like}") from None
    if not known:
        raise ConfigError(f"{url!r} is no server address: {like}")
    if "v1" in parts.path.split("/") or parts.query or parts.fragment:
        rest = url.partition("://")[2].partition("@")[2] or url.partition("://")[2]
        raise ConfigError(f"{rest!r} is more than a server: give an address without a path, {shown(url)}")
    return url.rstrip("/")


def authorization(token: str | None) -> dict[str, str]:
    """The header that shows ``token``. Raises ``ConfigError``, without the token, for what no header can carry."""
    if not token:
        return {}
    if not token.isascii() or not token.isprintable() or token != token.strip():
        raise ConfigError("the token holds a line break, outer blanks or a character that is not ASCII: copy it again")
    return {"Authorization": f"Bearer {token}"}


def trust(tls: ssl.SSLContext | str | Path | None) -> ssl.SSLContext | None:
    """What checks the server's certificate, None for the public authorities. Raises ``ConfigError`` for a bad file."""
    if tls is None or isinstance(tls, ssl.SSLContext):
        return tls
    try:
        return ssl.create_default_context(cafile=Path(tls).expanduser())
    except FileNotFoundError:
        raise ConfigError(f"there is no file {tls}: tls names the PEM file of an authority's certificate") from None
    except ssl.SSLError as error:
        raise ConfigError(f"{tls} holds no certificate in PEM form: {error.reason or error}") from None
    except OSError as error:
        raise ConfigError(f"{tls} cannot be read: {error.strerror or error}") from None


def advice(url: str, cause: str = "", *, answered: bool = False) -> str:
    """What to try next where ``url`` failed with ``cause``; ``answered``: something is there, but spoke no HTTP."""
    host = shown(url).partition("://")[2]
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        if "mismatch" in cause:
            return "its certificate is for another name: use the name it was made for"
        if "expired" in cause or "not yet valid" in cause:
            return "renew its certificate, or set the clock"
        return "no authority trusted here vouches for it: pass tls='ca.pem' (command line: --tls-ca ca.pem)"
    if "WRONG_VERSION_NUMBER" in cause or "RECORD_LAYER_FAILURE" in cause:
        return f"no TLS is spoken there: try http://{host}"
    if "illegal re" in cause or "NO_APPLICATION_PROTOCOL" in cause:
        return "is this the server's gRPC port? Take the one that serves its pages"
    if answered and url.startswith(("http:", "ws:")):
        return f"if the server speaks TLS, try https://{host}; if this is its gRPC port, take the one of its pages"
    if answered:
        return "if it asks for a certificate, pass tls=an SSLContext that has one (command line: --tls-cert me.pem)"
    return "is a server running there?"
