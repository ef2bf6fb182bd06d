"""Upgrades on the HTTP port, byte by byte: what browsers, proxies and hostile clients send."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.gateways.rig import Rig

KEY = base64.b64encode(b"sixteen bytes ok").decode()
ACCEPT = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


class Wire:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader, self.writer, self.host = reader, writer, host

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def upgrade(self, path: str = "/v1/ws", more: bytes = b"", **headers: str | None) -> None:
        fields = {
            "Host": self.host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        self.send(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode() + more)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(60):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.strip().split("\r\n")
        return int(first.split()[1]), {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}

    async def text(self) -> bytes:
        """The payload of the next server frame, which must be an unmasked text."""
        async with asyncio.timeout(60):
            first, second = await self.reader.readexactly(2)
            assert first == 0x81
            size = second if second < 126 else int.from_bytes(await self.reader.readexactly(2 if second == 126 else 8))
            return await self.reader.readexactly(size)

    async def body(self, headers: dict[str, str]) -> bytes:
        async with asyncio.timeout(60):
            return await self.reader.readexactly(int(headers["content-length"]))


@asynccontextmanager
async def wire(rig: Rig) -> AsyncIterator[Wire]:
    host, _, port = rig.gateway.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer, f"{host}:{port}")
    finally:
        writer.transport.abort()


def masked(text: bytes) -> bytes:
    """A client's text frame with the mask 0."""
    assert len(text) < 126
    return b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade, Keep-Alive"])
async def test_every_spelling_of_the_connection_header(rig: Rig, connection: str) -> None:
    async with wire(rig) as w:
        w.upgrade(Connection=connection)
        status, headers = await w.head()
        assert status == 101 and headers["sec-websocket-accept"] == ACCEPT
        assert b'"welcome"' in await w.text()


@pytest.mark.parametrize("version", ["8", "", "14", None])
async def test_another_protocol_version_is_told_ours(rig: Rig, version: str | None) -> None:
    async with wire(rig) as w:
        w.upgrade(Sec_WebSocket_Version=version)
        status, headers = await w.head()
        assert status == 426 and headers["sec-websocket-version"] == "13"
        assert headers["content-type"] == "application/problem+json"


async def test_rest_then_upgrade_on_one_connection(rig: Rig) -> None:
    async with wire(rig) as w:
        for _ in range(2):
            w.send(f"GET /health/live HTTP/1.1\r\nHost: {w.host}\r\n\r\n".encode())
            status, headers = await w.head()
            assert status == 200 and b"ok" in await w.body(headers)
        w.upgrade()
        assert (await w.head())[0] == 101
        assert b'"welcome"' in await w.text()


async def test_a_frame_sent_with_the_handshake_is_not_lost(rig: Rig) -> None:
    async with wire(rig) as w:
        w.upgrade(more=masked(b'{"op":"ping","id":"early"}'))
        assert (await w.head())[0] == 101
        assert b'"welcome"' in await w.text()
        assert b'"early"' in await w.text()


@pytest.mark.parametrize("path", ["/", "/v1/ws/x", "/wsx", "/v1/trades"])
async def test_no_websocket_elsewhere(rig: Rig, path: str) -> None:
    async with wire(rig) as w:
        w.upgrade(path)
        status, headers = await w.head()
        assert status == 404 and headers["connection"] == "close"
        assert b"/v1/ws" in await w.body(headers)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1"])
async def test_a_page_of_another_origin_is_refused(rig: Rig, origin: str) -> None:
    async with wire(rig) as w:
        w.upgrade(Origin=origin)
        assert (await w.head())[0] == 403


async def test_a_page_of_our_own_is_welcome(rig: Rig) -> None:
    async with wire(rig) as w:
        w.upgrade(Origin=f"http://{w.host}")
        assert (await w.head())[0] == 101


async def test_the_subprotocol_is_chosen_when_offered(rig: Rig) -> None:
    async with wire(rig) as w:
        w.upgrade(Sec_WebSocket_Protocol="other, tapewick.v1.json")
        assert (await w.head())[1]["sec-websocket-protocol"] == "tapewick.v1.json"
    async with wire(rig) as w:
        w.upgrade()
        assert "sec-websocket-protocol" not in (await w.head())[1]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 30_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(3000)) + b"\r\n",
    ],
)
async def test_a_huge_request_head_is_refused(rig: Rig, request_: bytes) -> None:
    async with wire(rig) as w:
        w.send(request_)
        status, headers = await w.head()
        assert status == 431 and headers["content-type"] == "application/problem+json"


async def test_what_is_not_http_is_refused(rig: Rig) -> None:
    async with wire(rig) as w:
        w.send(b"\x16\x03\x01\x02\x00 this is no request\r\n\r\n")
        status, headers = await w.head()
        assert status == 400 and headers["content-type"] == "application/problem+json"


async def test_a_connection_that_never_asks_is_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.gateways._connection.HEAD_SECONDS", 0.05)
    async with wire(rig) as w:
        w.send(b"GET / HTTP/1.1\r\nHost:")
        async with asyncio.timeout(60):
            assert await w.reader.read() == b""


async def test_a_key_that_is_none_is_refused(rig: Rig) -> None:
    async with wire(rig) as w:
        w.upgrade(Sec_WebSocket_Key=None)
        assert (await w.head())[0] == 400


async def test_a_post_is_no_upgrade(rig: Rig) -> None:
    async with wire(rig) as w:
        w.send(
            f"POST /v1/ws HTTP/1.1\r\nHost: {w.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert (await w.head())[0] in (400, 405)
