"""What one address may have under way on the gRPC port, and what those are told who have more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tapewick.errors import TooManyRequests, Unavailable
from tapewick.gateways._address import Addresses
from tapewick.gateways._auth import Guard
from tapewick.gateways._grpc_connections import Connections
from tapewick.gateways._grpc_limits import address_of, later
from tapewick.gateways._quota import HEAVY_ROWS
from tapewick.v1 import aggregator_pb2
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.gateways.grpc_rig import GrpcRig, serving
from tests.gateways.rig import BTC


def google_status() -> Any:
    """``google.rpc.Status`` as its schema is published, made here: its package is no dependency of ours."""
    file = descriptor_pb2.FileDescriptorProto(name="status.proto", package="google.rpc", syntax="proto3")
    file.dependency.append("google/protobuf/any.proto")
    message, kinds = file.message_type.add(name="Status"), descriptor_pb2.FieldDescriptorProto
    message.field.add(name="code", number=1, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    message.field.add(name="message", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    message.field.add(
        name="details",
        number=3,
        type=kinds.TYPE_MESSAGE,
        label=kinds.LABEL_REPEATED,
        type_name=".google.protobuf.Any",
    )
    retry = file.message_type.add(name="RetryInfo")
    retry.field.add(
        name="retry_delay",
        number=1,
        type=kinds.TYPE_MESSAGE,
        label=kinds.LABEL_OPTIONAL,
        type_name=".google.protobuf.Duration",
    )
    file.dependency.append("google/protobuf/duration.proto")
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    pool.AddSerializedFile(file.SerializeToString())
    names = ("google.rpc.Status", "google.rpc.RetryInfo")
    return tuple(message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)


Status, RetryInfo = google_status()


def delay_of(told: bytes, code: grpc.StatusCode) -> int:
    """Seconds to wait, as Google's error model tells them."""
    status = Status.FromString(told)
    assert status.code == code.value[0] and status.message
    (detail,), info = status.details, RetryInfo()
    assert detail.Unpack(info)
    return int(info.retry_delay.seconds)


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110  # a count nobody announces
            await asyncio.sleep(0.01)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_costly_calls_of_one_address_are_counted(tmp_path: Path) -> None:
    async with serving(tmp_path, heavy_requests=1) as rig, rig.channel() as channel:
        await rig.tell(1, 100)
        stub = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
        slot = rig.gateway.quota.slot("127.0.0.1")
        for call in (
            stub.GetTrades(pb.GetTradesRequest(instrument=BTC, limit=HEAVY_ROWS)),
            stub.GetCandles(pb.GetCandlesRequest(instrument=BTC, timeframe="1m", limit=HEAVY_ROWS)),
        ):
            error = await refused(call)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "server.heavy_requests" in (error.details() or "")
            trailers: dict[str, Any] = dict(error.trailing_metadata())  # type: ignore[arg-type]
            assert trailers["retry-after"] == "2"
            assert delay_of(trailers["grpc-status-details-bin"], error.code()) == 2
        few = await stub.GetTrades(pb.GetTradesRequest(instrument=BTC, limit=10))
        assert len(few.trades.trade_id) == 10
        slot.end()
        for _ in range(3):  # each gives its place back, refused ones too
            await stub.GetTrades(pb.GetTradesRequest(instrument=BTC, limit=HEAVY_ROWS))
            await refused(stub.GetTrades(pb.GetTradesRequest(instrument="sim:NOPE", limit=HEAVY_ROWS)))
        assert not rig.gateway.quota.busy


async def test_an_address_has_so_many_streams(tmp_path: Path) -> None:
    async with serving(tmp_path, push_per_address=2) as rig:
        legacy = await streams_are_refused(rig)
        legacy.cancel()
        await until(lambda: not rig.gateway.push_quota.busy)
        async with rig.client() as again:
            await again.got("WELCOME")


async def streams_are_refused(rig: GrpcRig) -> Any:
    """With a native and a legacy stream open; the legacy call."""
    async with rig.client() as one, rig.channel() as channel:
        await one.got("WELCOME")
        call = channel.unary_stream(
            "/aggregator.AggregatorService/StreamCandlesticks",
            request_serializer=aggregator_pb2.StreamRequest.SerializeToString,
        )
        legacy = call(aggregator_pb2.StreamRequest())
        await legacy.initial_metadata()
        async with rig.client() as third:
            await third.until(lambda c: c.code is not None)
            assert third.code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "server.push_per_address" in third.details
            assert int(third.trailers["retry-after"]) > 0
        error = await refused(call(aggregator_pb2.StreamRequest()).read())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        stub = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
        assert await stub.ListInstruments(pb.ListInstrumentsRequest()), "calls are another matter"
        return legacy


async def test_a_key_has_so_many_streams(tmp_path: Path) -> None:
    tokens = [f"tok_{name}_0123456789" for name in ("one", "two")]
    async with serving(tmp_path, guard=Guard(tokens, push_per_key=1)) as rig, rig.channel() as channel:
        stub = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]

        def opened(token: str) -> Any:
            return stub.Subscribe(metadata=(("authorization", f"Bearer {token}"),))

        first = opened(tokens[0])
        assert (await first.read()).type == pb.Frame.WELCOME
        error = await refused(opened(tokens[0]).read())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "server.push_per_key" in (error.details() or "")
        other = opened(tokens[1])
        assert (await other.read()).type == pb.Frame.WELCOME, "another key has its own"


class Peer:
    def __init__(self, told: str) -> None:
        self._told = told

    def peer(self) -> str:
        return self._told


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("ipv4:127.0.0.1:50123", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50123", "::1"),
        ("ipv6:[2001:db8::7]:1", "2001:db8::7"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_the_address_has_no_port(told: str, address: str) -> None:
    assert address_of(Peer(told)) == address


def test_a_full_server_is_unavailable_and_not_the_callers_fault() -> None:
    end = later(Unavailable("full; try again " + "x" * 300, retry_after=7))
    assert end.code == grpc.StatusCode.UNAVAILABLE
    trailers: dict[str, Any] = dict(end.trailers)
    assert delay_of(trailers["grpc-status-details-bin"], end.code) == 7
    assert trailers["grpc-retry-pushback-ms"] == "7000"
    assert later(TooManyRequests("no", retry_after=1)).code == grpc.StatusCode.RESOURCE_EXHAUSTED


class Links:
    """Bare connections to the gRPC port."""

    def __init__(self, address: str) -> None:
        self._port = int(address.rpartition(":")[2])
        self.open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        while self.open:
            await self.close(0)

    async def add(self, count: int) -> None:
        for _ in range(count):
            self.open.append(await asyncio.open_connection("127.0.0.1", self._port))

    async def close(self, place: int) -> None:
        _, writer = self.open.pop(place)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def left(self) -> int:
        """How many the server has not closed."""
        for place in reversed(range(len(self.open))):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    with suppress(ConnectionError):
                        while await self.open[place][0].read(4096):
                            pass
                await self.close(place)
        return len(self.open)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while await self.left() != count:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("bounds", [{"connections_per_address": 3}, {"max_connections": 3}])
async def test_connections_that_say_nothing_are_bounded_too(tmp_path: Path, bounds: dict[str, Any]) -> None:
    async with serving(tmp_path, **bounds) as rig, Links(rig.gateway.address) as links:
        await links.add(3)
        first = list(links.open)
        await asyncio.sleep(1)  # two looks: now they are known
        await links.add(5)
        await links.until(3)
        assert links.open == first, "those who were there first stay"
        await links.close(0)

        async def served() -> bool:
            async with rig.channel() as made:
                stub: Any = rpc.MarketDataStub(made)  # type: ignore[no-untyped-call]
                try:
                    await stub.ListInstruments(pb.ListInstrumentsRequest(), timeout=5)
                except grpc.aio.AioRpcError:
                    return False
            return True

        async with asyncio.timeout(60):
            while not await served():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.05)
        assert await links.left() == 2


async def test_connections_of_a_trusted_proxy_are_not_one_clients(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, connections_per_address=3, trusted_proxies=["127.0.0.1"]) as rig,
        Links(rig.gateway.address) as links,
    ):
        await links.add(6)
        port = int(rig.gateway.address.rpartition(":")[2])
        assert Connections(port, 3, Addresses(["127.0.0.1"])).look() == 0 and await links.left() == 6
        assert Connections(port, 6, Addresses()).look() == 0 and Connections(port + 1, 3, Addresses()).look() == 0
        assert Connections(port, 3, Addresses()).look() == 3
        await links.until(3)
