"""A read side with the gRPC port, and clients made of the generated stubs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import grpc

from tapewick import wire
from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.gateways.grpc import GrpcGateway
from tapewick.market import Market
from tapewick.model import BookUpdate, CandleBatch, Instrument, Quote, TradeBatch
from tapewick.outbox import Limits
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.gateways.rig import BTC, T0, batch, instrument

Rows = TradeBatch | CandleBatch | BookUpdate | Quote
ENVELOPES = {"trades": 1, "candles": 2, "book": 7, "quote": 8}


class GrpcRig:
    """The running parts."""

    def __init__(self, bus: MemoryBus, store: DuckDBStore, market: Market, gateway: GrpcGateway) -> None:
        self.bus, self.store, self.market, self.gateway = bus, store, market, gateway

    async def tell(self, first: int, count: int, id: str = BTC, **more: Any) -> None:
        """Publish trades and wait until they are committed and announced."""
        await self.bus.publish("trades", batch(first, count, id, **more))
        await self.bus.settled("trades")

    async def add(self, made: Instrument) -> None:
        await self.bus.publish("trades", made)
        await self.bus.settled("trades")

    def channel(self, **options: Any) -> grpc.aio.Channel:
        return channel(self.gateway.address, **options)

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        async with self.channel(**options) as made, subscribed(made) as client:
            yield client


def channel(address: str, **options: Any) -> grpc.aio.Channel:
    """Without the pool of connections that channels to the same address would share."""
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.aio.insecure_channel(address, options=[*own, *((f"grpc.{k}", v) for k, v in options.items())])


@asynccontextmanager
async def serving(
    folder: Path, *, ids: tuple[str, ...] = (BTC,), limits: Limits | None = None, **options: Any
) -> AsyncIterator[GrpcRig]:
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
        async with GrpcGateway(market, port=0, limits=limits, **options) as gateway:
            yield GrpcRig(bus, store, market, gateway)


def rows_of(frame: pb.Frame) -> Any:
    """The rows of a frame as our own columns, read from its bytes; None if it has none."""
    kind = frame.WhichOneof("data")
    if kind is None:
        return None
    body = getattr(frame, kind).SerializeToString()
    size, out = len(body), bytearray([ENVELOPES[kind] << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return wire.decode(bytes(out) + bytes([size]) + body)


class Client:
    """A Subscribe call that keeps every frame it got; ``code`` once it has ended."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.frames: list[pb.Frame] = []
        self.news = asyncio.Event()
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailers: dict[str, Any] = {}
        self.reading: asyncio.Task[None] | None = None

    def read(self) -> None:
        """Begin to read."""
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while (frame := await self.call.read()) is not grpc.aio.EOF:
                self.frames.append(frame)
                self.news.set()
        except grpc.aio.AioRpcError as error:
            self.details = error.details() or ""
            self.trailers = dict(error.trailing_metadata())
            self.code = error.code()
        else:
            self.code = await self.call.code()
        self.news.set()

    async def subscribe(self, *channels: str | dict[str, Any], id: str = "1") -> None:
        wanted = [{"channel": one} if isinstance(one, str) else one for one in channels]
        subscriptions = [pb.Subscription(**one) for one in wanted]
        await self.call.write(pb.SubscribeRequest(id=id, subscribe=pb.Subscribe(channels=subscriptions)))

    async def until(self, done: Callable[[Self], Any], seconds: float = 20) -> Any:
        """Wait for ``done(self)`` to be true; its value."""
        async with asyncio.timeout(seconds):
            while not (value := done(self)):
                self.news.clear()
                await self.news.wait()
        return value

    def of(self, type: str, channel: str | None = None) -> list[pb.Frame]:
        number = pb.Frame.Type.Value(type)
        return [f for f in self.frames if f.type == number and channel in (None, f.channel)]

    async def got(self, type: str, count: int = 1, channel: str | None = None) -> list[pb.Frame]:
        """Wait for ``count`` frames of a type; all of them so far."""
        found: list[pb.Frame] = await self.until(
            lambda c: found if len(found := c.of(type, channel)) >= count else None
        )
        return found

    def batches(self, channel: str, *types: str) -> list[Any]:
        """The rows of all frames of a channel, batch by batch."""
        numbers = [pb.Frame.Type.Value(type) for type in types or ("SNAPSHOT", "EVENT")]
        chosen = [f for f in self.frames if f.channel == channel and f.type in numbers]
        return [rows for f in chosen if (rows := rows_of(f)) is not None]

    def seqs(self, channel: str, *types: str) -> list[int]:
        return [seq for rows in self.batches(channel, *types) for seq in rows.seq.tolist()]


@asynccontextmanager
async def subscribed(channel: grpc.aio.Channel, *, read: bool = True) -> AsyncIterator[Client]:
    client = Client(rpc.MarketDataStub(channel).Subscribe())  # type: ignore[no-untyped-call]
    if read:
        client.read()
    try:
        yield client
    finally:
        client.call.cancel()
        if client.reading is not None:
            client.reading.cancel()
            await asyncio.wait({client.reading})
