"""A server to attack: with stored keys and ingest, in this loop; or a whole process of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from tapewick.gateways._auth import Guard
from tapewick.gateways.ingest import Options
from tapewick.keys import KeyFile
from tests.gateways.rig import BTC, T0, Rig, running

__all__ = ["INGEST", "Locked", "bearer", "locked", "now_ms", "trade"]

INGEST = "/v1/ingest/trades"
NOW = T0 // 1_000_000 + 86_400_000  # the rig's clock, in ms


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def trade(trade_id: Any = "t1", **changes: Any) -> dict[str, Any]:
    """One sound trade at ``now_ms``."""
    return {"trade_id": trade_id, "price": "1.5", "size": "2", "ts_event": NOW - 1000, **changes}


def now_ms() -> int:
    return NOW


class Locked:
    """A running read side that can be written to."""

    def __init__(self, rig: Rig, keys: KeyFile, client: httpx2.AsyncClient) -> None:
        self.rig, self.keys, self._client = rig, keys, client
        self.writer = self.key("ingest")

    def key(self, *scopes: str, **more: Any) -> str:
        """The secret text of a new key."""
        return self.keys.create(scopes, **more)[1]

    async def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx2.Response:
        headers = {**more.pop("headers", {}), **(bearer(token) if token else {})}
        return await self._client.request(method, path, headers=headers, timeout=60, **more)

    async def post(self, body: Any, token: str | None = "", **headers: str) -> httpx2.Response:
        """Send trades, by default with a key that may."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask("POST", INGEST, self.writer if token == "" else token, content=content, headers=headers)

    async def verdict(self, instrument: str = "hook:XYZ", **changes: Any) -> dict[str, Any]:
        """What becomes of one trade; of a refused request, its problem."""
        answer = await self.post({"instrument": instrument, "trades": [trade(**changes)]})
        told: dict[str, Any] = answer.json()
        return told["verdicts"][0] if answer.status_code == 202 else told


@asynccontextmanager
async def locked(
    folder: Path, *, required: bool = False, ingest: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Locked]:
    keys = KeyFile(folder)
    options.setdefault("guard", Guard(keys=keys, required=required))
    options["ingest"] = Options(folder, **(ingest or {}))
    async with running(folder / "data", ids=(BTC,), **options) as rig, rig.http as client:
        yield Locked(rig, keys, client)
