"""Tokens on the gRPC port: every call but the one for health needs one that is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tapewick.v1 import aggregator_pb2
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.gateways.grpc_rig import GrpcRig, serving
from tests.gateways.rig import BTC

TOKEN = "tok_0123456789abcdef"
GOOD = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[GrpcRig]:
    async with serving(tmp_path / "data", tokens=(TOKEN,)) as made:
        yield made


@pytest.mark.parametrize("metadata", [None, (("authorization", "Bearer tok_wrong_wrong_wrong"),)])
async def test_without_a_good_token_every_call_is_unauthenticated(locked: GrpcRig, metadata: Any) -> None:
    async with locked.channel() as channel:
        stub: Any = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
        legacy = channel.unary_stream(
            "/aggregator.AggregatorService/StreamCandlesticks",
            aggregator_pb2.StreamRequest.SerializeToString,
            aggregator_pb2.StreamResponse.FromString,
        )
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")

        async def unary() -> None:
            await stub.ListInstruments(pb.ListInstrumentsRequest(), metadata=metadata, timeout=20)

        async def silent_stream() -> None:
            await stub.Subscribe(metadata=metadata, timeout=20).read()

        async def old() -> None:
            await legacy(aggregator_pb2.StreamRequest(), metadata=metadata, timeout=20).read()

        async def reflected() -> None:
            await reflection.ServerReflectionInfo(iter([asked]), metadata=metadata, timeout=20).read()

        for call in (unary, silent_stream, old, reflected):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call()
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED, call.__name__
            assert "tok_wrong" not in str(error.value.details())
    assert not locked.gateway.connections


async def test_with_one_calls_are_served_and_health_needs_none(locked: GrpcRig) -> None:
    await locked.tell(1, 5)
    async with locked.channel() as channel:
        stub: Any = rpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
        listed = await stub.ListInstruments(pb.ListInstrumentsRequest(), metadata=GOOD, timeout=20)
        assert [one.id for one in listed.instruments] == [BTC]
        call = stub.Subscribe(metadata=GOOD, timeout=20)
        assert (await call.read()).type == pb.Frame.WELCOME
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
