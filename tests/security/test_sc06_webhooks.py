"""SC6: Standard Webhooks: signed over id, time and body; five minutes; several signatures; never twice."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx2

from tapewick.gateways._ingest_signature import secret_of, signature
from tests.security.rig import Locked, locked, now_ms, trade

OLD, NEW, FOREIGN = (f"whsec_{b64encode(bytes(range(n, n + 32))).decode()}" for n in (1, 2, 3))
BODY = json.dumps({"instrument": "hook:XYZ", "trades": [trade()]}).encode()


def signed(*secrets: str, id: str = "msg_1", at: int = 0, body: bytes = BODY) -> dict[str, str]:
    """The headers of a message; ``at``: seconds from the server's time."""
    time = str(now_ms() // 1000 + at)
    values = " ".join(signature(secret_of(secret), id, time, body) for secret in secrets)
    return {"webhook-id": id, "webhook-timestamp": time, "webhook-signature": values}


async def sent(server: Locked, headers: dict[str, Any], body: bytes = BODY) -> httpx2.Response:
    return await server.post(body, None, **headers)


async def test_sc06_only_what_is_signed_and_fresh_is_taken(tmp_path: Path) -> None:
    async with locked(tmp_path, ingest={"secrets": (OLD, NEW)}) as server:
        good = signed(NEW)
        assert (await sent(server, good)).status_code == 202
        again = await sent(server, good)
        assert again.status_code == 202 and again.headers["idempotent-replayed"] == "true", "stored once"
        for name in good:
            assert (await sent(server, {k: v for k, v in good.items() if k != name})).status_code == 401, name
        assert (await sent(server, good, BODY.replace(b"1.5", b"9.5"))).status_code == 401, "tampered"
        assert (await sent(server, {**good, "webhook-id": "msg_2"})).status_code == 401
        assert (await sent(server, signed(FOREIGN, id="msg_3"))).status_code == 401
        for number, at in enumerate((-301, 301, -86_400)):
            assert (await sent(server, signed(NEW, id=f"aged_{number}", at=at))).status_code == 401, at
        for number, at in enumerate((-299, 299)):
            assert (await sent(server, signed(NEW, id=f"fresh_{number}", at=at))).status_code == 202, at
        rows = (await server.rig.get("/v1/trades?instrument=hook:XYZ"))["trades"]
        assert len(rows) == 1


async def test_sc06_either_side_can_change_its_secret(tmp_path: Path) -> None:
    async with locked(tmp_path, ingest={"secrets": (OLD, NEW)}) as server:
        for number, secrets in enumerate(((OLD,), (NEW,), (FOREIGN, NEW), (OLD, FOREIGN))):
            assert (await sent(server, signed(*secrets, id=f"msg_{number}"))).status_code == 202
