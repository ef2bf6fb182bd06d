"""A whole read side for tests: real bus, store, engine, market, gateway and clients on loopback.

Trades are invented: one per 100 ms from ``T0``, ids counting from 1.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import numpy as np
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.gateways.http import HttpGateway
from tapewick.market import Market
from tapewick.model import Instrument, TradeBatch
from tapewick.outbox import Limits
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND

T0 = 1_723_161_600 * SECOND  # 2024-08-09T00:00:00Z
STEP = SECOND // 10
BTC = "sim:BTCUSDT"
ETH = "chainlink:ETH/USD"


def instrument(id: str = BTC, **changes: Any) -> Instrument:
    venue, _, symbol = id.partition(":")
    return Instrument(**{"id": id, "venue": venue, "symbol": symbol, "price_scale": 2, "size_scale": 3, **changes})


def batch(first: int, count: int, id: str = BTC, *, clock: int = 0, late: bool = False) -> TradeBatch:
    """Trades ``first`` to ``first + count - 1``; everything follows from the id."""
    ids = np.arange(first, first + count, dtype=np.int64)
    return TradeBatch(
        instrument=id,
        trade_id=ids,
        first_id=ids.copy(),
        count=np.ones(count, np.int32),
        ts_event=T0 + ids * STEP,
        ts_recv=T0 + ids * STEP + 7_000_000,
        price=10_000 + ids * 37 % 500,
        size=1 + ids % 9,
        side=np.where(ids % 2, 1, -1).astype(np.int8),
        price_scale=2,
        size_scale=3,
        clock=clock,
        late=late,
        source="test",
    )


class Rig:
    """The running parts."""

    def __init__(
        self, bus: MemoryBus, store: DuckDBStore, market: Market, gateway: HttpGateway, clock: ManualClock
    ) -> None:
        self.bus, self.store, self.market, self.gateway, self.clock = bus, store, market, gateway, clock

    @property
    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.gateway.url)

    async def tell(self, first: int, count: int, id: str = BTC, **more: Any) -> None:
        """Publish trades and wait until they are committed and announced."""
        await self.bus.publish("trades", batch(first, count, id, **more))
        await self.bus.settled("trades")

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.http as client:
            answer = await client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def ws(self, path: str = "/v1/ws", **options: Any) -> Any:
        return peer(self.gateway.url.replace("http", "ws", 1) + path, **options)


@asynccontextmanager
async def running(
    folder: Path, *, limits: Limits | None = None, ids: tuple[str, ...] = (BTC,), **options: Any
) -> AsyncIterator[Rig]:
    clock = ManualClock(T0 + 86_400 * SECOND)
    async with (
        DuckDBStore(folder) as store,
        MemoryBus() as bus,
        EngineRole(bus, store, Engine(), clock, interval=0.001),
        Market(bus, store, clock) as market,
    ):
        for id in ids:
            await bus.publish("trades", instrument(id))
        await bus.settled("trades")
        async with HttpGateway(market, port=0, limits=limits, **options) as gateway:
            yield Rig(bus, store, market, gateway, clock)


class Peer(WSListener):
    """A WebSocket client that keeps every JSON object it got."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.transport: WSTransport | None = None
        self.closed: tuple[int, str] | None = None
        self.pings = 0
        self.answer_pings = True
        self.news = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            told = json.loads(frame.get_payload_as_bytes())
            self.frames += told if isinstance(told, list) else [told]
        elif frame.msg_type == WSMsgType.PING:
            self.pings += 1
            if self.answer_pings:
                transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.closed = (int(frame.get_close_code()), frame.get_close_reason())  # type: ignore[call-overload]
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        self.news.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = self.closed or (1006, "")
        self.news.set()

    def send(self, message: Any) -> None:
        assert self.transport is not None
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.transport.send(WSMsgType.TEXT, text)

    def subscribe(self, *channels: Any, id: Any = 1) -> None:
        wanted = [{"ch": one} if isinstance(one, str) else one for one in channels]
        self.send({"op": "subscribe", "id": id, "channels": wanted})

    async def until(self, done: Callable[[Self], object], seconds: float = 20) -> Any:
        """Wait for ``done(self)`` to be true; its value."""
        async with asyncio.timeout(seconds):
            while not (value := done(self)):
                self.news.clear()
                await self.news.wait()
        return value

    async def got(self, type: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for ``count`` frames of a type; all of them so far."""

        def enough(peer: Peer) -> list[dict[str, Any]]:
            found = peer.of(type, **fields)
            return found if len(found) >= count else []

        found: list[dict[str, Any]] = await self.until(enough)
        return found

    def of(self, type: str, **fields: Any) -> list[dict[str, Any]]:
        wanted = {"type": type, **fields}
        return [f for f in self.frames if all(f.get(k) == v for k, v in wanted.items())]

    def rows(self, ch: str, *types: str) -> list[dict[str, Any]]:
        """The rows of all frames of a channel, in order."""
        return [row for f in self.frames if f.get("ch") == ch and f["type"] in types for row in f.get("data", ())]


@asynccontextmanager
async def peer(url: str, kind: type[Peer] = Peer, **options: Any) -> AsyncIterator[Peer]:
    transport, client = await ws_connect(kind, url, enable_auto_pong=False, **options)
    try:
        yield client  # type: ignore[misc]
    finally:
        transport.disconnect(False)
        await transport.wait_disconnected()
