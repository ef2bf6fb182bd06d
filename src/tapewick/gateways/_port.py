"""One listening socket with uvicorn behind it, inside our own loop.

The socket is ours, so that its port is known, its errors are explained, and stalled readers are not fed megabytes of
old prices by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import uvicorn

from tapewick.errors import ConfigError
from tapewick.gateways._connection import Entrance, HttpProtocol

__all__ = ["SECURITY", "Port", "Tls"]

NOTSENT_LOWAT = 16_384  # bytes the kernel takes ahead of the wire; without it up to 4 MB of stale prices
SECURITY = [
    # The hash is that of the one inline <style> in use, of the chart library's attribution logo
    # (web/src/test/theme.test.ts pins it to the library's version); scripts come from files only.
    (
        "content-security-policy",
        "default-src 'self'; style-src 'self' 'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]
"""Headers of every answer."""


class Tls(NamedTuple):
    """PEM files; with ``cert`` and ``key`` the port speaks TLS only, with ``client_ca`` only to clients that show a
    certificate of that authority."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class Port:
    """A port at ``host``; ``port`` 0 lets the system choose: ``url`` tells once it is open. ``drain``: seconds
    clients have to take what is queued when it closes."""

    def __init__(self, host: str, port: int, *, tls: Tls, drain: float, entrance: Entrance) -> None:
        self._host, self._port, self._tls, self._drain = host, port, tls, drain
        self._entrance = entrance
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.url = ""

    async def open(self, application: Any, *, ws: Any = "none") -> None:
        """Serve ``application``; ``ws`` makes the protocol of upgraded connections. Raises ``ConfigError``."""
        listener = _listener(self._host, self._port)
        port = listener.getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)
        scheme = "https" if any(self._tls) else "http"
        self.url = f"{scheme}://{f'[{shown}]' if ':' in shown and '[' not in shown else shown}:{port}"
        config = uvicorn.Config(
            application,
            http=partial(HttpProtocol, self._entrance),  # type: ignore[arg-type]
            ws=ws,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=SECURITY,
            timeout_graceful_shutdown=max(1, round(self._drain)),
        )
        try:
            _load_tls(config, self._tls)
        except BaseException:
            listener.close()
            raise
        server = self._server = _Server(config)
        self._serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        listening = asyncio.create_task(server.listening.wait())
        try:
            await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._serving.done():
            self._serving.result()

    async def close(self) -> None:
        """Stop accepting, tell WebSocket clients (1001), let answers finish within ``drain``; nothing if not open."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.transport.abort()


def _load_tls(config: uvicorn.Config, tls: Tls) -> None:
    """Have the server speak TLS with a certificate. Raises ``ConfigError`` when it cannot be used."""
    if not any(tls):
        return
    if not tls.cert or not tls.key:
        raise ConfigError("TLS needs both a certificate and its key: set server.tls_cert and server.tls_key")
    config.ssl_certfile, config.ssl_keyfile = tls.cert, tls.key
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"cannot use server.tls_cert {tls.cert} with server.tls_key {tls.key}: {error}") from None
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.client_ca:
        try:
            config.ssl.load_verify_locations(tls.client_ca)
        except OSError as error:
            raise ConfigError(f"cannot use server.tls_client_ca {tls.client_ca}: {error}") from None
        config.ssl.verify_mode = ssl.CERT_REQUIRED


def _listener(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ``ConfigError`` with the remedy when that fails."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"cannot listen on port {port}: choose one from 1 to 65535, or 0 for any")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on host {host!r}, port {port}: {error}") from None
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use: choose another (--port or admin.port; 0 takes any free one), "
                "or stop the other server"
            ) from None
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} needs privileges: choose one from 1024 on with --port") from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
