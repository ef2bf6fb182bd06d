"""Greedy and hostile WebSocket clients: a close code that names the cause, bounded work, the others undisturbed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from picows import WSMsgType

from tapewick.outbox import MOST_JOBS, Limits
from tapewick.timeframe import NAMES
from tests.gateways.rig import BTC, ETH, Peer, Rig, running
from tests.gateways.test_bridge import Wire, masked, wire

TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
FAST = Limits(in_per_s=10_000, in_burst=10_000)


async def closed(c: Peer) -> tuple[int, str]:
    return await c.until(lambda c: c.closed)  # type: ignore[no-any-return]


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - the server's side of a socket has no event here
            await asyncio.sleep(0.005)


async def close_code(w: Wire) -> int:
    """Skip what the server says until it closes; its code."""
    async with asyncio.timeout(20):
        while True:
            first, size = await w.reader.readexactly(2)
            if size > 125:
                size = int.from_bytes(await w.reader.readexactly(2 if size == 126 else 8), "big")
            payload = await w.reader.readexactly(size)
            if first == 0x88:
                return int.from_bytes(payload[:2], "big")


# -- many requests, many channels ----------------------------------------------------------------


async def test_ten_thousand_subscribes_at_once_are_4029(rig: Rig) -> None:
    async with rig.ws() as c, rig.ws() as other:
        for number in range(10_000):
            c.subscribe({"ch": TRADES, "snapshot": 1000}, id=number)
        code, reason = await closed(c)
        assert code == 4029 and "5 messages per second" in reason
        assert len(c.of("subscribed")) <= 30
        other.send({"op": "ping"})
        await other.got("pong")


async def test_ten_thousand_channels_are_refused_beyond_the_bound(tmp_path: Path) -> None:
    limits = Limits(in_per_s=10_000, in_burst=10_000, subscriptions=20)
    async with running(tmp_path, ids=(BTC, ETH), limits=limits) as rig, rig.ws() as c:
        known = [f"candle@{id}@{tf}" for id in (BTC, ETH) for tf in NAMES]
        for part in range(100):
            some = known if part == 0 else [f"trade@sim:X{part}-{i}" for i in range(100)]
            c.subscribe(*({"ch": name, "snapshot": 0} for name in some), id=part)
            await c.got("subscribed", id=part)
        told = c.of("subscribed")
        assert sum(len(one["channels"]) for one in told) == 20
        codes = [error["code"] for one in told for error in one["errors"]]
        assert set(codes) == {4413} and len(codes) == 9900 + len(known) - 20
        c.send({"op": "list"})
        assert len((await c.got("list"))[0]["channels"]) == 20
        c.send({"op": "unsubscribe", "channels": [{"ch": known[0]}]})
        c.subscribe({"ch": TRADES, "snapshot": 0}, id="again")
        (again,) = await c.got("subscribed", id="again")
        assert [one["ch"] for one in again["channels"]] == [TRADES], "a place that became free"


async def test_requests_that_wait_are_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, limits=FAST) as rig, rig.ws() as c:
        for number in range(MOST_JOBS + 40):
            c.subscribe({"ch": TRADES, "snapshot": 1000}, id=number)
        code, reason = await closed(c)
        assert code == 4029 and "wait" in reason


async def test_a_request_of_more_channels_than_one_may_hold(rig: Rig) -> None:
    async with rig.ws() as c:
        c.subscribe(*(f"trade@sim:X{i}" for i in range(101)))
        assert "100" in (await c.got("error"))[0]["msg"]


@pytest.mark.parametrize("kind", ["pings", "empty fragments", "pongs and pings"])
async def test_control_frames_and_fragments_count_too(rig: Rig, kind: str) -> None:
    async with rig.ws() as c:
        if kind == "empty fragments":
            c.transport.send(WSMsgType.TEXT, b"", fin=False)
        for _ in range(50):
            if kind == "empty fragments":
                c.transport.send(WSMsgType.CONTINUATION, b"", fin=False)
            else:
                c.transport.send_pong(b"x") if kind.startswith("pongs") else None
                c.transport.send_ping(b"x")
        assert (await closed(c))[0] == 4029


# -- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x05hello", 1002),  # unmasked
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is none
        (b"\x09\x80\0\0\0\0", 1002),  # a ping in fragments
        (b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126), 1002),  # a ping with 126 bytes
        (b"\x81\xfe\x00\x05\0\0\0\0hello", 1002),  # a length that is not the shortest
        (b"\xc1\x80\0\0\0\0", 1002),  # compressed, which was not negotiated
        (b"\xa1\x80\0\0\0\0", 1002),
        (b"\x91\x80\0\0\0\0", 1002),
        (b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", 1002),  # a message within a message
        (b"\x81\xff\0\0\0\0\0\1\0\1\0\0\0\0", 1009),  # announces 65,537 bytes
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),  # announces 2^63 - 1
        (b"\x81\xff\x80\0\0\0\0\0\0\0\0\0\0\0", 1002),
    ],
)
async def test_frames_that_break_the_protocol(rig: Rig, frames: bytes, code: int) -> None:
    async with wire(rig) as w:
        w.upgrade(more=frames)
        assert (await w.head())[0] == 101
        assert await close_code(w) == code
        async with asyncio.timeout(60):
            assert await w.reader.read() == b""


async def test_a_character_may_be_cut_by_fragments_and_pings_may_come_between(rig: Rig) -> None:
    text = json.dumps({"op": "ping", "id": "€"}, ensure_ascii=False).encode()
    cut = text.index("€".encode()) + 1
    async with rig.ws() as c:
        c.transport.send(WSMsgType.TEXT, text[:cut], fin=False)
        c.transport.send_ping(b"between")
        c.transport.send(WSMsgType.CONTINUATION, text[cut:])
        await c.got("pong", id="€")


async def test_a_frame_that_trickles_in_is_cut_off_for_want_of_a_pong(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(heartbeat_s=0.02, pong_s=0.2)) as rig, wire(rig) as w:
        w.upgrade()
        assert (await w.head())[0] == 101
        w.send(b"\x81\xfe\xff\xff\0\0\0\0")

        async def trickle() -> None:
            while True:
                w.send(b" ")
                await asyncio.sleep(0.01)

        slow = asyncio.create_task(trickle())
        try:
            assert await close_code(w) == 4010
        finally:
            slow.cancel()
        await until(lambda: not rig.gateway.connections)


@pytest.mark.parametrize(
    "name",
    [
        "trade@'; DROP TABLE trades; --", "trade@sim:*", "trade@sim:>", "trade@../../etc/passwd", "trade@sim:X\r\nX: y",
        "trade@<script>alert(1)</script>", "trade@" + "x" * 122, "trade@", "@", "trade@@", "candle@@1m", "trade@\x00",
        "trade@sim:BTCUSDT@1m", f"candle@{BTC}@1m@1m", "order@*", "\ud800",
    ],
)  # fmt: skip
async def test_names_that_mean_harm_are_refused_as_names(rig: Rig, name: str) -> None:
    async with rig.ws() as c:
        c.subscribe(TRADES, name)
        if name == "\ud800":
            await c.got("error")
            return
        (told,) = await c.got("subscribed")
        assert [one["ch"] for one in told["channels"]] == [TRADES]
        (error,) = told["errors"]
        assert error["ch"] == name and error["code"] in (4400, 4404)
        await c.got("snapshot")


# -- close codes that tell a client not to come back ----------------------------------------------


async def test_a_sole_request_for_an_unknown_channel_is_4404(rig: Rig) -> None:
    async with rig.ws() as c:
        c.subscribe("trade@sim:NOPE")
        (told,) = await c.got("subscribed")
        assert told["errors"][0]["code"] == 4404
        assert (await closed(c))[0] == 4404
    async with rig.ws() as c:
        c.subscribe(TRADES)
        await c.got("snapshot")
        c.subscribe("trade@sim:NOPE", id=2)
        await c.got("subscribed", id=2)
        c.send({"op": "ping"})
        await c.got("pong")


async def test_a_strict_resume_that_is_impossible_is_4009(rig: Rig) -> None:
    await rig.tell(1, 50)
    epoch = (await rig.store.head(BTC)).epoch
    async with rig.ws() as c:
        c.subscribe({"ch": TRADES, "since": f"{epoch}:40", "strict": True})
        assert (await c.got("subscribed"))[0]["channels"][0]["recovered"] is True
        await c.until(lambda c: len(c.rows(TRADES, "event")) == 10)
        c.subscribe({"ch": CANDLES, "since": "WRONG:1", "strict": True}, id=2)
        code, reason = await closed(c)
        assert code == 4009 and "epoch" in reason and not c.of("subscribed", id=2)


async def test_a_channel_asked_for_again_sends_its_snapshot_again(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with rig.ws() as c:
        for number, rows in enumerate((5, 7), 1):
            c.subscribe({"ch": TRADES, "snapshot": rows}, {"ch": CANDLES, "snapshot": 1}, id=number)
            snapshots = await c.got("snapshot", number, ch=TRADES)
            assert len(snapshots[-1]["data"]) == rows
        await c.got("snapshot", 2, ch=CANDLES)
        await rig.tell(701, 3)
        await c.until(lambda c: c.rows(TRADES, "event")[-1:] and c.rows(TRADES, "event")[-1]["seq"] == 703)
        assert [row["seq"] for row in c.rows(TRADES, "event")] == [701, 702, 703], "and is followed once"


# -- connections per address -----------------------------------------------------------------------


async def test_an_address_has_so_many_push_connections(tmp_path: Path) -> None:
    async with running(tmp_path, push_per_address=3) as rig:
        url = f"{rig.gateway.url}/v1/sse?channels={TRADES}"
        async with (
            rig.ws() as one,
            rig.ws() as two,
            httpx2.AsyncClient() as client,
            client.stream("GET", url) as stream,
        ):
            await one.got("welcome")
            await two.got("welcome")
            assert stream.status_code == 200
            async with wire(rig) as w:
                w.upgrade()
                status, headers = await w.head()
                assert status == 429 and int(headers["retry-after"]) > 0
                assert b"server.push_per_address" in await w.body(headers)
            refused = await client.get(url)
            assert refused.status_code == 429 and refused.headers["retry-after"]
            assert (await client.get(f"{rig.gateway.url}/v1/instruments")).status_code == 200
        await until(lambda: not rig.gateway.push_quota.busy)
        async with rig.ws() as again:
            await again.got("welcome")


async def test_refused_upgrades_keep_no_place(tmp_path: Path) -> None:
    async with running(tmp_path, push_per_address=1) as rig:
        for path, origin in (("/nope", None), ("/v1/ws", "http://evil.example")):
            async with wire(rig) as w:
                w.upgrade(path, Origin=origin)
                assert (await w.head())[0] in (403, 404)
        await until(lambda: not rig.gateway.push_quota.busy)
        async with wire(rig) as w:
            w.upgrade(more=masked(b'{"op":"ping"}'))
            assert (await w.head())[0] == 101
