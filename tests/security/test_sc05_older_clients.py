"""SC5: clients of older systems show their key as ``x-api-key``; what changes something needs one."""

from __future__ import annotations

from pathlib import Path

from tests.gateways.rig import BTC
from tests.security.rig import INGEST, locked, trade


async def test_sc05_x_api_key_is_a_key_like_any_other(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True) as server:
        for header in ("x-api-key", "X-API-KEY"):
            known = {header: server.key("read")}
            assert (await server.ask("GET", "/v1/instruments", headers=known)).status_code == 200
            assert (await server.ask("POST", f"/v1/repair/{BTC}", headers=known)).status_code == 403
            stranger = {header: "tw_00000000_stranger"}
            assert (await server.ask("GET", "/v1/instruments", headers=stranger)).status_code == 401
        written = await server.ask(
            "POST", INGEST, headers={"x-api-key": server.writer}, json={"instrument": "hook:XYZ", "trades": [trade()]}
        )
        assert written.status_code == 202


async def test_sc05_changing_routes_need_a_key_beyond_this_machine(tmp_path: Path) -> None:
    """Where reading is open: who asks from here may administer, who asks through something else may not."""
    async with locked(tmp_path) as server:
        path = f"/v1/repair/{BTC}"
        assert (await server.ask("GET", "/v1/instruments")).status_code == 200
        assert (await server.ask("POST", path)).status_code == 202
        for header in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):
            assert (await server.ask("POST", path, headers={header: "203.0.113.9"})).status_code == 401
        assert (await server.ask("POST", path, headers={"host": "rebound.example"})).status_code == 401
        far = {"x-forwarded-for": "203.0.113.9"}
        assert (await server.ask("POST", path, server.key("admin"), headers=far)).status_code == 202
        assert (await server.ask("POST", path, server.key("read"), headers=far)).status_code == 403
        assert (await server.post({"instrument": "hook:XYZ", "trades": [trade()]}, None)).status_code == 401


async def test_sc05_another_sites_page_cannot_make_a_browser_change_anything(tmp_path: Path) -> None:
    async with locked(tmp_path) as server:
        evil = {"origin": "http://evil.example"}
        assert (await server.ask("POST", f"/v1/repair/{BTC}", headers=evil)).status_code == 400
        preflight = {**evil, "access-control-request-method": "POST"}
        answer = await server.ask("OPTIONS", INGEST, headers=preflight)
        assert "access-control-allow-origin" not in answer.headers
