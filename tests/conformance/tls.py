"""Certificates of an authority made for one test run, and a proxy that speaks TLS for a server that does not."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Certificate", "certificate", "terminated"]


class Certificate(NamedTuple):
    """Files: the server's certificate and key, and the authority's certificate, which clients are to trust."""

    cert: Path
    key: Path
    authority: Path


def certificate(folder: Path) -> Certificate:
    """A certificate for 127.0.0.1, signed by an authority of its own."""
    authority, authority_key = folder / "authority.pem", folder / "authority.key"
    cert, key, request = folder / "server.pem", folder / "server.key", folder / "server.csr"
    usage = folder / "server.cnf"
    usage.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new_key = ["-newkey", "rsa:2048", "-nodes"]
    _openssl("req", "-x509", *new_key, "-keyout", authority_key, "-out", authority, "-days", "2", "-subj", "/CN=tests")
    _openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=127.0.0.1")
    signing: list[str | Path] = [
        "-CA",
        authority,
        "-CAkey",
        authority_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        usage,
    ]
    _openssl("x509", "-req", "-in", request, "-out", cert, *signing)
    return Certificate(cert, key, authority)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@asynccontextmanager
async def terminated(port: int, own: Certificate) -> AsyncIterator[int]:
    """A port on loopback where ``port`` is spoken to through TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.cert, own.key)
    open_now: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copied(reader, there[1]), _copied(there[0], writer))
        finally:
            open_now.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes from one side to the other until either has ended."""
    with suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
