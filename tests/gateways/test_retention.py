"""A client that resumes from before what retention has let go of is told so, on every surface; others are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.channel import Channel, parse_position
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.gateways.grpc import GrpcGateway
from tapewick.gateways.http import HttpGateway
from tapewick.hub import Hub, Request
from tapewick.market import Market
from tapewick.outbox import Limits
from tapewick.roles import EngineRole
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import DAY, SECOND
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.gateways.grpc_rig import GrpcRig
from tests.gateways.rig import BTC, T0, Rig, batch, instrument
from tests.parts.postgres import PostgresServer
from tests.test_hub import Reader, settled

TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
DAYS = 30


class Months:
    """A tape of a trade a day whose older days are gone. ``heads``: the head after each day."""

    def __init__(self, http: Rig, grpc: GrpcRig, heads: list[tuple[str, int, int]]) -> None:
        self.http, self.grpc, self.heads = http, grpc, heads

    def after(self, day: int) -> dict[str, str]:
        """Where a client stood that had seen everything up to the end of ``day``."""
        epoch, seq, pos = self.heads[day]
        return {TRADES: f"{epoch}:{seq}", CANDLES: f"{epoch}:{pos}"}


@asynccontextmanager
async def kept(dsn: str, forget: Callable[[PostgresStore], Awaitable[object]]) -> AsyncIterator[Months]:
    clock, heads = ManualClock(T0 + (DAYS + 1) * DAY), []
    async with (
        PostgresStore(dsn) as store,
        MemoryBus() as bus,
        EngineRole(bus, store, Engine(), clock, interval=0.001),
        Market(bus, store, clock) as market,
    ):
        await bus.publish("trades", instrument())
        for day in range(DAYS):
            trade = batch(day + 1, 1, clock=T0 + day * DAY + 300 * SECOND)
            trade.ts_event = np.array([T0 + day * DAY + SECOND], np.int64)
            await bus.publish("trades", trade)
            await bus.settled("trades")
            head = await store.head(BTC)
            heads.append((head.epoch, head.seq, head.pos))
        await forget(store)
        async with HttpGateway(market, port=0) as http, GrpcGateway(market, port=0) as remote:
            sides = Rig(bus, store, market, http, clock), GrpcRig(bus, store, market, remote)  # type: ignore[arg-type]
            yield Months(*sides, heads)


def days_of(rows: list[dict[str, Any]]) -> set[int]:
    return {(row["open_time"] * 10**6 - T0) // DAY for row in rows}


@pytest.mark.parametrize(("day", "whole"), [(5, False), (15, False), (25, True)])
async def test_a_resume_is_exact_or_refused(postgres: PostgresServer, day: int, whole: bool) -> None:
    async with kept(postgres.database(), lambda store: store.expire(trades=10 * DAY, minutes=10 * DAY)) as months:
        since = months.after(day)
        async with months.http.ws() as c, months.grpc.client() as g:
            c.subscribe(*({"ch": name, "since": pos} for name, pos in since.items()))
            await g.subscribe(*({"channel": name, "since": pos} for name, pos in since.items()))
            ((told,), (also,)) = await c.got("subscribed"), await g.got("SUBSCRIBED")
            assert {one["ch"]: one["recovered"] for one in told["channels"]} == {TRADES: whole, CANDLES: whole}
            assert {one.channel: one.recovered for one in also.channels} == {TRADES: whole, CANDLES: whole}
            if whole:
                await c.until(lambda c: len(c.rows(TRADES, "event")) == DAYS - 1 - day)
                await c.until(lambda c: days_of(c.rows(CANDLES, "event")) >= set(range(day + 1, DAYS)))
                return
            await c.got("snapshot", 2)
            assert {(gap["ch"], gap["reason"]) for gap in c.of("gap")} == {
                (TRADES, "history_expired"),
                (CANDLES, "history_expired"),
            }
            assert {gap["from"] for gap in c.of("gap")} == set(since.values())


async def test_changes_over_rest_and_grpc_are_all_or_refused(postgres: PostgresServer) -> None:
    async with kept(postgres.database(), lambda store: store.expire(minutes=10 * DAY)) as months:
        stub, path = rpc.MarketDataStub(months.grpc.channel()), f"/v1/candles?instrument={BTC}"  # type: ignore[no-untyped-call]
        old, new = months.after(5)[CANDLES], months.after(25)[CANDLES]
        refused = await months.http.get(f"{path}&tf=1m&since={old}", 400)
        assert refused["field"] == "since" and "older than what is kept" in refused["detail"]
        with pytest.raises(grpc.aio.AioRpcError, match="older than what is kept"):
            await stub.GetCandles(pb.GetCandlesRequest(instrument=BTC, timeframe="1m", since=old))
        changed = await months.http.get(f"{path}&tf=1m&since={new}")
        assert days_of(changed["candles"]) >= set(range(26, DAYS))
        changed = await months.http.get(f"{path}&tf=1h&since={old}")
        assert days_of(changed["candles"]) >= set(range(6, DAYS)), "hours are kept"
        assert (await months.http.get(f"{path}&tf=1m&since=0"))["candles"], "who holds none misses none"


async def test_what_is_let_go_of_between_a_resume_and_its_replay_is_told(postgres: PostgresServer) -> None:
    async with kept(postgres.database(), lambda store: asyncio.sleep(0)) as months:
        hub, since = Hub(months.http.market, Limits()), months.after(5)
        reader = Reader(hub.limits)
        wishes = [Request(Channel.parse(name), since=parse_position(pos)) for name, pos in since.items()]
        admitted = [await hub.admit(wish) for wish in wishes]
        assert all(one.recovered for one in admitted)
        await months.http.store.expire(trades=10 * DAY, minutes=10 * DAY)  # type: ignore[attr-defined]
        for one in admitted:
            await hub.follow(reader.box, one)
        await settled(reader)
        assert [(gap["ch"], gap["from"], gap["reason"]) for gap in reader.of("gap")] == [
            (name, pos, "history_expired") for name, pos in since.items()
        ]
        floor = (await months.http.market.floor(wishes[0].channel)).offset
        seqs = [row["seq"] for frame in reader.of("event") if frame["ch"] == TRADES for row in frame["data"]]
        assert seqs == list(range(floor + 1, DAYS + 1)) and floor > 6, "it goes on with what there is"
        hub.drop(reader.box)


async def test_a_beginning_that_is_gone_is_not_called_whole(postgres: PostgresServer) -> None:
    async with kept(postgres.database(), lambda store: store.expire(trades=10 * DAY, minutes=10 * DAY)) as months:
        for day, whole in ((5, False), (25, True)):
            async with months.http.ws() as c:
                start = {"ts": (T0 + day * DAY) // 10**6}
                c.subscribe({"ch": TRADES, "since": start}, {"ch": CANDLES, "since": start})
                (told,) = await c.got("subscribed")
                assert [one["recovered"] for one in told["channels"]] == [whole, whole]


async def test_a_young_tape_is_whole_whatever_the_age_that_is_kept(postgres: PostgresServer) -> None:
    async with kept(postgres.database(), lambda store: store.expire(trades=90 * DAY, minutes=90 * DAY)) as months:
        async with months.http.ws() as c:
            c.subscribe({"ch": CANDLES, "since": {"ts": 0}}, {"ch": TRADES, "since": months.after(0)[TRADES]})
            (told,) = await c.got("subscribed")
            assert [one["recovered"] for one in told["channels"]] == [True, True]
