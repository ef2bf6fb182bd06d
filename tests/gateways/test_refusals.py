"""Positions that cannot be resumed from, on every transport: refused with the reason, then a snapshot, then live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import grpc
import pytest

from tapewick.gateways._sse_token import Vector
from tapewick.gateways.grpc import GrpcGateway
from tapewick.stores.duckdb import FILE
from tests.gateways.grpc_rig import channel, subscribed
from tests.gateways.held import Follower, Held, event_source, grpc_stream, web_socket
from tests.gateways.rig import BTC, Rig, running

TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
TRANSPORTS = ("web socket", "event source", "grpc")
COUNT = 1500


class Everything(Held):
    """Takes every frame as it comes, refusals too."""

    def __init__(self, positions: dict[str, str]) -> None:
        super().__init__(positions, positions)
        vector = Vector(list(positions))
        for name, position in positions.items():
            vector.move(name, position.encode())
        self.token = vector.token().decode()
        self.frames: list[dict[str, Any]] = []

    def take(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)

    def of(self, type: str, name: str | None = None) -> list[dict[str, Any]]:
        return [f for f in self.frames if f["type"] == type and name in (None, f.get("ch"))]

    def seqs(self) -> list[int]:
        return [row["seq"] for f in self.frames if f.get("ch") == TRADES for row in f.get("data", ())]


class Served:
    """A read side with all transports."""

    def __init__(self, rig: Rig, address: str) -> None:
        self.rig, self.address = rig, address

    @asynccontextmanager
    async def following(self, transport: str, held: Held) -> AsyncIterator[Follower]:
        if transport == "grpc":
            async with grpc_stream(self.address, held) as follower:
                yield follower
        else:
            open = web_socket if transport == "web socket" else event_source
            async with open(self.rig.gateway.url, held) as follower:
                yield follower

    async def ask(self, transport: str, positions: dict[str, str], first: int) -> Everything:
        """Resume at ``positions``; what was told until the trade with id ``first``, published meanwhile, has come."""
        held = Everything(positions)
        async with self.following(transport, held) as follower:
            await follower.until(lambda _: held.of("subscribed"))
            await self.rig.tell(first, 1)
            newest = (await self.rig.store.head(BTC)).seq
            refused = [one["ch"] for one in held.of("subscribed")[0]["channels"] if not one["recovered"]]
            await follower.until(lambda _: newest in held.seqs() and all(held.of("snapshot", n) for n in refused))
        return held


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    async with running(folder) as rig, GrpcGateway(rig.market, port=0) as gateway:
        yield Served(rig, gateway.address)


def check_refused(held: Everything, name: str, reason: str, asked: str, here: str) -> None:
    """The channel was told that it is not recovered, what it may have missed and why, and begins with a snapshot."""
    (one,) = [row for row in held.of("subscribed")[0]["channels"] if row["ch"] == name]
    assert one["recovered"] is False and one["pos"] == here
    (gap,) = held.of("gap", name)
    assert (gap["reason"], gap["from"], gap["to"]) == (reason, asked, here)
    (snapshot,) = held.of("snapshot", name)
    assert snapshot["data"] and held.frames.index(gap) < held.frames.index(snapshot)
    assert not any(f["type"] == "event" for f in held.frames[: held.frames.index(snapshot)] if f.get("ch") == name)


async def positions(rig: Rig) -> tuple[str, str]:
    """Where the trades and the candles stand."""
    head = await rig.store.head(BTC)
    return f"{head.epoch}:{head.seq}", f"{head.epoch}:{head.pos}"


async def test_a_token_of_a_tape_that_was_lost_or_of_the_future_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path / "lost") as before:
        await before.rig.tell(1, 200)
        lost, lost_pos = await positions(before.rig)
    async with served(tmp_path / "new") as now:
        await now.rig.tell(1, COUNT)
        first = COUNT + 1
        for transport in TRANSPORTS:
            for reason in ("epoch", "future"):
                here, here_pos = await positions(now.rig)
                epoch = here.partition(":")[0]
                asked = {TRADES: f"{epoch}:{first + 70}", CANDLES: f"{epoch}:999999"}
                if reason == "epoch":
                    asked = {TRADES: lost, CANDLES: lost_pos}
                held = await now.ask(transport, asked, first)
                check_refused(held, TRADES, reason, asked[TRADES], here)
                check_refused(held, CANDLES, reason, asked[CANDLES], here_pos)
                seqs = held.seqs()
                assert seqs == list(range(seqs[0], first + 1)), (transport, "snapshot, then live without a seam")
                first += 1


@pytest.mark.parametrize("kept", [COUNT - 700, 0])
async def test_history_that_was_deleted_is_not_resumed_from(tmp_path: Path, kept: int) -> None:
    """As a retention would: the oldest trades are gone, or all of them; the tape and its candles are the same."""
    async with served(tmp_path) as before:
        await before.rig.tell(1, COUNT)
        here, here_pos = await positions(before.rig)
    epoch, gone = here.partition(":")[0], COUNT - kept
    with duckdb.connect(str(tmp_path / FILE)) as connection:
        connection.execute(f"DELETE FROM trades WHERE seq <= {gone}")
    async with served(tmp_path) as now:
        first = COUNT + 1
        assert (await positions(now.rig))[0] == here, "the same tape"
        for transport in TRANSPORTS:
            for offset in (0, gone // 2, gone - 1):
                here, _ = await positions(now.rig)
                asked = {TRADES: f"{epoch}:{offset}", CANDLES: here_pos}
                held = await now.ask(transport, asked, first)
                told = {one["ch"]: one["recovered"] for one in held.of("subscribed")[0]["channels"]}
                assert told == {TRADES: False, CANDLES: True}, "candles are not gone"
                if kept or first > COUNT + 1:
                    check_refused(held, TRADES, "history_expired", asked[TRADES], here)
                assert held.of("gap", TRADES)[0]["reason"] == "history_expired" and not held.of("gap", CANDLES)
                seqs = held.seqs()
                assert seqs == list(range(seqs[0], first + 1)) and seqs[0] > gone
                first += 1
            held = await now.ask(transport, {TRADES: f"{epoch}:{gone}"}, first)
            assert held.of("subscribed")[0]["channels"][0]["recovered"] and not held.of("gap")
            assert held.seqs() == list(range(gone + 1, first + 1)), "what is there is resumed exactly"
            first += 1


async def test_a_strict_stream_ends_instead(tmp_path: Path) -> None:
    async with served(tmp_path) as now:
        await now.rig.tell(1, 50)
        epoch = (await now.rig.store.head(BTC)).epoch
        for since, reason in (("WRONG:5", "epoch"), (f"{epoch}:51", "future")):
            async with channel(now.address) as made, subscribed(made) as c:
                await c.subscribe({"channel": TRADES, "since": since, "strict": True})
                assert await c.until(lambda c: c.code) == grpc.StatusCode.OUT_OF_RANGE
                assert reason in c.details and f"{epoch}:50" in c.details and not c.of("SNAPSHOT")


@pytest.mark.parametrize("token", ["x:y", "5:", ":5", "TOOLONGEPOCH:5", "a:-1", "a:1.5", "\u0661", "1" * 30, "'; --"])
async def test_what_is_no_position_is_a_bad_request_everywhere(rig: Rig, token: str) -> None:
    async with rig.ws() as c:
        c.subscribe({"ch": TRADES, "since": token})
        (told,) = await c.got("subscribed")
        assert told["channels"] == [] and told["errors"][0]["code"] == 4400 and "since" in told["errors"][0]["msg"]
    async with rig.http as client:
        answer = await client.get("/v1/sse", params={"channels": TRADES, "since": token})
        assert answer.status_code == 400 and "since" in answer.text
    async with GrpcGateway(rig.market, port=0) as gateway, channel(gateway.address) as made, subscribed(made) as g:
        await g.subscribe({"channel": TRADES, "since": token})
        (answered,) = await g.got("SUBSCRIBED")
        assert answered.channels[0].code == 4400 and "since" in answered.channels[0].message
