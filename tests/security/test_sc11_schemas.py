"""SC11: what a client sends has exactly the fields there are; none sets what is the server's to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gateways.rig import BTC
from tests.security.rig import locked, trade

SERVERS_OWN: dict[str, Any] = {
    "seq": 999,
    "pos": 1,
    "origin": "import",
    "ts_recv": 1,
    "complete": True,
    "venue": "binance",
    "id": "x",
}


async def test_sc11_fields_of_the_servers_own_are_refused(tmp_path: Path) -> None:
    async with locked(tmp_path) as server:
        for field, value in SERVERS_OWN.items():
            told = await server.verdict(**{field: value})
            assert told["verdict"] == "rejected" and field in told["reason"] + told["field"]
            whole = await server.post({"instrument": "hook:XYZ", "trades": [trade()], field: value})
            assert whole.status_code == 400 and field in whole.text
            assert (await server.ask("GET", f"/v1/trades?instrument={BTC}&{field}=1")).status_code == 400


async def test_sc11_no_trade_of_a_collected_venue_can_be_forged(tmp_path: Path) -> None:
    async with locked(tmp_path) as server:
        for token in (server.key("ingest"), server.key("admin"), server.key("ingest", instruments="*")):
            answer = await server.post({"instrument": BTC, "trades": [trade()]}, token)
            assert answer.json()["verdicts"][0]["verdict"] == "rejected"
        assert (await server.rig.get(f"/v1/trades?instrument={BTC}"))["trades"] == []


async def test_sc11_a_message_of_a_socket_has_the_fields_there_are(tmp_path: Path) -> None:
    async with locked(tmp_path) as server, server.rig.ws() as c:
        for number, message in enumerate(
            (
                {"op": "subscribe", "channels": [{"ch": f"trade@{BTC}", "queue_bytes": 10**9}]},
                {"op": "subscribe", "channels": [{"ch": f"trade@{BTC}"}], "admin": True},
                {"op": "become_admin"},
                {"op": "subscribe", "channels": "all"},
            ),
            1,
        ):
            c.send(message)
            await c.got("error", number)
        assert not c.of("snapshot")
