"""Server-sent events over real sockets: framing, ids that resume every channel, slow readers, refusals, shutdown."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.errors import BadRequest
from tapewick.gateways import sse
from tapewick.gateways._sse_token import Vector
from tapewick.outbox import Limits
from tapewick.timeframe import SECOND
from tests.gateways.event_source import EventSource, opened
from tests.gateways.rig import BTC, ETH, STEP, T0, Rig, batch, running
from tests.gateways.test_stream import reduced

TRADES, OTHERS = f"trade@{BTC}", f"trade@{ETH}"
CANDLES = f"candle@{BTC}@1m"


def seqs(source: EventSource, channel: str = TRADES, *kinds: str) -> list[int]:
    return [row["seq"] for row in source.rows(channel, *(kinds or ("event",)))]


async def test_one_channel_is_told_snapshot_and_live_with_its_position_as_id(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with opened(rig.gateway.url, TRADES, snapshot=3) as s:
        assert s.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (s.headers["cache-control"], s.headers["x-accel-buffering"]) == ("no-store", "no")
        await s.got("snapshot")
        told, snapshot = s.events
        assert s.retry == "2000" and told.kind == "subscribed"
        assert told.id == "", "until the snapshot has come there is no place to resume from"
        (channel,) = told.data["channels"]
        assert channel == {"ch": TRADES, "pos": snapshot.data["pos"], "recovered": False}
        assert snapshot.id == snapshot.data["pos"] and seqs(s, TRADES, "snapshot") == [698, 699, 700]
        await rig.tell(701, 4)
        await s.got("event")
        assert s.last_id == s.events[-1].data["pos"] and s.last_id.endswith(":704")
        assert seqs(s) == [701, 702, 703, 704]


async def test_frames_of_latest_kinds_leave_the_id_alone(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with opened(rig.gateway.url, CANDLES, snapshot=1) as s:
        await s.got("snapshot")
        before = s.last_id
        await rig.tell(701, 4)
        (update, *_) = await s.got("update")
        assert s.last_id == before and s.events[-1].id == before
        assert "pos" not in update


async def test_the_objects_are_those_of_the_web_socket(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with opened(rig.gateway.url, f"{TRADES},{CANDLES}", snapshot=2) as s, rig.ws() as c:
        c.subscribe(*({"ch": name, "snapshot": 2} for name in (TRADES, CANDLES)))
        await c.got("snapshot", 2)
        await s.got("snapshot", 2)
        await rig.tell(701, 600, clock=T0 + 131 * SECOND)
        await s.got("event", ch=CANDLES)
        await c.got("event", ch=CANDLES)
        for channel in (TRADES, CANDLES):
            for kind in ("snapshot", "event"):
                assert s.of(kind, ch=channel) == c.of(kind, ch=channel) != []


async def test_one_id_restores_every_channel(rig: Rig) -> None:
    await rig.tell(1, 650, clock=T0 + 60 * SECOND)
    await rig.tell(1, 10, ETH)
    channels = f"{TRADES},{OTHERS},{CANDLES}"
    async with opened(rig.gateway.url, channels, snapshot=0) as s:
        (told,) = await s.got("subscribed")
        last_id = s.last_id
        assert last_id, "without a snapshot live data begin right behind what was told"
        assert len(last_id) <= 1024 and last_id.replace("-", "").replace(":", "").replace(".", "").isalnum()
    await rig.tell(651, 1000, clock=T0 + 166 * SECOND)
    await rig.tell(11, 30, ETH)
    async with opened(rig.gateway.url, channels, last_id) as s:
        await s.until(lambda s: len(seqs(s)) == 1000 and len(seqs(s, OTHERS)) == 30 and s.of("event", ch=CANDLES))
        assert all(one["recovered"] for one in s.of("subscribed")[0]["channels"])
        assert not s.of("snapshot") and not s.of("gap")
        assert seqs(s) == list(range(651, 1651)) and seqs(s, OTHERS) == list(range(11, 41))
        rows, _ = await rig.store.candles(BTC, 1, since_pos=int(told["channels"][2]["pos"].partition(":")[2]))
        assert {r["open_time"] for r in s.rows(CANDLES, "event")} >= {
            int(row["open_time"]) // 10**6 for row in rows if row["state"] > 0
        }


async def test_a_channel_cut_off_before_its_snapshot_begins_with_it_again(rig: Rig) -> None:
    await rig.tell(1, 20)
    await rig.tell(1, 20, ETH)
    vector = Vector([TRADES, OTHERS])
    async with opened(rig.gateway.url, TRADES, snapshot=5) as s:
        await s.got("snapshot")
        vector.move(TRADES, s.last_id.encode())
    await rig.tell(21, 5)
    async with opened(rig.gateway.url, f"{OTHERS},{TRADES}", vector.token().decode(), snapshot=5) as s:
        await s.until(lambda s: s.of("snapshot") and seqs(s)[-1:] == [25])
        assert seqs(s) == [21, 22, 23, 24, 25] and not s.of("snapshot", ch=TRADES)
        assert seqs(s, OTHERS, "snapshot") == [16, 17, 18, 19, 20]


async def test_the_query_resumes_too_and_the_header_wins(rig: Rig) -> None:
    await rig.tell(1, 50)
    async with opened(rig.gateway.url, TRADES) as s:
        await s.got("snapshot")
        epoch = s.last_id.partition(":")[0]
    for name in ("since", "last_event_id"):
        async with opened(rig.gateway.url, TRADES, **{name: f"{epoch}:40"}) as s:  # type: ignore[arg-type]
            await s.until(lambda s: len(seqs(s)) == 10)
            assert seqs(s) == list(range(41, 51))
        async with opened(rig.gateway.url, TRADES, f"{epoch}:47", **{name: f"{epoch}:40"}) as s:  # type: ignore[arg-type]
            await s.until(lambda s: len(seqs(s)) == 3)
            assert seqs(s) == [48, 49, 50]


@pytest.mark.parametrize(("token", "reason"), [("WRONG:5", "epoch"), ("{epoch}:99999", "future")])
async def test_what_cannot_be_resumed_is_refused_and_begins_with_a_snapshot(rig: Rig, token: str, reason: str) -> None:
    await rig.tell(1, 50)
    epoch = (await rig.market.head(BTC)).epoch
    token = token.format(epoch=epoch)
    async with opened(rig.gateway.url, TRADES, token, snapshot=2) as s:
        await s.got("snapshot")
        assert [e.kind for e in s.events] == ["subscribed", "gap", "snapshot"]
        assert s.events[0].data["channels"][0]["recovered"] is False
        assert s.events[1].data == {
            "type": "gap", "ch": TRADES, "from": token, "to": f"{epoch}:50", "reason": reason,
        }  # fmt: skip
        assert s.last_id == f"{epoch}:50"
    vector = Vector([TRADES, OTHERS])
    vector.move(TRADES, token.encode())
    vector.move(OTHERS, f"{(await rig.market.head(ETH)).epoch}:0".encode())
    async with opened(rig.gateway.url, f"{TRADES},{OTHERS}", vector.token().decode()) as s:
        await s.got("snapshot", ch=TRADES)
        assert [one["recovered"] for one in s.of("subscribed")[0]["channels"]] == [False, True]
        assert [gap["reason"] for gap in s.of("gap")] == [reason]


async def test_late_trades_can_be_skipped_and_still_count_as_seen(rig: Rig) -> None:
    await rig.tell(1, 10)
    async with opened(rig.gateway.url, TRADES, snapshot=0, backfill="skip") as s:
        await s.got("subscribed")
        await rig.tell(101, 50, late=True)
        await rig.tell(201, 2)
        await s.until(lambda s: seqs(s)[-1:] == [62])
        (skip,) = s.of("skip")
        assert (skip["from"].partition(":")[2], skip["to"].partition(":")[2]) == ("11", "60")
        assert next(e.id for e in s.events if e.kind == "skip") == skip["to"]


async def test_a_comment_shows_that_the_connection_lives(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "BEAT", 0.05)
    async with opened(rig.gateway.url, TRADES) as s:
        await s.until(lambda s: len(s.comments) >= 3)
        assert all(word.split()[0] == "hb" and word.split()[1].isdigit() for word in s.comments)


async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(tmp_path: Path) -> None:
    async with running(tmp_path, ids=(BTC, ETH)) as rig:
        await rig.tell(1, 50)
        async with (
            opened(rig.gateway.url, TRADES, version="1.0", snapshot=1) as one,
            opened(rig.gateway.url, f"{TRADES},{OTHERS}", version="1.0", snapshot=1) as two,
        ):
            for s in (one, two):
                assert "transfer-encoding" not in s.headers and s.headers["connection"] == "close"
                await s.got("snapshot", ch=TRADES)
            await rig.tell(51, 1)
            for s in (one, two):
                assert (await s.got("event"))[0]["data"][0]["seq"] == 51
            await rig.gateway.__aexit__(None, None, None)
            for s in (one, two):
                await s.until(lambda s: s.ended)
                assert s.of("notice")[0]["code"] == "going_away"


async def test_the_connection_before_it_may_be_kept_and_a_request_behind_it_waits(rig: Rig) -> None:
    await rig.tell(1, 5)
    host, _, port = rig.gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await reader.readuntil(b'"ok"}')
    stream = f"GET /v1/sse?channels={TRADES}&snapshot=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(stream.encode() + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"chunked" in await reader.readuntil(b'"seq":5')
    await rig.tell(6, 1)
    assert b'"status"' not in await reader.readuntil(b'"seq":6'), "no answer in the middle of a stream"
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_connection_close_is_honoured(rig: Rig) -> None:
    async with opened(rig.gateway.url, TRADES, headers="Connection: close\r\n") as s:
        assert s.headers["connection"] == "close"
        await s.got("snapshot")


async def test_the_server_ends_its_streams_with_a_word_when_it_stops(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.tell(1, 5)
        async with opened(rig.gateway.url, TRADES) as s:
            await s.got("snapshot")
            await rig.gateway.__aexit__(None, None, None)
            await s.until(lambda s: s.ended)
            assert s.whole, "the last chunk came"
            assert s.events[-1].kind == "notice" and s.last_id.endswith(":5")


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 400, "channels"),
        ("channels=", 400, "channels"),
        ("channels=trades@X", 400, "ch"),
        (f"channels=book@{BTC}", 400, "channels"),
        (f"channels=candle@{BTC}@7m", 400, None),
        ("channels=trade@sim:NOPE", 404, "instrument"),
        (f"channels=bbo@{BTC}&snapshot=3", 400, "snapshot"),
        (f"channels=bbo@{BTC}&since=E:3", 400, "since"),
        (f"channels={TRADES}&snapshot=1001", 400, "snapshot"),
        (f"channels={TRADES}&snapshot=-1", 400, "snapshot"),
        (f"channels=book_top@{BTC}&levels=7", 400, "levels"),
        (f"channels={TRADES}&backfill=some", 400, "backfill"),
        (f"channels={TRADES}&nonsense=1", 400, "nonsense"),
        (f"channels={TRADES}&snapshot=1&snapshot=2", 400, "snapshot"),
        (f"channels={TRADES}&since=%ff", 400, "channels"),
        (f"channels={TRADES}&since=what", 400, "since"),
        (f"channels={TRADES},{OTHERS}&since=E:5", 400, "since"),
        ("channels=" + ",".join(f"candle@{i}:X@1m" for i in range(33)), 400, "channels"),
        ("channels=" + ",".join(f"bbo@{i}:X" for i in range(101)), 400, "channels"),
    ],
)
async def test_a_bad_request_is_a_problem_that_names_the_field(
    rig: Rig, query: str, status: int, field: str | None
) -> None:
    async with rig.http as client:
        answer = await client.get(f"/v1/sse?{query}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("field") == field
    assert "book_top" in answer.text or "book@" not in query


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(rig: Rig, method: str) -> None:
    async with rig.http as client:
        answer = await client.request(method, f"/v1/sse?channels={TRADES}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


async def test_pages_of_other_origins_are_refused_like_on_the_web_socket(tmp_path: Path) -> None:
    async with running(tmp_path, allowed_origins=("http://friend.example",)) as rig:
        path = f"{rig.gateway.url}/v1/sse?channels={TRADES}"
        async with httpx2.AsyncClient() as client:
            for origin, status in (("http://other.example", 403), ("null", 403), ("http://friend.example", 200)):
                async with client.stream("GET", path, headers={"origin": origin}) as answer:
                    assert answer.status_code == status, origin
                    allowed = answer.headers.get("access-control-allow-origin")
                    assert allowed == (origin if status == 200 else None)
            async with client.stream("GET", path, headers={"origin": rig.gateway.url}) as answer:
                assert answer.status_code == 200, "our own page"


class Stalled:
    """A client that asks and then reads nothing until told."""

    def __init__(self, rig: Rig, channels: str) -> None:
        host, _, port = rig.gateway.url.removeprefix("http://").partition(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, int(port)))
        self.socket.sendall(f"GET /v1/sse?channels={channels}&snapshot=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    async def subscribed(self) -> None:
        self.socket.setblocking(False)
        while b'"subscribed"' not in self._waiting():  # noqa: ASYNC110 (unread; what is told next is live to it)
            await asyncio.sleep(0.001)

    def _waiting(self) -> bytes:
        try:
            return self.socket.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return b""

    async def events(self) -> EventSource:
        """Everything the server sends until it ends."""
        reader, writer = await asyncio.open_connection(sock=self.socket)
        source = EventSource(reader, writer)
        await source.begin()
        return source


@pytest.mark.parametrize("channels", [TRADES, f"{TRADES},{OTHERS}"])
async def test_a_stalled_reader_is_bounded_ended_and_resumes_where_it_was(tmp_path: Path, channels: str) -> None:
    limits = Limits(queue_bytes=200_000, slow_s=0.3)
    async with (
        running(tmp_path, limits=limits, ids=(BTC, ETH)) as rig,
        opened(rig.gateway.url, TRADES, snapshot=0) as fast,
    ):
        await fast.got("subscribed")
        stalled = Stalled(rig, channels)
        await stalled.subscribed()
        first, worst = 1, 0
        while len(rig.gateway.connections) == 2:
            await rig.tell(first, 500)
            first += 500
            worst = max([worst, *(connection.queued for connection in rig.gateway.connections)])
        slow = await stalled.events()
        await slow.until(lambda s: s.ended)
        got = seqs(slow)
        assert got == list(range(1, len(got) + 1)), "nothing was dropped from what it did get"
        (error,) = slow.of("error")
        assert error["code"] == "slow_consumer" and error["pos"][TRADES].endswith(f":{len(got)}")
        assert slow.whole and 0 < worst <= limits.queue_bytes
        await fast.until(lambda s: seqs(s)[-1] == first - 1)
        assert seqs(fast) == list(range(1, first)) and not fast.ended
        async with opened(rig.gateway.url, channels, slow.last_id) as again:
            await again.until(lambda s: seqs(s)[-1:] == [first - 1])
            assert seqs(again) == list(range(len(got) + 1, first))
        await slow.cut()


async def test_open_candles_of_a_stalled_reader_are_conflated_to_the_newest(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(flush_s=0, slow_s=30, notice_s=0)) as rig:
        stalled = Stalled(rig, CANDLES)
        await stalled.subscribed()
        count = 0
        while not any(sum(c.conflated.values()) > 20 for c in rig.gateway.connections):
            for _ in range(50):
                count += 1
                await rig.bus.publish("trades", batch(count, 1))
            await rig.bus.settled("trades")
        (connection,) = rig.gateway.connections
        assert connection.queued < 200_000
        slow = await stalled.events()
        await slow.got("notice", code="conflated")
        assert slow.rows(CANDLES, "update")[-1]["last_id"] == count, "the newest value arrives"
        await slow.cut()


async def test_a_reader_that_takes_nothing_at_all_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of channels that only tell how things stand none is ever left behind; a dead peer must still end."""
    monkeypatch.setattr(sse, "BEAT", 0.05)
    async with running(tmp_path, limits=Limits(flush_s=0, slow_s=30, pong_s=0.2)) as rig:
        stalled = Stalled(rig, CANDLES)
        await stalled.subscribed()
        count = 0
        while rig.gateway.connections:
            count += 1
            await rig.tell(count, 1)
        stalled.socket.close()


async def test_the_seam_has_no_hole_and_no_duplicate_while_trades_arrive(rig: Rig) -> None:
    await rig.tell(1, 500)
    total = 2500

    async def publish() -> None:
        for start in range(501, total + 1, 20):
            await rig.tell(start, 20, clock=T0 + start * STEP)

    async def read(delay: float) -> list[dict[str, Any]]:
        await asyncio.sleep(delay)
        async with opened(rig.gateway.url, f"{TRADES},{CANDLES}", snapshot=50) as s:
            await s.until(lambda s: seqs(s)[-1:] == [total])
            got = seqs(s, TRADES, "snapshot", "event")
            assert got == list(range(got[0], total + 1))
            return s.rows(CANDLES, "snapshot", "event")

    publishing = asyncio.create_task(publish())
    held = [
        reduced([row for row in rows if row["state"] != "open"])
        for rows in await asyncio.gather(*map(read, (0, 0.05, 0.1)))
    ]
    await publishing
    assert held[0] == held[1] == held[2] != {}


NAME = st.integers(0, 10**6).map(lambda n: f"trade@sim:{n}")
POSITION = st.tuples(st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=1, max_size=8), st.integers(0, 2**63 - 1))


@given(st.dictionaries(NAME, st.none() | POSITION, min_size=2, max_size=32))
def test_a_token_reads_back_as_what_was_seen(held: dict[str, tuple[str, int] | None]) -> None:
    vector = Vector(list(held))
    for name, position in held.items():
        if position is not None:
            vector.move(name, "{}:{}".format(*position).encode())
    token = vector.token().decode()
    assert len(token) <= 1024
    seen = {name: "{}:{}".format(*position) for name, position in held.items() if position is not None}
    if seen:
        assert Vector(list(reversed(held))).read(token, "since") == seen, "whatever the order of the channels"
        with pytest.raises(BadRequest, match="other channels"):
            Vector([*held, "trade@more"]).read(token, "since")
    else:
        assert token == ""


@given(st.text(max_size=60))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="since"):
        Vector([TRADES, OTHERS]).read(text, "since")
