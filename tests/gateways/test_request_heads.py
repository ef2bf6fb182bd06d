"""Requests that two readers could read in two ways, byte by byte on the one public port: each is refused and its
connection closed, and no answer overtakes another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tapewick.gateways._auth import Guard
from tapewick.gateways.ingest import Options
from tapewick.keys import KeyFile
from tests.gateways.rig import Rig, running

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
OTHER = b"GET /v1/instruments HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/ingest/trades HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b"\r\n2\r\n{}\r\n0\r\n\r\n"

REFUSED: list[tuple[bytes, int]] = [
    # whom it is for
    (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
    (b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /health/live HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    (b"GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET /health/live HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    (b"GET /health/live HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    (b"GET http://elsewhere/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (UPGRADE.replace(b"Host: localhost\r\n", b"") + b"\r\n", 400),
    (UPGRADE + b"Host: elsewhere\r\n\r\n", 400),
    # where it ends
    (POST + b"Transfer-Encoding: gzip, chunked\r\n" + BODY, 501),
    (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" + BODY, 501),
    (POST + CHUNKED + CHUNKED + BODY, 400),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n" + BODY, 400),
    (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: \x0bchunked\r\n" + BODY, 400),
    (POST + b"Transfer-Encoding : chunked\r\n" + BODY, 400),
    (POST + b"Transfer-Encoding:\r\n chunked\r\n" + BODY, 400),
    (POST.replace(b"1.1", b"1.0") + CHUNKED + BODY, 400),
    (POST + b"Content-Length: 5\r\n" + CHUNKED + BODY, 400),
    (POST + CHUNKED + b"Content-Length: 5\r\n" + BODY, 400),
    (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
    (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    *((POST + b"Content-Length: %b\r\n\r\n{}" % size, 400) for size in (b"+2", b"-2", b"0x2", b"", b"2 3", b"9" * 23)),
    # what its lines are
    (b"GET /health/live HTTP/1.1\nHost: localhost\n\n", 400),
    (GET + b"X: a\nY: b\r\n\r\n", 400),
    (GET + b"X: a\rY: b\r\n\r\n", 400),
    (GET + b"X: a\r\n b\r\n\r\n", 400),
    (GET + b"X: a\0b\r\n\r\n", 400),
    (GET + b"X: a\x01b\r\n\r\n", 400),
    (GET + b"X Y: a\r\n\r\n", 400),
    (GET + b": a\r\n\r\n", 400),
    (GET + b"abc\r\n\r\n", 400),
    (b"GET /health/live HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /health/live HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
    (b"GET /health/live\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + GET + b"\r\n", 400),
    # who sent it
    (GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
    (GET + b"X-API-Key: a\r\nx-api-key: b\r\n\r\n", 400),
    (POST + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 2\r\n\r\n{}", 400),
    (POST + b"Webhook-Id: a\r\nwebhook-id: b\r\nContent-Length: 2\r\n\r\n{}", 400),
]
TAKEN: list[tuple[bytes, int]] = [
    (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
    (b"GET /health/live HTTP/1.1\r\nHost:\r\n\r\n", 200),
    (b"GET /health/live HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200),
    (b"GET http://localhost/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    (POST + b"Transfer-Encoding:\tChunked \r\n" + BODY, 401),
    (POST + CHUNKED + b"\r\n2;a=b\r\n{}\r\n0\r\n\r\n", 401),
    (GET + b"X: a\xffb\r\n\r\n", 200),
]


async def said(rig: Rig, data: bytes) -> tuple[list[int], bytes, bool]:
    """Statuses of the answers, their bytes, and whether the server closed the connection."""
    host, port = rig.gateway.url.rpartition("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        got = b""
        async with asyncio.timeout(30):
            while chunk := await reader.read(65_536):
                got += chunk
                if b"END" in got:
                    break
        return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d\d\d) ", got)], got, not chunk
    finally:
        writer.close()


@pytest.fixture
async def written(tmp_path: Path) -> AsyncIterator[Rig]:
    guard = Guard(keys=KeyFile(tmp_path))
    async with running(tmp_path / "data", guard=guard, ingest=Options(tmp_path)) as rig:
        yield rig


async def test_what_can_be_read_in_two_ways_is_refused_and_its_connection_closed(written: Rig) -> None:
    for data, status in REFUSED:
        statuses, got, closed = await said(written, data + OTHER)
        assert (statuses, closed) == ([status], True), (data, got)
        assert b"application/problem+json" in got and b"connection: close" in got, (data, got)


async def test_what_is_odd_but_clear_is_answered(written: Rig) -> None:
    for data, status in TAKEN:
        last = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        kept = b"HTTP/1.0" not in data
        statuses, got, closed = await said(written, data + (last if kept else b""))
        assert statuses == ([status, 200] if kept else [status]) and closed, (data, got)


async def test_a_refusal_never_overtakes_the_answer_of_an_earlier_request(written: Rig) -> None:
    """Who reads answers in turn would take it for the answer of the first."""
    for second in (b"JUNK\r\n\r\n", GET + b"Host: b\r\n\r\n", POST + CHUNKED + b"\r\nzz\r\n", UPGRADE + b"\r\n"):
        for count in (1, 3):
            statuses, got, closed = await said(written, OTHER * count + second + OTHER)
            assert statuses == [200] * count and closed, (second, got)


async def test_a_body_that_breaks_off_is_refused_at_once(written: Rig) -> None:
    """Also where the request is being answered already, and behind answers that were given."""
    bad = b"POST /v1/watch HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED + b"\r\n2\r\n{}zz\r\n"
    statuses, got, closed = await said(written, bad)
    assert (statuses, closed) == ([400], True), got


async def test_a_protocol_nobody_speaks_here_loses_no_request_and_hides_none(written: Rig) -> None:
    first = GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    last = GET + b"Connection: close\r\n\r\n"
    assert (await said(written, first + last))[0] == [200, 200]
    inner = b"POST /v1/watch HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"
    for protocol in (b"h2c", b"websocket"):
        for size in (b"Content-Length: %d\r\n" % len(OTHER), CHUNKED):
            statuses, got, closed = await said(written, inner % (protocol, size) + OTHER + last)
            assert (statuses, closed) == ([400], True), got


async def test_fields_behind_a_body_are_no_headers(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    token = keys.create(["ingest"])[1].encode()
    async with running(tmp_path / "data", guard=Guard(keys=keys), ingest=Options(tmp_path)) as rig:
        head = POST + CHUNKED + b"Connection: close\r\n\r\n2\r\n{}\r\n0\r\n"
        statuses, got, _ = await said(rig, head + b"Authorization: Bearer " + token + b"\r\n\r\n")
        assert statuses == [401], got
