"""A socket client and REST requests for tests of the simulated venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tapewick.clock import ManualClock
from tapewick.net.http import JsonClient
from tapewick.sim.venue import SimVenue

__all__ = ["ORIGIN", "Listener", "connected", "manual", "rest"]

ORIGIN = 1_767_225_600_000


class Listener(WSListener):
    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.pings: list[bytes] = []
        self.gone = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            self.pings.append(frame.get_payload_as_bytes())
            transport.send_pong(self.pings[-1])
        elif frame.msg_type == WSMsgType.TEXT:
            self.frames.put_nowait(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.frames.put_nowait(f"close {frame.get_close_code():d}".encode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.gone.set()

    async def next(self) -> Any:
        return msgspec.json.decode(await self.frames.get())

    async def ask(self, method: str, params: list[Any] | None = None, id: Any = 1) -> Any:
        """The answer to a control message; data frames before it are passed over."""
        self.transport.send(WSMsgType.TEXT, msgspec.json.encode({"method": method, "params": params or [], "id": id}))
        while "id" not in (answer := await self.next()):
            pass
        return answer


@asynccontextmanager
async def connected(venue: SimVenue, path: str) -> AsyncIterator[Listener]:
    listener = Listener()
    await ws_connect(lambda: listener, venue.ws_url + path, enable_auto_pong=False)
    yield listener
    listener.transport.disconnect(graceful=False)


def manual() -> tuple[ManualClock, SimVenue]:
    """A venue whose time moves only by hand."""
    clock = ManualClock((ORIGIN + 3_600_000) * 1_000_000)
    return clock, SimVenue(["BTCUSDT"], rate=10.0, origin=ORIGIN, clock=clock)


async def rest(venue: SimVenue, path: str, **params: str | int) -> Any:
    async with JsonClient(venue.rest_url) as client:
        return await client.get(f"/api/v3/{path}", Any, params)
