"""SC3: scopes, quotas of each key, two keys at once for a change, an end date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tapewick.gateways._auth import Guard
from tapewick.keys import KeyFile
from tests.gateways.rig import BTC, T0
from tests.security.rig import Locked, bearer, locked, trade

REPAIR = f"/v1/repair/{BTC}"
BODY = {"instrument": "hook:XYZ", "trades": [trade()]}


async def statuses(server: Locked, token: str) -> tuple[int, int, int]:
    """Of reading, writing, administering."""
    read = await server.ask("GET", "/v1/instruments", token)
    write = await server.post(BODY, token)
    repair = await server.ask("POST", REPAIR, token)
    return read.status_code, write.status_code, repair.status_code


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (("read",), (200, 403, 403)),
        (("ingest",), (403, 202, 403)),
        (("read", "ingest"), (200, 202, 403)),
        (("admin",), (200, 202, 202)),
    ],
)
async def test_sc03_a_key_does_what_its_scopes_say(tmp_path: Path, scopes: Any, expected: tuple[int, ...]) -> None:
    async with locked(tmp_path, required=True) as server:
        assert await statuses(server, server.key(*scopes)) == expected


async def test_sc03_a_key_writes_only_its_instruments(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True) as server:
        token = server.key("ingest", instruments="hook:MINE*")
        for instrument, verdict in (("hook:MINE1", "accepted"), ("hook:XYZ", "rejected"), (BTC, "rejected")):
            answer = await server.post({"instrument": instrument, "trades": [trade()]}, token)
            assert answer.json()["verdicts"][0]["verdict"] == verdict, instrument


async def test_sc03_the_quota_of_one_key_is_not_anothers(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True, requests_per_min=3) as server:
        one, other = server.key("read"), server.key("read")
        told = [(await server.ask("GET", "/v1/instruments", one)).status_code for _ in range(5)]
        assert told == [200, 200, 200, 429, 429]
        assert (await server.ask("GET", "/v1/instruments", other)).status_code == 200


async def test_sc03_push_connections_of_a_key_are_counted_wherever_they_come_from(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    guard = Guard(keys=keys, required=True, push_per_key=2)
    async with locked(tmp_path, guard=guard) as server:
        one, other = server.key("read"), server.key("read")
        async with server.rig.ws(extra_headers=bearer(one)) as a, server.rig.ws() as b, server.rig.ws() as c:
            await a.got("welcome")
            b.send({"op": "auth", "token": one})
            await b.got("welcome")
            c.send({"op": "auth", "token": one})
            code, reason = await c.until(lambda c: c.closed)
            assert code == 4029 and "this key" in reason
            sse = await server.ask("GET", f"/v1/sse?channels=trade@{BTC}", one)
            assert sse.status_code == 429 and sse.headers["retry-after"]
            async with server.rig.ws(extra_headers=bearer(other)) as d:
                await d.got("welcome")
        async with server.rig.ws(extra_headers=bearer(one)) as again:
            await again.got("welcome")


async def test_sc03_two_keys_at_once_then_one_is_ended(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True) as server:
        old, new = server.key("read"), server.key("read")
        for token in (old, new):
            assert (await server.ask("GET", "/v1/instruments", token)).status_code == 200
        server.keys.revoke(old[:11])
        assert (await server.ask("GET", "/v1/instruments", old)).status_code == 401
        assert (await server.ask("GET", "/v1/instruments", new)).status_code == 200


async def test_sc03_a_key_ends_at_its_time(tmp_path: Path) -> None:
    class Wall:
        """A clock that the test sets."""

        seconds = T0 // 10**9

        def now(self) -> int:
            return self.seconds * 10**9

    clock: Any = Wall()
    keys = KeyFile(tmp_path, clock)
    async with locked(tmp_path, guard=Guard(keys=keys, required=True)) as server:
        token = keys.create(["read"], days=1)[1]
        assert (await server.ask("GET", "/v1/instruments", token)).status_code == 200
        clock.seconds += 86_401
        assert (await server.ask("GET", "/v1/instruments", token)).status_code == 401
