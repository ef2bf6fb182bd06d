"""SC18: metrics and administration on a port of their own; then the public one has neither, and never a debug route."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tapewick.errors import ConfigError
from tapewick.gateways.http import Admin, HttpGateway
from tests.e2e.server import Server
from tests.gateways.rig import BTC, running
from tests.gateways.test_bridge import KEY
from tests.security.rig import bearer

TOKEN = "tok_0123456789abcdef"
REPAIR = f"/v1/repair/{BTC}"
DEBUG = (
    "/debug",
    "/debug/pprof",
    "/_debug",
    "/admin",
    "/env",
    "/config",
    "/trace",
    "/dump",
    "/console",
    "/.env",
    "/.git/",
)


async def test_sc18_moved_they_are_not_on_the_public_port(tmp_path: Path) -> None:
    async with running(tmp_path, admin=Admin(), tokens=(TOKEN,)) as rig:
        own = httpx2.AsyncClient(base_url=rig.gateway.admin_url)
        async with rig.http as public, own as private:
            for path in ("/metrics",):
                assert (await public.get(path, headers=bearer(TOKEN))).status_code == 404
                assert (await private.get(path)).status_code == 401, "it wants a token too"
                answer = await private.get(path, headers=bearer(TOKEN))
                assert answer.status_code == 200 and "tapewick_commits" in answer.text
            assert (await public.post(REPAIR, headers=bearer(TOKEN))).status_code == 404
            assert (await private.post(REPAIR, headers=bearer(TOKEN))).status_code == 202
            for client in (public, private):
                assert (await client.get("/health/live")).status_code == 200
                assert (await client.get("/health", headers=bearer(TOKEN))).status_code == 200
            for path in ("/", "/v1/instruments", f"/v1/trades?instrument={BTC}", "/docs", "/api/v3/ping", "/v1/sse"):
                assert (await private.get(path, headers=bearer(TOKEN))).status_code == 404, path
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY}
            told = await private.get("/v1/ws", headers={**upgrade, "Sec-WebSocket-Version": "13", **bearer(TOKEN)})
            assert told.status_code == 404
            assert (await private.get("/health/live")).headers["x-content-type-options"] == "nosniff"


async def test_sc18_by_default_they_are_on_the_one_port(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.http as client:
        assert rig.gateway.admin_url == ""
        assert (await client.get("/metrics")).status_code == 200


async def test_sc18_no_debug_routes(tmp_path: Path) -> None:
    async with running(tmp_path, webapp=tmp_path / "none") as rig, rig.http as client:
        for path in DEBUG:
            assert (await client.get(path)).status_code == 404, path
        answer = await client.get("/v1/trades?instrument=" + "%00")
        assert answer.status_code in (400, 404) and "Traceback" not in answer.text


async def test_sc18_an_admin_port_that_is_taken_is_explained(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        port = int(rig.gateway.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            async with HttpGateway(rig.market, port=0, admin=Admin(port=port)):
                raise AssertionError


def test_sc18_by_settings(tmp_path: Path) -> None:
    env = {"TAPEWICK_ADMIN__ENABLED": "true", "TAPEWICK_ADMIN__PORT": "0", "TAPEWICK_LOG__LEVEL": "info"}
    with Server("demo", "--no-open", "--port", "0", "--data", str(tmp_path), "--no-config", **env) as server:
        own = server.line(r"administration\s+url=http://").rpartition("url=")[2]
        url = server.ready()
        assert httpx2.get(f"{own}/metrics", timeout=30).status_code == 200
        assert httpx2.get(f"{url}/metrics", timeout=30).status_code == 404
        assert server.stop() == 143
