"""SC16: there are no session cookies: none is ever set, and none lets in."""

from __future__ import annotations

from pathlib import Path

from tests.gateways.rig import BTC
from tests.gateways.test_bridge import wire
from tests.security.rig import bearer, locked


async def test_sc16_no_answer_sets_a_cookie_and_none_counts(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True) as server:
        token = server.key("admin")
        document = (await server.ask("GET", "/schema/openapi.json")).json()
        paths = [path.replace("{id}", BTC) for path in document["paths"] if "sse" not in path]
        assert len(paths) > 10
        for path in [*paths, "/", "/docs", "/api/v3/ping", "/udf/config", "/nowhere"]:
            for method in ("GET", "POST"):
                for given in (token, None):
                    answer = await server.ask(method, path, given)
                    assert "set-cookie" not in answer.headers, (method, path)
        for name in ("session", "token", "Authorization", "x-api-key"):
            cookie = {"cookie": f"{name}={token}"}
            assert (await server.ask("GET", "/v1/instruments", headers=cookie)).status_code == 401
        async with wire(server.rig) as w:
            w.upgrade(Authorization=bearer(token)["Authorization"])
            status, headers = await w.head()
            assert status == 101 and "set-cookie" not in headers
