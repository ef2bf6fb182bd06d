"""Many readers of which one in ten takes a byte a second: the others get everything, memory stays bounded,
and the slow ones are conflated or ended.

``TAPEWICK_READERS`` sets how many there are (default 60; 1000 to see it whole).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tapewick.outbox import Limits
from tests.gateways.rig import BTC, Rig, running

READERS = int(os.environ.get("TAPEWICK_READERS", "60"))
TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
SEQ = re.compile(rb'"seq":(\d+)')


class Plain:
    """A socket that subscribes on one of the transports and keeps the bytes it reads."""

    def __init__(self, rig: Rig, channel: str, *, event_source: bool, slow: bool) -> None:
        host, _, port = rig.gateway.url.removeprefix("http://").partition(":")
        self.slow, self.channel, self.data, self.ended = slow, channel, bytearray(), False
        self.socket = socket.socket()
        if slow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, int(port)))
        self.socket.setblocking(False)
        if event_source:
            self._request = f"GET /v1/sse?channels={channel}&snapshot=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        else:
            text = f'{{"op":"subscribe","channels":[{{"ch":"{channel}","snapshot":0}}]}}'.encode()
            head = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            self._request = head.encode() + b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text

    async def run(self, joined: asyncio.Semaphore) -> None:
        """Subscribe, say so, and read: all there is, or a byte a second."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.socket, self._request)
        while b'"subscribed"' not in self.data:
            self.data += await loop.sock_recv(self.socket, 1 if self.slow else 65_536)
        joined.release()
        while part := await loop.sock_recv(self.socket, 1 if self.slow else 65_536):
            self.data += part
            if self.slow:
                await asyncio.sleep(1)
        self.ended = True

    @property
    def seqs(self) -> list[int]:
        return [int(found) for found in SEQ.findall(self.data)]


@asynccontextmanager
async def reading(rig: Rig, clients: list[Plain]) -> AsyncIterator[None]:
    joined = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(client.run(joined)) for client in clients]
    try:
        for _ in clients:
            await joined.acquire()
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for client in clients:
            client.socket.close()
        assert all(isinstance(one, asyncio.CancelledError | ConnectionError | None) for one in outcomes), outcomes


@pytest.mark.timeout(600)
async def test_slow_readers_are_bounded_and_the_others_get_everything(tmp_path: Path) -> None:
    limits = Limits(queue_bytes=100_000, slow_s=0.5, flush_s=0.001, pong_s=600)
    async with running(tmp_path, limits=limits) as rig:
        clients = [
            Plain(rig, CANDLES if i % 20 == 10 else TRADES, event_source=bool(i % 2 ^ i // 10 % 2), slow=i % 10 == 0)
            for i in range(READERS)
        ]
        fast = [client for client in clients if not client.slow]
        doomed = [client for client in clients if client.slow and client.channel == TRADES]
        async with reading(rig, clients):
            first, worst = 1, 0
            while len(rig.gateway.connections) > len(clients) - len(doomed):
                await rig.tell(first, 200)
                first += 200
                worst = max([worst, *(connection.queued for connection in rig.gateway.connections)])
                # this process is both sides: give those that do read the loop, however busy the machine is
                slow = len(clients) - len(fast)
                while sum(one.queued > 0 for one in rig.gateway.connections) > slow:  # noqa: ASYNC110 (sockets)
                    await asyncio.sleep(0.001)
            async with asyncio.timeout(120):
                while not all(client.seqs[-1:] == [first - 1] for client in fast):  # noqa: ASYNC110 (sockets, no event)
                    await asyncio.sleep(0.05)
            assert all(client.seqs == list(range(1, first)) for client in fast), "content is that of no slow reader"
            assert worst <= limits.queue_bytes + 65_536
            assert not any(client.ended for client in fast)
            kept = len(clients) - len(doomed)
            assert len(rig.gateway.connections) == kept, "who only wants the newest candle is conflated, not closed"
