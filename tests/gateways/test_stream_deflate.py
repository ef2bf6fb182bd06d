"""Compressed WebSocket frames: negotiated, the same for every client, and bounded on the way in."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from picows import WSFrame, WSMsgType, WSTransport
from picows.websockets.asyncio.client import connect

from tapewick import framing
from tapewick.deflate import pack, unpack
from tests.gateways.rig import BTC, Peer, Rig, running
from tests.gateways.test_bridge import wire

TRADES = f"trade@{BTC}"
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}


class Packed(Peer):
    """A client that inflates what is compressed, and keeps how many bytes each frame had on the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[bool, int, int]] = []  # compressed or not, bytes on the wire, bytes of text

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            super().on_ws_frame(transport, frame)
            return
        payload = frame.get_payload_as_bytes()
        text = unpack(payload, 10**7) if frame.rsv1 else payload
        self.sizes.append((bool(frame.rsv1), len(payload), len(text)))
        self.frames.append(json.loads(text))
        self.news.set()

    def send_packed(self, message: Any, **bits: Any) -> None:
        assert self.transport is not None
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.transport.send(WSMsgType.TEXT, raw(text), rsv1=True, **bits)


def raw(text: bytes, level: int = 9) -> bytes:
    """``text`` as a client that always compresses sends it."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.fixture
async def deflating(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "data", ws_deflate=True) as made:
        yield made


async def test_it_is_off_unless_it_is_set_on(rig: Rig) -> None:
    async with wire(rig) as w:
        w.upgrade(Sec_WebSocket_Extensions="permessage-deflate")
        status, headers = await w.head()
        assert status == 101 and "sec-websocket-extensions" not in headers
    async with rig.ws(kind=Packed, extra_headers=OFFER) as c:
        c.send_packed({"op": "ping"})
        assert (await c.until(lambda c: c.closed))[0] == 1002


async def test_only_who_offers_it_gets_it(deflating: Rig) -> None:
    async with wire(deflating) as w:
        w.upgrade(Sec_WebSocket_Extensions="x, permessage-deflate; server_max_window_bits=12")
        _, headers = await w.head()
        told = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11"
        assert headers["sec-websocket-extensions"] == told
    async with wire(deflating) as w:
        w.upgrade()
        assert "sec-websocket-extensions" not in (await w.head())[1]


async def test_all_get_the_same_texts_and_each_is_compressed_once(
    deflating: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[bytes] = []

    def counted(data: bytes) -> bytes | None:
        packed.append(data)
        return pack(data)

    await deflating.tell(1, 200)
    async with (
        deflating.ws() as plain,
        deflating.ws(kind=Packed, extra_headers=OFFER) as one,
        deflating.ws(kind=Packed, extra_headers=OFFER) as two,
    ):
        for c in (plain, one, two):
            c.subscribe({"ch": TRADES, "snapshot": 50})
            await c.got("snapshot")
        monkeypatch.setattr(framing, "pack", counted)
        for first in range(201, 301, 20):
            await deflating.tell(first, 20)
        for c in (plain, one, two):
            await c.until(lambda c: c.rows(TRADES, "event")[-1:] and c.rows(TRADES, "event")[-1]["seq"] == 300)
        assert plain.of("snapshot")[0]["data"] == one.of("snapshot")[0]["data"]
        assert plain.of("event") == one.of("event") == two.of("event")
        events = one.of("event")
        assert len(packed) == len(events), "one compression per frame, whoever reads it"
        assert [json.loads(text) for text in packed] == events
        smaller = [(wire, text) for compressed, wire, text in one.sizes if compressed]
        assert len(smaller) >= len(events) + 1 and all(wire < text for wire, text in smaller)
        assert all(wire * 3 < text for wire, text in smaller if text > 1000)
        assert all(text < 128 for compressed, _, text in one.sizes if not compressed)


async def test_an_independent_client_understands_it(deflating: Rig) -> None:
    await deflating.tell(1, 300)
    url = deflating.gateway.url.replace("http", "ws", 1) + "/v1/ws"
    async with connect(url, compression="deflate") as client:
        assert json.loads(await client.recv())["type"] == "welcome"
        for _ in range(3):  # its compressor keeps nothing between messages, as was agreed on
            await client.send(json.dumps({"op": "subscribe", "channels": [{"ch": TRADES, "snapshot": 300}]}))
            assert json.loads(await client.recv())["type"] == "subscribed"
            snapshot = json.loads(await client.recv())
            assert [row["seq"] for row in snapshot["data"]] == list(range(1, 301))


async def test_requests_may_be_compressed_whole_or_in_fragments(deflating: Rig) -> None:
    async with deflating.ws(kind=Packed, extra_headers=OFFER) as c:
        c.send_packed({"op": "ping", "id": "whole"})
        await c.got("pong", id="whole")
        text = raw(json.dumps({"op": "ping", "id": "parts"}).encode())
        c.transport.send(WSMsgType.TEXT, text[:5], fin=False, rsv1=True)
        c.transport.send(WSMsgType.PING, b"between")
        c.transport.send(WSMsgType.CONTINUATION, text[5:])
        await c.got("pong", id="parts")
        c.send({"op": "ping", "id": "plain"})
        await c.got("pong", id="plain")


async def test_a_fragment_that_is_marked_compressed_is_refused(deflating: Rig) -> None:
    async with deflating.ws(kind=Packed, extra_headers=OFFER) as c:
        c.transport.send(WSMsgType.TEXT, b"", fin=False)
        c.transport.send(WSMsgType.CONTINUATION, raw(b"{}"), rsv1=True)
        assert (await c.until(lambda c: c.closed))[0] == 1002


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (raw(bytes(60 << 20)), 1009),
        (raw(b" " * 655_361), 1009),
        (b"\xff" * 40, 1007),
        (raw(b'{"op":"ping","id":"\xff"}'), 1007),
    ],
    ids=["bomb", "a byte too much", "garbage", "not UTF-8"],
)
async def test_bombs_and_garbage_close_with_their_code(deflating: Rig, payload: bytes, code: int) -> None:
    assert len(payload) <= 65_536
    async with deflating.ws(kind=Packed, extra_headers=OFFER) as c, deflating.ws() as other:
        c.transport.send(WSMsgType.TEXT, payload, rsv1=True)
        assert (await c.until(lambda c: c.closed))[0] == code
        other.send({"op": "ping"})
        await other.got("pong")


async def test_a_bomb_in_fragments_is_bounded_by_their_sum(deflating: Rig) -> None:
    bomb = raw(bytes(60 << 20))
    async with deflating.ws(kind=Packed, extra_headers=OFFER) as c:
        c.transport.send(WSMsgType.TEXT, bomb[:50_000], fin=False, rsv1=True)
        c.transport.send(WSMsgType.CONTINUATION, bomb[:50_000], fin=False)
        assert (await c.until(lambda c: c.closed))[0] == 1009
