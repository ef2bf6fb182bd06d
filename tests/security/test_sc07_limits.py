"""SC7: everything a stranger may send, hold open or ask for is bounded."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from picows import WSMsgType

from tapewick.outbox import Limits
from tests.gateways.rig import BTC, T0, Rig, running
from tests.gateways.test_bridge import Wire, wire
from tests.gateways.test_stream_deflate import OFFER, Packed, raw
from tests.security.rig import INGEST, Locked, locked, now_ms, trade

PROBLEM = "application/problem+json"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Locked]:
    async with locked(tmp_path) as made:
        yield made


# -- bodies ------------------------------------------------------------------------------------


async def test_sc07_a_body_over_one_mebibyte_is_413(server: Locked) -> None:
    answer = await server.post(b'{"trades":[' + b" " * (1 << 20) + b"]}")
    assert answer.status_code == 413 and answer.headers["content-type"] == PROBLEM


async def test_sc07_a_gzip_bomb_is_not_inflated(server: Locked) -> None:
    bomb = gzip.compress(b"0" * 100_000_000)
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
        answer = await server.post(bomb, content_encoding=encoding, **{"content-encoding": encoding})
        assert answer.status_code == 400 and answer.json()["field"] == "content-encoding"


@pytest.mark.parametrize("body", [b"[" * 500_000, b'{"trades":' + b"[" * 500_000, b'{"a":' * 100_000, b"\xff\xfe", b""])
async def test_sc07_nested_and_broken_json_is_400(server: Locked, body: bytes) -> None:
    answer = await server.post(body)
    assert answer.status_code == 400 and answer.headers["content-type"] == PROBLEM
    assert (await server.verdict(trade_id="after"))["verdict"] == "accepted", "the server lives"


async def test_sc07_a_batch_has_at_most_5000_trades(server: Locked) -> None:
    items = [trade(f"t{number}") for number in range(5001)]
    answer = await server.post({"instrument": "hook:XYZ", "trades": items})
    assert answer.status_code == 400 and "5,000" in answer.json()["detail"]


async def test_sc07_many_keys_in_one_object_are_400(server: Locked) -> None:
    body = json.dumps({f"k{number}": 0 for number in range(50_000)}).encode()
    assert (await server.post(body)).status_code == 400


# -- sockets -----------------------------------------------------------------------------------


def test_sc07_the_defaults_of_sockets() -> None:
    limits = Limits()
    assert (limits.frame_bytes, limits.subscriptions, limits.in_per_s, limits.in_burst) == (65_536, 1024, 5, 20)


async def test_sc07_sockets_bound_frames_messages_and_depth(server: Locked) -> None:
    async with server.rig.ws() as c:
        c.transport.send(WSMsgType.TEXT, b" " * 65_537)
        assert (await c.until(lambda c: c.closed))[0] == 1009
    async with server.rig.ws() as c:
        for _ in range(40):
            c.send({"op": "ping"})
        assert (await c.until(lambda c: c.closed))[0] == 4029
    async with server.rig.ws() as c:
        c.send(b'{"op":"subscribe","channels":' + b"[" * 60_000)
        await c.got("error")
        c.send(b'{"op":"ping","id":' + b"[" * 30_000 + b"]" * 30_000 + b"}")
        await c.got("error", 2)
        c.send({"op": "ping"})
        await c.got("pong")


async def test_sc07_a_compressed_message_may_not_inflate_without_bound(tmp_path: Path) -> None:
    async with running(tmp_path, ws_deflate=True) as rig, rig.ws(kind=Packed, extra_headers=OFFER) as c:
        c.transport.send(WSMsgType.TEXT, raw(b" " * 10_000_000), rsv1=True)
        assert (await c.until(lambda c: c.closed))[0] == 1009


# -- heads, and peers that are slow on purpose ---------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 17_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(2000)) + b"\r\n",
    ],
)
async def test_sc07_addresses_and_headers_are_bounded(server: Locked, head: bytes) -> None:
    async with wire(server.rig) as w:
        w.send(head)
        assert (await w.head())[0] == 431


async def test_sc07_a_head_that_trickles_is_cut(server: Locked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.gateways._connection.HEAD_SECONDS", 0.1)
    async with wire(server.rig) as w:
        w.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        async with asyncio.timeout(20):
            assert await w.reader.read() == b""


def posting(w: Wire, server: Locked, size: int) -> None:
    w.send(
        f"POST {INGEST} HTTP/1.1\r\nHost: {w.host}\r\nAuthorization: Bearer {server.writer}\r\n"
        f"Content-Length: {size}\r\n\r\n".encode()
    )


async def test_sc07_a_body_that_trickles_is_408(server: Locked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.gateways._connection.BODY_SECONDS", 0.1)
    async with wire(server.rig) as w:
        posting(w, server, 1000)
        w.send(b'{"trades":')
        status, headers = await w.head()
        assert status == 408 and headers["connection"] == "close" and b"8192" in await w.body(headers)


async def test_sc07_a_body_that_keeps_coming_is_waited_for(server: Locked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part comes after the first term has passed; what has come by then has earned the next."""
    monkeypatch.setattr("tapewick.gateways._connection.BODY_SECONDS", 0.05)
    monkeypatch.setattr("tapewick.gateways._connection.BODY_RATE", 1)
    async with wire(server.rig) as w:
        body = json.dumps({"instrument": "hook:XYZ", "trades": [trade()]}).encode()
        posting(w, server, len(body) + 1000)
        w.send(b" " * 900)
        for part in (b" " * 100, body):
            await asyncio.sleep(0.1)
            w.send(part)
        assert (await w.head())[0] == 202


async def test_sc07_a_reader_that_takes_nothing_is_cut(server: Locked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.gateways._connection.WRITE_SECONDS", 0.2)
    await server.rig.tell(1, 20_000)
    host, _, port = server.rig.gateway.url.removeprefix("http://").rpartition(":")
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(link, (host, int(port)))
        ask = f"GET /v1/export/trades?instrument={BTC}&format=csv HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
        await loop.sock_sendall(link, ask.encode() * 20)
        quota = server.rig.gateway.quota
        async with asyncio.timeout(30):
            while not quota.busy:  # noqa: ASYNC110 - its answer began
                await asyncio.sleep(0.005)
            while quota.busy:  # noqa: ASYNC110 - and what it held is free again
                await asyncio.sleep(0.01)


# -- connections ---------------------------------------------------------------------------------


async def test_sc07_connections_of_an_address_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path, connections_per_address=2) as rig:
        async with wire(rig) as one, wire(rig) as two:
            for held in (one, two):
                held.send(f"GET /health/live HTTP/1.1\r\nHost: {held.host}\r\n\r\n".encode())
                assert (await held.head())[0] == 200
            async with wire(rig) as third:
                status, headers = await third.head()
                assert status == 429 and headers["retry-after"] and headers["content-type"] == PROBLEM
        await freed(rig)


async def freed(rig: Rig) -> None:
    """Wait until a new connection is served."""
    async with asyncio.timeout(20):
        while True:
            async with wire(rig) as w:
                w.send(f"GET /health/live HTTP/1.1\r\nHost: {w.host}\r\n\r\n".encode())
                if (await w.head())[0] == 200:
                    return


async def test_sc07_push_connections_of_an_address_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path, push_per_address=1) as rig, rig.ws() as c:
        await c.got("welcome")
        async with wire(rig) as w:
            w.upgrade()
            status, headers = await w.head()
            assert status == 429 and headers["retry-after"]


# -- ranges --------------------------------------------------------------------------------------


async def test_sc07_the_size_of_an_answer_is_capped_and_the_whole_past_is_cheap(server: Locked) -> None:
    await server.rig.tell(1, 3000)
    for path in (
        f"/v1/trades?instrument={BTC}&limit=1000000000",
        f"/v1/candles?instrument={BTC}&tf=1m&limit=1000000000",
        f"/v1/trades?instrument={BTC}&limit=-1",
    ):
        answer = await server.ask("GET", path)
        assert answer.status_code == 400 and answer.json()["field"] == "limit", path
    for limit, most in ((1000, 1000), (1_000_000, 1000)):
        path = f"/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime=0&limit={limit}"
        answer = await server.ask("GET", path)
        assert answer.status_code in (200, 400) and len(answer.json()) <= most
    everything = f"/v1/candles?instrument={BTC}&tf=1m&start=0&end={now_ms()}"
    rows = (await server.ask("GET", everything)).json()["candles"]
    assert 0 < len(rows) <= 1000 and rows[0]["open_time"] >= T0 // 10**6 - 60_000


async def test_sc07_an_event_stream_has_a_bound_of_channels(server: Locked) -> None:
    names = ",".join(f"trade@sim:X{number}" for number in range(101))
    assert (await server.ask("GET", f"/v1/sse?channels={names}")).status_code == 400


async def test_sc07_grpc_bounds_messages_and_streams(tmp_path: Path) -> None:
    import grpc

    from tapewick.gateways.grpc import GrpcGateway
    from tapewick.v1 import service_pb2 as pb
    from tapewick.v1 import service_pb2_grpc as rpc
    from tests.gateways.grpc_rig import channel, subscribed

    async with (
        running(tmp_path) as rig,
        GrpcGateway(rig.market, port=0, push_per_address=2) as gateway,
        channel(gateway.address) as made,
    ):
        stub: Any = rpc.MarketDataStub(made)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetTrades(pb.GetTradesRequest(instrument="x" * 100_000), timeout=30)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        async with subscribed(made) as a, subscribed(made) as b, subscribed(made) as c:
            for held in (a, b):
                await held.got("WELCOME")
            assert await c.until(lambda c: c.code) == grpc.StatusCode.RESOURCE_EXHAUSTED
