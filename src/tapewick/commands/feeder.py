"""Invented trades on their way to a server's ingest, and what it acknowledged of them."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from typing import Any

import httpx2

from tapewick._client_address import authorization, trust
from tapewick.client import Client
from tapewick.commands.output import Progress
from tapewick.errors import Disconnected, NotFound, Unauthorized, VenueRefused

__all__ = ["Feeder"]

AGAIN = (409, 429, 502, 503, 504)
TRY_AGAIN = 0.2  # seconds, where the server names none


class Feeder:
    """Sends trades with ids that follow what the tape holds, and remembers which were acknowledged.

    ``patience``: seconds without any answer after which it gives up. A request that got no answer, 429, 503, 409 (it is
    under way still), or a 502 or 504 of a load balancer is sent again as it was, with the same idempotency key, not
    before the time that is named. ``tls``: as of ``Client``.
    """

    def __init__(
        self,
        url: str,
        token: str,
        instrument: str,
        *,
        tls: ssl.SSLContext | str | None = None,
        seed: int = 1,
        patience: float = 60.0,
    ) -> None:
        self._url, self._token, self._tls, self._instrument = url.rstrip("/"), token, tls, instrument
        self._seed, self._patience = seed, patience
        self.acknowledged: set[int] = set()
        self._counts = {"sent": 0, "accepted": 0, "duplicates": 0, "queued": 0, "rejected": 0}
        self._refusals = {"over_quota": 0, "unavailable": 0, "unanswered": 0}

    def outcome(self) -> dict[str, Any]:
        """What has happened so far."""
        told = {"instrument": self._instrument, "acknowledged": len(self.acknowledged)}
        return {**told, **self._counts, **self._refusals}

    async def send(self, total: int, *, rate: int, size: int, progress: Progress | None = None) -> None:
        """``total`` trades, ``size`` per request, no faster than ``rate`` a second.

        Raises ``Disconnected``, and ``VenueRefused`` for an answer that trying again does not change.
        """
        first, started = await self._next_id(), time.monotonic()
        headers = {**authorization(self._token), "content-type": "application/json"}
        verify = trust(self._tls) or True
        async with httpx2.AsyncClient(timeout=30, trust_env=False, headers=headers, verify=verify) as client:
            for done in range(0, total, size):
                await asyncio.sleep(max(0.0, started + done / rate - time.monotonic()))
                ids = range(first + done, first + min(done + size, total))
                self._counts["sent"] += len(ids)
                await self._insist(client, ids)
                if progress is not None:
                    progress.update(done + len(ids), (done + len(ids)) / total)

    async def verify(self) -> dict[str, int]:
        """How many acknowledged trades the tape holds, lacks, and holds more than once.

        Those answered ``queued`` have time to come: it is looked again until they are there, or patience ends.
        """
        end = time.monotonic() + self._patience
        told = await self._verified()
        while told["missing"] and self._counts["queued"] and time.monotonic() < end:
            await asyncio.sleep(TRY_AGAIN)
            told = await self._verified()
        return told

    async def _verified(self) -> dict[str, int]:
        seen: set[int] = set()
        doubled = 0
        async with Client(self._url, token=self._token, tls=self._tls) as client:
            if self.acknowledged:
                async for page in client.trade_pages(self._instrument, since=0, limit=0):
                    for row in page.rows:
                        id = json.loads(bytes(row))["trade_id"]
                        doubled += id in seen
                        seen.add(id)
        return {
            "verified": len(self.acknowledged & seen),
            "missing": len(self.acknowledged - seen),
            "doubled": doubled,
        }

    async def _next_id(self) -> int:
        async with Client(self._url, token=self._token, tls=self._tls) as client:
            try:
                ranges = (await client.coverage(self._instrument))["ranges"]
            except (NotFound, Unauthorized):  # no tape yet, or a key that may only write
                return 1
        return max((int(one[1]) for one in ranges), default=0) + 1

    def _body(self, ids: range) -> bytes:
        trades = []
        now = int(time.time() * 1000)
        for id in ids:
            chance = random.Random(self._seed << 64 | id)  # what a trade is follows from seed and id alone
            price, size = 1_000_000 + chance.randrange(20_000), 1 + chance.randrange(5000)
            trades.append(
                {
                    "trade_id": id,
                    "ts_event": now,
                    "price": f"{price // 100}.{price % 100:02}",
                    "size": f"{size // 1000}.{size % 1000:03}",
                    "side": chance.choice(("buy", "sell")),
                }
            )
        return json.dumps({"instrument": self._instrument, "id_kind": "contiguous", "trades": trades}).encode()

    async def _insist(self, client: httpx2.AsyncClient, ids: range) -> None:
        """Send one batch until it is acknowledged."""
        body, last = self._body(ids), time.monotonic()
        key = {"idempotency-key": f"feed-{self._seed}-{ids.start}-{random.SystemRandom().getrandbits(64):x}"}
        while True:
            try:
                answer = await client.post(f"{self._url}/v1/ingest/trades", content=body, headers=key)
            except httpx2.TransportError as error:
                self._refusals["unanswered"] += 1
                if time.monotonic() - last > self._patience:
                    raise Disconnected(f"{self._url} does not answer: {error or type(error).__name__}") from error
                await asyncio.sleep(TRY_AGAIN)
                continue
            if answer.status_code == 202:
                self._note(answer.json(), ids)
                return
            if answer.status_code not in AGAIN or time.monotonic() - last > self._patience:
                raise VenueRefused(
                    f"{self._url} answered HTTP {answer.status_code}: {ascii(answer.text[:200])}",
                    status=answer.status_code,
                )
            self._refusals["over_quota" if answer.status_code == 429 else "unavailable"] += 1
            named = answer.headers.get("retry-after", "")
            await asyncio.sleep(float(named) if named.isdigit() else TRY_AGAIN)

    def _note(self, told: dict[str, Any], ids: range) -> None:
        for name in ("accepted", "duplicates", "queued", "rejected"):
            self._counts[name] += told[name]
        self.acknowledged.update(ids[one["index"]] for one in told["verdicts"] if one["verdict"] != "rejected")
