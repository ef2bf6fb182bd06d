"""The legacy gRPC service against bytes made by hand from its schema."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from tapewick.model import TradeBatch
from tapewick.outbox import Limits
from tapewick.timeframe import SECOND
from tests.gateways.grpc_rig import GrpcRig, serving
from tests.gateways.rig import BTC, T0, batch, instrument

METHOD = "/aggregator.AggregatorService/StreamCandlesticks"


def by_hand(symbol: str, minute: int, *numbers: float) -> bytes:
    """symbol = 1, open high low close volume = 2..6 as doubles, timestamp = 7 with seconds = 1."""
    name = symbol.encode()
    seconds, varint = minute, bytearray()
    while seconds > 0x7F:
        varint.append(seconds & 0x7F | 0x80)
        seconds >>= 7
    stamp = b"\x08" + bytes(varint) + bytes([seconds])
    doubles = b"".join(bytes([field << 3 | 1]) + struct.pack("<d", n) for field, n in enumerate(numbers, 2))
    return b"\x0a" + bytes([len(name)]) + name + doubles + b"\x3a" + bytes([len(stamp)]) + stamp


def trades(first: int, *ticks: tuple[float, float], id: str = BTC, clock: float = 0, late: bool = False) -> TradeBatch:
    """(price, second) each, size 1."""
    made = batch(first, len(ticks), id, clock=int(T0 + clock * SECOND) if clock else 0, late=late)
    return replace(
        made,
        ts_event=np.array([T0 + round(second * 1000) * 1_000_000 for _, second in ticks], np.int64),
        ts_recv=made.ts_recv,
        price=np.array([round(price * 100) for price, _ in ticks], np.int64),
        size=np.full(len(ticks), 1000, np.int64),
    )


class Legacy:
    """A client that knows only bytes."""

    def __init__(self, call: Any) -> None:
        self.call, self.news = call, asyncio.Event()
        self.got: list[bytes] = []
        self.code: grpc.StatusCode | None = None

    async def read(self) -> None:
        try:
            while (data := await self.call.read()) is not grpc.aio.EOF:
                self.got.append(data)
                self.news.set()
        except grpc.aio.AioRpcError as error:
            self.code = error.code()
        self.news.set()

    async def until(self, count: int) -> list[bytes]:
        async with asyncio.timeout(20):
            while len(self.got) < count:
                self.news.clear()
                await self.news.wait()
        return self.got


@asynccontextmanager
async def listening(rig: GrpcRig) -> AsyncIterator[Legacy]:
    async with rig.channel() as channel:
        call = channel.unary_stream(METHOD)(b"")
        await call.initial_metadata()
        client = Legacy(call)
        reading = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            call.cancel()
            reading.cancel()
            await asyncio.wait({reading})


async def publish(rig: GrpcRig, made: TradeBatch) -> None:
    await rig.bus.publish("trades", made)
    await rig.bus.settled("trades")


async def test_closed_candles_and_corrections_reach_every_client_byte_for_byte(tmp_path: Path) -> None:
    minute = T0 // SECOND
    first = by_hand("BTCUSDT", minute, 100.0, 101.0, 99.0, 99.0, 3.0)
    second = by_hand("BTCUSDT", minute + 60, 200.0, 202.0, 200.0, 202.0, 3.0)
    async with serving(tmp_path / "data") as rig:
        async with listening(rig) as one, listening(rig) as two, listening(rig) as three:
            await publish(rig, trades(1, (100, 0), (101, 59), (200, 60)))
            await publish(rig, trades(4, (99, 59.999), late=True))
            await publish(rig, trades(5, (201, 61), (202, 119), (300, 120), clock=124))
            for client in (one, two, three):
                assert await client.until(2) == [first, second]
            await publish(rig, trades(8, (98.07, 30), clock=125, late=True))
            corrected = by_hand("BTCUSDT", minute, 100.0, 101.0, 98.07, 99.0, 4.0)
            await publish(rig, trades(9, (300.5, 130), clock=190))
            third = by_hand("BTCUSDT", minute + 120, 300.0, 300.5, 300.0, 300.5, 2.0)
            await publish(rig, trades(10, (7, 260), clock=330))  # the first ones become final: no news
            fourth = by_hand("BTCUSDT", minute + 240, 7.0, 7.0, 7.0, 7.0, 1.0)
            for client in (one, two, three):
                assert await client.until(5) == [first, second, corrected, third, fourth]
        assert (await rig.store.candles(BTC, 1))[0]["state"].max() == 2, "some are final"


async def test_open_candles_are_not_sent_and_the_next_client_misses_nothing_new(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as rig:
        await publish(rig, trades(1, (100, 0), (101, 61), clock=64))
        async with listening(rig) as late:
            await publish(rig, trades(3, (102, 62), clock=70))
            await publish(rig, trades(4, (103, 121), clock=190))
            assert (await late.until(2))[0] == by_hand("BTCUSDT", T0 // SECOND + 60, 101.0, 102.0, 101.0, 102.0, 2.0)


async def test_instruments_of_the_exchange_win_over_simulated_ones_and_new_ones_are_followed(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", ids=(BTC, "chainlink:ETH/USD")) as rig, listening(rig) as client:
        await rig.add(instrument("binance:BTCUSDT"))
        await rig.add(instrument("binance:PEPEUSDT"))
        async with asyncio.timeout(20):
            # nothing tells when it has looked for new instruments
            while rig.gateway.followed != {"BTCUSDT": "binance:BTCUSDT", "PEPEUSDT": "binance:PEPEUSDT"}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for id in (BTC, "chainlink:ETH/USD", "binance:PEPEUSDT", "binance:BTCUSDT"):
            await publish(rig, trades(1, (5, 0), (6, 61), id=id, clock=64))
        minute = T0 // SECOND
        wanted = [by_hand(symbol, minute, 5.0, 5.0, 5.0, 5.0, 1.0) for symbol in ("PEPEUSDT", "BTCUSDT")]
        assert sorted(await client.until(2)) == sorted(wanted)


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", limits=Limits(queue_bytes=1000)) as rig:
        async with rig.channel(**{"http2.lookahead_bytes": 4096, "http2.bdp_probe": 0}) as channel:
            call = channel.unary_stream(METHOD)(b"")
            await call.initial_metadata()
            first = 1
            while rig.gateway.calls and first < 10_000:
                ticks = [(float(n), 60.0 * n) for n in range(first, first + 500)]
                await publish(rig, trades(first, *ticks, clock=60 * (first + 500)))
                first += 500
            assert not rig.gateway.calls
            client = Legacy(call)
            await client.read()
            assert client.code == grpc.StatusCode.RESOURCE_EXHAUSTED
