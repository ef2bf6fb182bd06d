"""A WebSocket server that does what a test says, and feeds run against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from tapewick.net.backoff import Backoff
from tapewick.net.inbox import Inbox, Wakeup
from tapewick.net.websocket import Feed, LinkChange
from tapewick.sim.client import ws_frame


class Peer(WSListener):
    """A server's end of a connection that records what it is sent."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.received: list[tuple[WSMsgType, bytes]] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._server.peers.append(self)
        self._server.arrived.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            self._server.pings += 1
            if self._server.pongs:
                transport.send_pong(frame.get_payload_as_bytes())
            self._server.heard.set()
            return
        self.received.append((frame.msg_type, frame.get_payload_as_bytes()))
        self._server.heard.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._server.left.set()

    def controls(self) -> list[dict[str, Any]]:
        """The control messages received so far."""
        return [msgspec.json.decode(payload) for kind, payload in self.received if kind == WSMsgType.TEXT]

    async def until(self, count: int) -> list[dict[str, Any]]:
        """The control messages, once there are ``count``."""
        while len(self.controls()) < count:
            self._server.heard.clear()
            await self._server.heard.wait()
        return self.controls()

    def text(self, *payloads: bytes) -> None:
        self.transport.underlying_transport.write(b"".join(ws_frame(payload) for payload in payloads))


class Server:
    """``pongs``: whether it answers pings."""

    def __init__(self) -> None:
        self.pings = 0
        self.pongs = True
        self.peers: list[Peer] = []
        self.arrived = asyncio.Event()
        self.heard = asyncio.Event()
        self.left = asyncio.Event()
        self.paths: list[str] = []
        self.url = ""

    async def pinged(self, times: int) -> None:
        while self.pings < times:
            self.heard.clear()
            await self.heard.wait()

    async def peer(self, number: int) -> Peer:
        while len(self.peers) <= number:
            self.arrived.clear()
            await self.arrived.wait()
        return self.peers[number]


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()

    def accept(request: WSUpgradeRequest) -> Peer:
        server.paths.append(request.path.decode())
        return Peer(server)

    listening = await ws_create_server(accept, "127.0.0.1", 0, enable_auto_pong=False)
    server.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/stream"
    yield server
    for peer in server.peers:
        peer.transport.disconnect(graceful=False)
    listening.close()
    await listening.wait_closed()


@asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(feed.run())
    # A feed that dies must fail the test at once instead of leaving it waiting.
    test = asyncio.current_task()
    assert test is not None
    task.add_done_callback(lambda ended: None if ended.cancelled() else test.cancel())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def quick() -> Backoff:
    return Backoff(base=0.01, cap=0.05)


async def frames(inbox: Inbox[LinkChange], count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        item = await inbox.get()
        if isinstance(item, Wakeup):
            found += item.frames
    return found


async def change(inbox: Inbox[LinkChange], state: str) -> LinkChange:
    while True:
        item = await inbox.get()
        if isinstance(item, LinkChange) and item.state == state:
            return item
