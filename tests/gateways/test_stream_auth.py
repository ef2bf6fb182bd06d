"""Tokens: one check for sockets, event streams and REST; nothing is told to who shows none."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tapewick.errors import ConfigError, Unauthorized
from tapewick.gateways._auth import Guard
from tests.gateways.rig import BTC, ETH, Peer, Rig, running
from tests.gateways.test_bridge import masked, wire

GOOD, HASHED = "tok_0123456789abcdef", "tok_fedcba9876543210"
TOKENS = (GOOD, "sha256:" + hashlib.sha256(HASHED.encode()).hexdigest())
WRONG = "tok_wrong_wrong_wrong"
TRADES = f"trade@{BTC}"


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "data", ids=(BTC, ETH), tokens=TOKENS) as made:
        yield made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def closed(c: Peer) -> tuple[int, str]:
    return await c.until(lambda c: c.closed)  # type: ignore[no-any-return]


# -- the check itself --------------------------------------------------------------------------


def test_every_token_is_checked_the_same_way() -> None:
    guard = Guard(TOKENS)
    assert not guard.open and Guard().open
    for token in (GOOD, HASHED):
        guard.check(token)
    for wrong in (None, "", WRONG, GOOD + "x", GOOD[:-1], TOKENS[1], GOOD.upper(), "\udce4" * 20):
        with pytest.raises(Unauthorized):
            guard.check(wrong)
    Guard().check(None)


@pytest.mark.parametrize("token", ["brief", "sha256:abc", "sha256:" + "g" * 64, "sha256:" + "00" * 31])
def test_a_token_that_is_none_is_refused_without_being_printed(token: str) -> None:
    with pytest.raises(ConfigError, match="entry 2") as error:
        Guard((GOOD, token))
    assert token not in str(error.value)


# -- sockets -----------------------------------------------------------------------------------


async def test_an_open_server_answers_auth_by_a_welcome(rig: Rig) -> None:
    async with rig.ws() as c:
        (first,) = await c.got("welcome")
        assert "id" not in first
        c.send({"op": "auth", "id": 7, "token": "whatever"})
        (again,) = await c.got("welcome", id=7)
        assert again["session"] == first["session"]


@pytest.mark.parametrize("token", [GOOD, HASHED])
async def test_a_token_in_a_header_lets_in(locked: Rig, token: str) -> None:
    async with locked.ws(extra_headers=bearer(token)) as c:
        await c.got("welcome")
        c.subscribe(TRADES)
        await c.got("snapshot")


async def test_a_wrong_token_in_a_header_is_401_before_the_upgrade(locked: Rig) -> None:
    async with wire(locked) as w:
        w.upgrade(Authorization=f"Bearer {WRONG}")
        status, headers = await w.head()
        assert status == 401 and headers["www-authenticate"] == "Bearer"
        assert WRONG.encode() not in await w.body(headers)


async def test_a_token_among_the_subprotocols_lets_in_and_is_not_repeated(locked: Rig) -> None:
    async with wire(locked) as w:
        w.upgrade(Sec_WebSocket_Protocol=f"tapewick.key.{GOOD}, tapewick.v1.json")
        status, headers = await w.head()
        assert status == 101 and headers["sec-websocket-protocol"] == "tapewick.v1.json"
        assert GOOD not in str(headers) and b'"welcome"' in await w.text()


async def test_a_wrong_token_of_a_script_is_told_by_a_close_code(locked: Rig) -> None:
    """A page's script cannot see the status of a refused upgrade, and would try again for ever."""
    offer = {"Sec-WebSocket-Protocol": f"tapewick.v1.json, tapewick.key.{WRONG}"}
    async with locked.ws(extra_headers=offer) as c:
        assert (await closed(c))[0] == 4401 and not c.frames


async def test_the_first_message_lets_in(locked: Rig) -> None:
    async with locked.ws() as c:
        c.send({"op": "auth", "id": "a", "token": HASHED})
        await c.got("welcome", id="a")
        c.subscribe(TRADES)
        await c.got("snapshot")
        c.send({"op": "auth", "id": "b", "token": GOOD})
        await c.got("welcome", id="b")
        c.send({"op": "auth", "token": WRONG})
        assert (await closed(c))[0] == 4401


@pytest.mark.parametrize(
    "message",
    [
        {"op": "auth", "token": WRONG},
        {"op": "auth", "token": ""},
        {"op": "ping"},
        {"op": "subscribe", "channels": [{"ch": TRADES}]},
        b"not json",
    ],
)
async def test_any_other_first_message_is_4401_and_nothing_is_told(locked: Rig, message: Any) -> None:
    async with locked.ws() as c:
        c.send(message)
        code, reason = await closed(c)
        assert code == 4401 and not c.frames
        assert WRONG not in reason


async def test_who_says_nothing_is_closed_after_a_while(locked: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.gateways.stream.AUTH_SECONDS", 0.05)
    async with locked.ws() as silent, locked.ws(extra_headers=bearer(GOOD)) as known:
        assert (await closed(silent))[0] == 4401 and not silent.frames
        known.send({"op": "ping"})
        await known.got("pong")
    async with asyncio.timeout(60):
        while locked.gateway.connections:  # noqa: ASYNC110 - the server's side of a socket has no event here
            await asyncio.sleep(0.01)


async def test_a_token_in_the_query_counts_for_nothing(locked: Rig) -> None:
    async with wire(locked) as w:
        w.upgrade(f"/v1/ws?token={GOOD}", more=masked(b'{"op":"ping"}'))
        assert (await w.head())[0] == 101
        async with asyncio.timeout(60):
            assert (await w.reader.readexactly(4))[2:] == (4401).to_bytes(2, "big")
    async with locked.http as client:
        assert (await client.get(f"/v1/instruments?token={GOOD}")).status_code == 401


async def test_sockets_of_binance_clients_need_a_token_too(locked: Rig) -> None:
    path = "/ws/btcusdt@trade"
    async with wire(locked) as w:
        w.upgrade(path)
        assert (await w.head())[0] == 401
    async with wire(locked) as w:
        w.upgrade(path, X_MBX_APIKEY=GOOD)
        assert (await w.head())[0] == 101


# -- REST and event streams --------------------------------------------------------------------


async def test_every_route_but_the_public_ones_needs_a_token(locked: Rig) -> None:
    async with locked.http as client:
        document = (await client.get("/schema/openapi.json")).json()
        public = {"/health/live", "/health/ready"}
        checked = 0
        for path, methods in document["paths"].items():
            for method in methods:
                asked = path.replace("{id}", BTC)
                answer = await client.request(method, asked)
                if path in public:
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, f"{method} {path}"
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "token" in answer.text
                allowed = await client.request(method, asked, headers=bearer(GOOD))
                assert allowed.status_code != 401, f"{method} {path}"
                checked += 1
        assert checked > 10
        for path in ("/", "/docs", "/docs/style.css"):
            assert (await client.get(path)).status_code == 200
        for path in ("/metrics", "/health", "/api/v3/ping", "/binance/api/v3/ping", f"/v1/sse?channels={TRADES}"):
            assert (await client.get(path)).status_code == 401, path
            assert (await client.get(path, headers=bearer(WRONG))).status_code == 401, path
        assert (await client.get("/metrics", headers=bearer(HASHED))).status_code == 200
        assert (await client.get("/api/v3/ping", headers={"X-MBX-APIKEY": GOOD})).status_code == 200


async def test_an_event_stream_with_a_token(locked: Rig) -> None:
    url = f"{locked.gateway.url}/v1/sse?channels={TRADES}"
    async with httpx2.AsyncClient() as client, client.stream("GET", url, headers=bearer(GOOD)) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("event: snapshot"):
                break


async def test_a_page_of_an_allowed_origin_can_read_the_refusal(tmp_path: Path) -> None:
    origin = "http://friend.example"
    async with running(tmp_path, tokens=TOKENS, allowed_origins=(origin,)) as rig, rig.http as client:
        answer = await client.get("/v1/instruments", headers={"origin": origin})
        assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == origin
        asked = {"origin": origin, "access-control-request-method": "GET"}
        asked["access-control-request-headers"] = "authorization"
        preflight = await client.options("/v1/instruments", headers=asked)
        assert preflight.status_code < 300 and "authorization" in preflight.headers["access-control-allow-headers"]
