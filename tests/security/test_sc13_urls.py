"""SC13: the server asks addresses its operator wrote down, and follows nobody to another."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tapewick.errors import SourceError
from tapewick.net.http import JsonClient
from tests.security.rig import locked

METADATA = "http://169.254.169.254/latest/meta-data"


@asynccontextmanager
async def answering(head: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every request with ``head``: its address, and the requests it got."""
    seen: list[bytes] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_sc13_a_venue_cannot_lead_us_elsewhere(status: str) -> None:
    async with answering("200 OK") as (inside, reached):
        async with answering(f"{status}\r\nLocation: {inside}/admin") as (venue, asked), JsonClient(venue) as client:
            with pytest.raises(SourceError, match="HTTP 30"):
                await client.get("/api/v3/time", dict[str, int])
            assert len(asked) == 1
        assert not reached


async def test_sc13_no_route_takes_an_address(tmp_path: Path) -> None:
    async with locked(tmp_path) as server:
        document = (await server.ask("GET", "/schema/openapi.json")).text
        names = set(re.findall(r'"name":"([^"]+)"', document.replace('": "', '":"')))
        names.remove("webhook-signature")  # a header that holds no address
        assert names and not [name for name in names if re.search("ur[il]|host|callback|webhook|target|dsn", name)]
        admin = server.key("admin")
        async with answering("200 OK") as (inside, reached):
            for name in ("url", "uri", "callback", "webhook", "rest_url", "source", "proxy"):
                for path in ("/v1/instruments", "/v1/repair/sim:BTCUSDT", "/v1/sse", "/udf/config"):
                    for address in (inside, METADATA):
                        method = "POST" if "repair" in path else "GET"
                        await server.ask(method, f"{path}?{name}={address}", admin)
            for id in (inside, METADATA, "http:" + inside):
                body = json.dumps({"instrument": id})
                await server.ask("POST", "/v1/watch", admin, content=body)
            assert not reached
