"""SC4: a key in a query string counts for nothing; no log ever holds one; sockets take it in three ways."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
from picows import ws_connect

from tests.e2e.server import Server
from tests.gateways.rig import BTC, Peer
from tests.security.rig import INGEST, bearer, locked

TOKEN = "tok_live_0123456789abcdef"


async def test_sc04_a_key_in_the_query_counts_for_nothing(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True) as server:
        token = server.key("admin")
        for name in ("token", "key", "api_key", "apikey", "access_token", "x-api-key", "authorization"):
            for path in ("/v1/instruments", "/v1/sse", "/metrics", "/api/v3/ping"):
                assert (await server.ask("GET", f"{path}?{name}={token}")).status_code == 401
            async with server.rig.ws(f"/v1/ws?{name}={token}") as c:
                c.send({"op": "ping"})
                assert (await c.until(lambda c: c.closed))[0] == 4401


async def test_sc04_sockets_take_a_key_by_header_subprotocol_or_first_message(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True) as server:
        token = server.key("read")
        offer = {"Sec-WebSocket-Protocol": f"tapewick.v1.json, tapewick.key.{token}"}
        for headers in (bearer(token), offer):
            async with server.rig.ws(extra_headers=headers) as c:
                await c.got("welcome")
        async with server.rig.ws() as c:
            c.send({"op": "auth", "token": token})
            await c.got("welcome")


async def test_sc04_nothing_a_server_prints_holds_a_key(tmp_path: Path) -> None:
    """At the most talkative level, with good and wrong keys in every place a client may put one."""
    wrong = TOKEN[::-1]
    env = {"TAPEWICK_SERVER__TOKENS": TOKEN, "TAPEWICK_LOG__LEVEL": "debug", "TAPEWICK_LOG__AUDIT": str(tmp_path / "a")}
    with Server("demo", "--no-open", "--port", "0", "--data", str(tmp_path / "d"), "--no-config", **env) as server:
        url = server.ready()
        for token in (TOKEN, wrong):
            for headers in (bearer(token), {"x-api-key": token}, {"x-mbx-apikey": token}):
                httpx2.get(f"{url}/v1/instruments?token={token}", headers=headers, timeout=30)
                httpx2.post(url + INGEST, headers=headers, content=json.dumps({"token": token}), timeout=30)
                httpx2.post(f"{url}/v1/repair/sim:BTCUSDT?key={token}", headers=headers, timeout=30)
            httpx2.get(f"{url}/v1/trades/{token}", timeout=30)
            transport, peer = await ws_connect(Peer, url.replace("http", "ws", 1) + f"/v1/ws?t={token}")
            peer.send({"op": "auth", "token": token})  # type: ignore[attr-defined]
            await peer.until(lambda c: c.frames or c.closed)  # type: ignore[attr-defined]
            transport.disconnect(False)
            await transport.wait_disconnected()
        assert server.stop() == 143
    said = "\n".join(server.lines) + (tmp_path / "a").read_text()
    assert "POST /v1/ingest/trades" in said and BTC.partition(":")[2] in said
    assert TOKEN not in said
    assert wrong not in said
