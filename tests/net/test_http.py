"""The JSON client against a server that answers what the test says, byte for byte."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from tapewick.errors import BadPayload, Disconnected, VenueRefused
from tapewick.net.address import is_loopback, proxy_for, shown
from tapewick.net.http import JsonClient

pytestmark = pytest.mark.timeout(20)


class Number(msgspec.Struct):
    n: int


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def response(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


async def test_an_answer_is_decoded() -> None:
    async with answering(response(b'{"n":5,"more":[]}')) as url, JsonClient(url) as client:
        assert (await client.get("/x", Number)).n == 5


@pytest.mark.parametrize(
    ("answer", "status", "retry_after"),
    [
        (response(b"{}", "429 Too Many Requests", "Retry-After: 30"), 429, 30.0),
        (response(b"{}", "418 I'm a teapot", "Retry-After: 120"), 418, 120.0),
        (response(b"{}", "418 I'm a teapot"), 418, 120.0),
        (response(b"{}", "451 Unavailable For Legal Reasons"), 451, None),
        (response(b"<html>", "403 Forbidden", "Content-Type: text/html"), 403, None),
        (response(b"", "503 Service Unavailable", "Retry-After: Fri, 21 Nov 2025 08:00:00 GMT"), 503, None),
        (response(b"", "301 Moved", "Location: http://127.0.0.1:1/"), 301, None),
        (response(b"<html><body>hello"), 502, None),
        (response(b'{"n":'), 502, None),
        (response(b'{"n":1}', length=700), 502, None),
        (response(gzip.compress(b'{"n":1}', mtime=0)[:-12], "200 OK", "Content-Encoding: gzip"), 502, None),
        (response(b"not gzip", "200 OK", "Content-Encoding: gzip"), 502, None),
        (response(b'{"n":' + b"1" * 5000 + b"}"), 502, None),
        (b"what is this\r\n\r\n", 502, None),
    ],
)
async def test_refusals_and_unreadable_bodies(answer: bytes, status: int, retry_after: float | None) -> None:
    async with answering(answer) as url, JsonClient(url, max_bytes=4096) as client:
        with pytest.raises(VenueRefused) as refused:
            await client.get("/x", Number)
    assert (refused.value.status, refused.value.retry_after) == (status, retry_after)


async def test_the_error_text_of_a_hostile_body_stays_on_one_line() -> None:
    async with answering(response(b"bad\r\nlog: forged\x1b[31m", "400 Bad Request")) as url, JsonClient(url) as client:
        with pytest.raises(VenueRefused) as refused:
            await client.get("/x", Number)
    assert str(refused.value).isprintable()


async def test_a_problem_document_is_told_in_its_own_words() -> None:
    problem = b'{"status":404,"detail":"no book of \\"x\\" before\\u001b that time","x":"' + b"y" * 200
    kind = "Content-Type: application/problem+json"
    for body in (problem + b'"}', problem):
        async with answering(response(body, "404 Not Found", kind)) as url, JsonClient(url) as client:
            with pytest.raises(VenueRefused) as refused:
                await client.get("/x", Number)
        assert str(refused.value).isprintable()
        if body.endswith(b"}"):
            assert str(refused.value).endswith('/x answered HTTP 404 no book of "x" before that time')


async def test_another_shape_is_a_bad_payload() -> None:
    async with answering(response(b'{"n":"five"}')) as url, JsonClient(url) as client:
        with pytest.raises(BadPayload, match="unknown shape"):
            await client.get("/x", Number)


async def test_silence_and_absence_are_disconnections() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with JsonClient(url, timeout=0.2) as client:
            with pytest.raises(Disconnected, match="cannot be reached"):
                await client.get("/x", Number)
    async with JsonClient("http://127.0.0.1:1") as client:
        with pytest.raises(Disconnected, match="127.0.0.1:1 cannot be reached"):
            await client.get("/x", Number)


def test_a_loopback_address_never_goes_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", "direct.invalid")
    for url in ("http://127.0.0.1:80", "ws://localhost:5/ws", "http://[::1]:9/"):
        assert is_loopback(url) and proxy_for(url) is None
    assert proxy_for("wss://venue.invalid/stream") == "http://proxy.invalid:3128"
    assert proxy_for("https://direct.invalid/") is None


def test_what_is_shown_of_an_address_holds_no_key() -> None:
    assert shown("wss://user:key@venue.invalid:9443/path?key=x") == "wss://venue.invalid:9443"
