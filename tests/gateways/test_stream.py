"""The WebSocket protocol over real sockets: seams, resume, limits, slow readers, shutdown."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from picows import WSMsgType

from tapewick.outbox import Limits
from tapewick.timeframe import SECOND
from tests.gateways.rig import BTC, ETH, STEP, T0, Peer, Rig, batch, running

TRADES = f"trade@{BTC}"
CANDLES = f"candle@{BTC}@1m"
PROCESS = ("pos", "state", "rev", "complete", "last_seq", "close", "volume", "trades")


def reduced(rows: list[dict[str, Any]]) -> dict[int, tuple[Any, ...]]:
    """The newest version of each candle a client holds, by the client rule: the highest pos."""
    held: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["open_time"] not in held or row["pos"] >= held[row["open_time"]]["pos"]:
            held[row["open_time"]] = row
    return {open_time: tuple(row[name] for name in PROCESS) for open_time, row in held.items()}


async def test_welcome_subscribe_snapshot_and_live(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with rig.ws() as c:
        (welcome,) = await c.got("welcome")
        assert welcome["limits"] == {"subs": 1024, "in_per_s": 5.0, "frame": 65536} and welcome["heartbeat_s"] == 20
        c.subscribe({"ch": TRADES, "snapshot": 3}, {"ch": f"candle@{BTC}@1", "snapshot": 5}, id="a")
        (told,) = await c.got("subscribed")
        epoch = told["channels"][0]["pos"].split(":")[0]
        assert told["id"] == "a"
        assert told["channels"][0] == {"ch": TRADES, "pos": f"{epoch}:700", "recovered": False}
        assert told["channels"][1]["ch"] == CANDLES, "the canonical spelling"
        await c.got("snapshot", 2)
        (trades,) = c.of("snapshot", ch=TRADES)
        assert trades["pos"] == f"{epoch}:700" and [t["seq"] for t in trades["data"]] == [698, 699, 700]
        (candles,) = c.of("snapshot", ch=CANDLES)
        assert [(row["trades"], row["state"]) for row in candles["data"]] == [(599, "closed"), (101, "open")]
        await rig.tell(701, 4)
        (event,) = await c.got("event", ch=TRADES)
        assert event["from"] == f"{epoch}:701" and event["pos"] == f"{epoch}:704"
        assert [t["trade_id"] for t in event["data"]] == [701, 702, 703, 704]
        (update,) = await c.got("update", ch=CANDLES)
        assert update["data"][0]["trades"] == 105 and update["data"][0]["state"] == "open"
        assert "pos" not in update, "provisional: nothing to resume from"
        assert isinstance(update["data"][0]["pos"], int), "of the stored version"


async def test_a_channel_is_left_and_listed(rig: Rig) -> None:
    async with rig.ws() as c:
        c.subscribe(TRADES, f"trade@{ETH}")
        await c.got("snapshot", 2)
        c.send({"op": "list", "id": 7})
        (listed,) = await c.got("list", id=7)
        assert {one["ch"] for one in listed["channels"]} == {TRADES, f"trade@{ETH}"}
        c.send({"op": "unsubscribe", "id": 8, "channels": [{"ch": TRADES}, {"ch": "trade@never"}]})
        (gone,) = await c.got("unsubscribed", id=8)
        assert gone["count"] == 1
        await rig.tell(1, 5)
        await rig.tell(1, 5, ETH)
        await c.got("event", ch=f"trade@{ETH}")
        assert not c.of("event", ch=TRADES)


async def test_closed_final_and_revised_are_events_after_the_commit(rig: Rig) -> None:
    await rig.tell(1, 500)
    async with rig.ws() as c:
        c.subscribe(CANDLES)
        await c.got("snapshot")
        await rig.tell(501, 200, clock=T0 + 70 * SECOND)
        (closed,) = await c.got("event", kind="closed")
        assert closed["data"][0]["trades"] == 599 and closed["data"][0]["state"] == "closed"
        await rig.tell(701, 300, clock=T0 + 100 * SECOND)
        await rig.tell(1051, 400, clock=T0 + 150 * SECOND)
        await rig.tell(1001, 50, late=True)  # the hole, filled from the venue
        (revised,) = await c.got("event", kind="revised", reason="repair")
        assert revised["data"][0]["rev"] >= 1
        positions = [int(e["pos"].split(":")[1]) for e in c.of("event", ch=CANDLES)]
        assert positions == sorted(positions)


async def test_no_hole_and_no_duplicate_at_the_seam_while_trades_arrive(rig: Rig) -> None:
    await rig.tell(1, 500)
    first, total = 501, 3500

    async def publish() -> None:
        for start in range(first, total + 1, 20):
            await rig.tell(start, 20, clock=T0 + start * STEP)

    publisher = asyncio.create_task(publish())
    clients = []
    for _ in range(6):
        peer = rig.ws()
        client = await peer.__aenter__()
        client.subscribe({"ch": TRADES, "snapshot": 50}, {"ch": CANDLES, "snapshot": 1000})
        clients.append((peer, client))
        await asyncio.sleep(0.02)
    await publisher
    stored, head = await rig.store.candles(BTC, 1)
    for peer, c in clients:
        await c.until(lambda c: (rows := c.rows(TRADES, "snapshot", "event")) and rows[-1]["seq"] == total)
        seqs = [row["seq"] for row in c.rows(TRADES, "snapshot", "event")]
        assert seqs == list(range(seqs[0], total + 1)), "every trade once, in order"
        held = await c.until(
            lambda c: (
                (rows := reduced([r for r in c.rows(CANDLES, "snapshot", "event") if r["state"] != "open"]))
                and len(rows) == (stored["state"] > 0).sum()
                and rows
            )
        )
        assert {key: held[key][0] for key in held} == {
            int(row["open_time"]) // 10**6: int(row["pos"]) for row in stored if row["state"] > 0
        }
        assert head.seq == total
        await peer.__aexit__(None, None, None)


async def test_a_resume_brings_exactly_what_was_missed(rig: Rig) -> None:
    await rig.tell(1, 500, clock=T0 + 50 * SECOND)
    async with rig.ws() as c:
        c.subscribe({"ch": TRADES, "snapshot": 0}, {"ch": CANDLES, "snapshot": 100})
        (told,) = await c.got("subscribed")
        trade_pos, candle_pos = (one["pos"] for one in told["channels"])
        held = (await c.got("snapshot", ch=CANDLES))[0]["data"]
    await rig.tell(501, 4000, clock=T0 + 450 * SECOND)
    async with rig.ws() as c:
        c.subscribe({"ch": TRADES, "since": trade_pos}, {"ch": CANDLES, "since": candle_pos})
        (told,) = await c.got("subscribed")
        assert told["channels"][0]["recovered"] is True and told["channels"][0]["replayed"] == 4000
        assert told["channels"][1]["recovered"] is True
        await rig.tell(4501, 5)
        await c.until(lambda c: c.rows(TRADES, "event")[-1:] and c.rows(TRADES, "event")[-1]["seq"] == 4505)
        assert [row["seq"] for row in c.rows(TRADES, "event")] == list(range(501, 4506))
        assert not c.of("snapshot") and not c.of("gap")
        stored, _ = await rig.store.candles(BTC, 1)
        expected = {int(r["open_time"]) // 10**6: int(r["pos"]) for r in stored if r["state"] > 0}
        rows = await c.until(
            lambda c: (
                len(found := reduced([r for r in held + c.rows(CANDLES, "event") if r["state"] != "open"]))
                == len(expected)
                and found
            )
        )
        assert {key: value[0] for key, value in rows.items()} == expected


async def test_without_a_snapshot_live_data_begin_right_behind_the_position_that_was_told(rig: Rig) -> None:
    """Also where trades are committed between the reply and the moment the channel is listened to."""
    async with rig.ws() as c:
        c.subscribe({"ch": TRADES, "snapshot": 0}, {"ch": CANDLES, "since": "WRONG:5", "snapshot": 0})
        first = 1
        while not c.of("subscribed"):
            await rig.tell(first, 20, clock=T0 + first * STEP)
            first += 20
        told = int(c.of("subscribed")[0]["channels"][0]["pos"].partition(":")[2])
        await rig.tell(first, 20)
        await c.until(lambda c: (rows := c.rows(TRADES, "event")) and rows[-1]["seq"] == first + 19)
        assert [row["seq"] for row in c.rows(TRADES, "event")] == list(range(told + 1, first + 20))
        assert not c.of("snapshot") and c.of("gap", ch=CANDLES)


@pytest.mark.parametrize(("since", "reason"), [("WRONG:5", "epoch"), ("{epoch}:999999", "future"), (999_999, "future")])
async def test_a_resume_that_cannot_be_exact_says_so(rig: Rig, since: Any, reason: str) -> None:
    await rig.tell(1, 50)
    epoch = (await rig.store.head(BTC)).epoch
    since = since.format(epoch=epoch) if isinstance(since, str) else since
    async with rig.ws() as c:
        c.subscribe({"ch": TRADES, "since": since})
        (told,) = await c.got("subscribed")
        assert told["channels"][0]["recovered"] is False
        (snapshot,) = await c.got("snapshot")
        assert len(snapshot["data"]) == 50
        (gap,) = c.of("gap")
        assert gap["reason"] == reason and gap["to"] == f"{epoch}:50"
        assert c.frames.index(gap) < c.frames.index(snapshot)


async def test_replay_from_a_time(rig: Rig) -> None:
    await rig.tell(1, 2500, clock=T0 + 250 * SECOND)
    async with rig.ws() as c:
        c.subscribe(
            {"ch": TRADES, "since": {"ts": (T0 + 50 * SECOND) // 10**6}},
            {"ch": CANDLES, "since": {"ts": (T0 + 60 * SECOND) // 10**6}},
        )
        await c.until(lambda c: (rows := c.rows(TRADES, "snapshot", "event")) and rows[-1]["seq"] == 2500)
        await rig.tell(2501, 1)
        await c.until(lambda c: c.rows(TRADES, "event")[-1]["seq"] == 2501)
        assert [r["seq"] for r in c.rows(TRADES, "snapshot", "event")] == list(range(500, 2502))
        opens = [r["open_time"] for r in c.rows(CANDLES, "snapshot")]
        assert opens == [(T0 + i * 60 * SECOND) // 10**6 for i in range(1, 5)]


async def test_seconds_are_live_only(rig: Rig) -> None:
    await rig.tell(1, 100)
    channel = f"candle@{BTC}@1s"
    async with rig.ws() as c:
        c.subscribe({"ch": channel, "snapshot": 4})
        (snapshot,) = await c.got("snapshot")
        assert len(snapshot["data"]) == 4
        await rig.tell(101, 3)
        (update, *_) = await c.got("update", ch=channel)
        assert update["data"][-1]["tf"] == "1s"
        c.subscribe({"ch": channel, "since": snapshot["pos"]}, id=2)
        (told,) = await c.got("subscribed", id=2)
        assert told["channels"][0]["recovered"] is False
        assert c.of("gap")[0]["reason"] == "not_stored"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"not json", "malformed"),
        (b"[]", "object"),
        (b'{"op":"dance"}', "dance"),
        (b'{"op":"subscribe","id":3}', "channels"),
        (b'{"op":"subscribe","id":3,"channels":[]}', "length"),
        (b'{"op":"subscribe","id":3,"channels":[{"ch":"x","snapshot":1001}]}', "1000"),
        (b'{"op":"subscribe","id":3,"channels":[{"ch":"x","speed":1}]}', "speed"),
        (b"[" * 30_000, ""),
        (b'{"op":"ping","id":' + b"[" * 20_000, ""),
    ],
)
async def test_a_bad_request_is_told_and_the_session_goes_on(rig: Rig, message: bytes, says: str) -> None:
    async with rig.ws() as c:
        c.send(message)
        (error,) = await c.got("error")
        assert error["code"] == "bad_request" and says in error["msg"]
        assert error["id"] == (3 if b'"id":3' in message else None)
        c.send({"op": "ping", "id": "still"})
        (pong,) = await c.got("pong")
        assert pong["id"] == "still"


async def test_channels_that_cannot_be_had_are_listed(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(subscriptions=2)) as rig, rig.ws() as c:
        c.subscribe(TRADES, "trade@sim:NOPE", "book@sim:X", f"candle@{BTC}@7m", CANDLES, f"candle@{BTC}@5m", id=4)
        (told,) = await c.got("subscribed")
        assert [one["ch"] for one in told["channels"]] == [TRADES, CANDLES]
        assert [(one["ch"], one["code"]) for one in told["errors"]] == [
            ("trade@sim:NOPE", 4404), ("book@sim:X", 4404), (f"candle@{BTC}@7m", 4400), (f"candle@{BTC}@5m", 4413),
        ]  # fmt: skip


async def closed(c: Peer) -> tuple[int, str]:
    return await c.until(lambda c: c.closed)  # type: ignore[no-any-return]


async def test_over_the_rate_is_4029(rig: Rig) -> None:
    async with rig.ws() as c:
        for i in range(30):
            c.send({"op": "ping", "id": i})
        assert (await closed(c))[0] == 4029
        assert 20 <= len(c.of("pong")) < 30


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        (WSMsgType.TEXT, b'{"op":"ping","id":"\xff"}', 1007),
        (WSMsgType.TEXT, b'"' + b"a" * 70_000 + b'"', 1009),
        (WSMsgType.BINARY, b"{}", 1003),
        (WSMsgType.CONTINUATION, b"{}", 1002),
    ],
)
async def test_wrong_frames_close_with_their_code(rig: Rig, kind: WSMsgType, payload: bytes, code: int) -> None:
    async with rig.ws() as c:
        c.transport.send(kind, payload)
        assert (await closed(c))[0] == code


async def test_fragments_are_joined_and_their_sum_is_bounded(rig: Rig) -> None:
    async with rig.ws() as c:
        c.transport.send(WSMsgType.TEXT, b'{"op":"pi', fin=False)
        c.transport.send(WSMsgType.CONTINUATION, b'ng","id":1}')
        assert (await c.got("pong"))[0]["id"] == 1
        c.transport.send(WSMsgType.TEXT, b"a" * 40_000, fin=False)
        c.transport.send(WSMsgType.CONTINUATION, b"a" * 40_000, fin=False)
        assert (await closed(c))[0] == 1009


async def test_pings_are_answered_both_ways_and_silence_is_4010(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(heartbeat_s=0.05, pong_s=0.2)) as rig, rig.ws() as c:
        await c.until(lambda c: c.pings >= 8)
        assert c.closed is None
        c.answer_pings = False
        assert (await closed(c))[0] == 4010


async def test_a_stop_says_1001_to_everyone(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        async with rig.ws() as a, rig.ws() as b:
            a.subscribe(TRADES)
            await a.got("snapshot")
            await b.got("welcome")
            await rig.gateway.__aexit__(None, None, None)
            assert await closed(a) == (1001, "server shutdown")
            assert await closed(b) == (1001, "server shutdown")
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", int(rig.gateway.url.rpartition(":")[2]))


class Stalled:
    """A client that subscribes and then does not read."""

    def __init__(self, rig: Rig) -> None:
        self._host, _, port = rig.gateway.url.removeprefix("http://").rpartition(":")
        self._port = int(port)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)

    async def start(self, *channels: str, protocol: str = "tapewick.v1.json") -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, (self._host, self._port))
        await loop.sock_sendall(
            self.socket,
            b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: %b\r\n\r\n" % protocol.encode(),
        )
        assert (await loop.sock_recv(self.socket, 12)).endswith(b"101")
        wanted = ",".join(f'{{"ch":"{name}","snapshot":0}}' for name in channels)
        text = f'{{"op":"subscribe","channels":[{wanted}]}}'.encode()
        assert len(text) < 65_536
        size = bytes([0x80 | 126]) + len(text).to_bytes(2, "big") if len(text) > 125 else bytes([0x80 | len(text)])
        await loop.sock_sendall(self.socket, b"\x81" + size + b"\0\0\0\0" + text)
        told = b'"subscribed"' if protocol.endswith("json") else b"\x08\x02\x92\x01"
        while told not in self._waiting():  # noqa: ASYNC110 (unread; what is told next is live to it)
            await asyncio.sleep(0.001)

    def _waiting(self) -> bytes:
        try:
            return self.socket.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return b""

    async def read(self, until: bytes | None = None) -> bytes:
        """Everything the server sends until it ends, or until ``until`` was seen."""
        loop = asyncio.get_running_loop()
        data = bytearray()
        async with asyncio.timeout(30):
            while part := await loop.sock_recv(self.socket, 1 << 16):
                data += part
                if until is not None and until in data[-len(part) - len(until) :]:
                    break
        return bytes(data)


async def test_a_close_without_a_code_is_answered_with_a_legal_one(tmp_path: Path) -> None:
    """``socket.close()`` in a browser sends none; code 0 on the wire would make it report an error."""
    async with running(tmp_path) as rig:
        stalled = Stalled(rig)
        await stalled.start(TRADES)
        await asyncio.get_running_loop().sock_sendall(stalled.socket, b"\x88\x80\0\0\0\0")
        assert (await stalled.read()).endswith(b"\x88\x02\x03\xe8")
        stalled.socket.close()


async def test_a_stalled_reader_is_bounded_and_closed_while_a_fast_one_gets_all(tmp_path: Path) -> None:
    limits = Limits(queue_bytes=200_000, slow_s=0.3)
    async with running(tmp_path, limits=limits) as rig, rig.ws() as fast:
        fast.subscribe({"ch": TRADES, "snapshot": 0})
        await fast.got("subscribed")
        stalled = Stalled(rig)
        await stalled.start(TRADES)
        first, worst = 1, 0
        while len(rig.gateway.connections) == 2:
            await rig.tell(first, 500)
            first += 500
            worst = max([worst, *(connection.queued for connection in rig.gateway.connections)])
        last = await stalled.read()
        stalled.socket.close()
        assert b'"code":"slow_consumer"' in last
        assert last.endswith(b"\x0f\xa8slow_consumer"), "4008"
        told = json.loads(last[last.rindex(b'{"type":"error"') : last.rindex(b"}}") + 2])
        seqs = [int(part.split(b",", 1)[0]) for part in last.split(b'"seq":')[1:]]
        assert seqs == list(range(1, len(seqs) + 1)), "nothing was dropped from what it did get"
        assert told["pos"][TRADES].endswith(f":{len(seqs)}"), "where to resume"
        assert 0 < worst <= limits.queue_bytes
        await fast.until(lambda c: c.rows(TRADES, "event")[-1]["seq"] == first - 1)
        assert [r["seq"] for r in fast.rows(TRADES, "event")] == list(range(1, first))
        assert fast.closed is None


async def test_a_reader_that_recovers_in_time_misses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(queue_bytes=100_000, slow_s=30)) as rig:
        stalled = Stalled(rig)
        await stalled.start(TRADES)
        total = 0
        while not any(connection.lagging for connection in rig.gateway.connections):
            await rig.tell(total + 1, 500)
            total += 500
        await rig.tell(total + 1, 5000)
        total += 5000
        data = await stalled.read(until=b'"seq":%d,' % total)
        stalled.socket.close()
        seqs = [int(part.split(b",", 1)[0]) for part in data.split(b'"seq":')[1:]]
        assert seqs == list(range(1, total + 1))


async def test_open_candles_of_a_stalled_reader_are_conflated_to_the_newest(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(flush_s=0, slow_s=30)) as rig:
        stalled = Stalled(rig)
        await stalled.start(CANDLES)
        count = 0
        while not any(sum(c.conflated.values()) > 20 for c in rig.gateway.connections):
            for _ in range(50):
                count += 1
                await rig.bus.publish("trades", batch(count, 1))
            await rig.bus.settled("trades")
        (connection,) = rig.gateway.connections
        assert connection.queued < 200_000
        data = await stalled.read(until=b'"dropped"')
        stalled.socket.close()
        assert b'"last_id":%d,' % count in data, "the newest value arrives"
        assert b'"code":"conflated"' in data
