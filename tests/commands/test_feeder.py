"""What the feeder does with answers of a load balancer, and of a gateway where the same request is under way."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from tapewick.commands.feeder import Feeder
from tapewick.errors import VenueRefused

REASON = {200: "OK", 202: "Accepted", 404: "Not Found"}


class Balancer:
    """Answers each request with the next of ``statuses``, the last for ever; what it was asked in ``keys``."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.keys: Counter[str] = Counter()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        status = 404
        if head.startswith("POST"):
            self.keys[fields["idempotency-key"]] += 1
            status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        rows = len(json.loads(body)["trades"]) if body else 0
        verdicts = [{"index": index, "verdict": "accepted"} for index in range(rows)]
        told = json.dumps({"accepted": rows, "duplicates": 0, "queued": 0, "rejected": 0, "verdicts": verdicts})
        text = f"HTTP/1.1 {status} {REASON.get(status, 'Other')}\r\ncontent-length: {len(told)}\r\nconnection: close"
        writer.write(f"{text}\r\n\r\n{told}".encode())
        writer.close()
        await writer.wait_closed()


async def fed(balancer: Balancer) -> Feeder:
    """Two batches through ``balancer``."""
    server = await asyncio.start_server(balancer.answer, "127.0.0.1", 0)
    try:
        feeder = Feeder(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key", "hook:A", patience=30)
        await feeder.send(10, rate=10**6, size=5)
        return feeder
    finally:
        server.close()
        await server.wait_closed()


async def test_a_request_is_sent_again_as_it_was_until_it_is_taken() -> None:
    balancer = Balancer(502, 409, 504, 503, 202)
    feeder = await fed(balancer)
    assert feeder.acknowledged == set(range(1, 11))
    assert sorted(balancer.keys.values()) == [1, 5], "the same idempotency key each time"
    assert feeder.outcome()["unavailable"] == 4


async def test_what_trying_again_does_not_change_is_raised() -> None:
    with pytest.raises(VenueRefused, match="HTTP 403"):
        await fed(Balancer(403))
