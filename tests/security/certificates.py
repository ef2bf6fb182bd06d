"""Certificates that are good, of another authority or expired; contexts that speak TLS 1.1 and nothing newer."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.conformance.tls import Certificate, certificate

__all__ = ["Authorities", "authorities", "client", "eleven", "eleven_server", "spoken"]


class Authorities(NamedTuple):
    """Ours with a good certificate and an expired one, and somebody else's."""

    good: Certificate
    expired: Certificate
    foreign: Certificate


def authorities(folder: Path) -> Authorities:
    """All of them, made now; they share nothing with any other run."""
    for name in ("own", "foreign"):
        (folder / name).mkdir()
    good, foreign = certificate(folder / "own"), certificate(folder / "foreign")
    old = folder / "own" / "expired.pem"
    signing = ["-CA", good.authority, "-CAkey", folder / "own" / "authority.key", "-CAcreateserial", "-days", "-1"]
    words = ["openssl", "x509", "-req", "-in", folder / "own" / "server.csr", "-out", old, *signing]
    usage = ["-extfile", folder / "own" / "server.cnf"]
    subprocess.run([str(word) for word in (*words, *usage)], check=True, capture_output=True)
    return Authorities(good, Certificate(old, good.key, good.authority), foreign)


def client(authority: Path) -> ssl.SSLContext:
    """As a careful client makes it."""
    return ssl.create_default_context(cafile=str(authority))


def eleven(context: ssl.SSLContext) -> ssl.SSLContext:
    """``context`` that speaks TLS 1.1 only, with the ciphers that needs."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@asynccontextmanager
async def eleven_server(own: Certificate, greeting: bytes = b"", *, newest: bool = False) -> AsyncIterator[int]:
    """The port of a server that speaks TLS 1.1 only, after it has sent ``greeting`` in the clear; ``newest``: with
    what is spoken today instead. It answers nothing."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.cert, own.key)
    if not newest:
        eleven(context)
    under_way: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        with suppress(OSError, asyncio.IncompleteReadError):
            if greeting:
                writer.write(greeting)
                await writer.start_tls(context)
            while await reader.read(4096):
                pass
        writer.close()
        under_way.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=None if greeting else context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def spoken(port: int, context: ssl.SSLContext) -> str:
    """The version that a handshake agrees on. Raises ``ssl.SSLError``, ``ConnectionError``."""
    async with asyncio.timeout(30):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    version = str(writer.get_extra_info("ssl_object").version())
    writer.transport.abort()
    return version
