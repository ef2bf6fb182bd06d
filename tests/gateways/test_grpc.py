"""The gRPC port: history, health, reflection, TLS, statuses, and the same rows as REST and WebSocket."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from msgspec.structs import replace

from tapewick import registry
from tapewick.errors import ConfigError, MissingExtra
from tapewick.gateways._grpc_query import gap_of
from tapewick.gateways.grpc import GrpcGateway, Tls
from tapewick.gateways.http import HttpGateway
from tapewick.model import NO_END, NO_TIME, Gap
from tapewick.settings import Grpc, Settings
from tapewick.timeframe import SECOND
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.conformance.tls import certificate
from tests.gateways.grpc_rig import GrpcRig, channel, rows_of, serving
from tests.gateways.rig import BTC, ETH, T0, Peer, peer

ROOT = Path(__file__).parent.parent.parent
TRADES = f"trade@{BTC}"
SERVICES = {"tapewick.v1.MarketData", "aggregator.AggregatorService", "grpc.health.v1.Health"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[GrpcRig]:
    async with serving(tmp_path / "data", ids=(BTC, ETH)) as made:
        yield made


@pytest.fixture
async def stub(rig: GrpcRig) -> AsyncIterator[Any]:
    async with rig.channel() as made:
        yield rpc.MarketDataStub(made)  # type: ignore[no-untyped-call]


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.details()
    code: grpc.StatusCode = caught.value.code()
    return code


def reached(channel: str, type: str, count: int, client: Peer) -> bool:
    return len(client.rows(channel, type)) >= count


def rendered(rig: GrpcRig, batch: Any) -> Any:
    """Columns that came over gRPC as the JSON rows of REST."""
    return json.loads(rig.market.encode(batch))


async def test_history_equals_rest(rig: GrpcRig, stub: Any) -> None:
    await rig.tell(1, 900)
    await rig.tell(1000, 500, clock=T0 + 160 * SECOND)
    async with HttpGateway(rig.market, port=0) as http:

        async def rest(path: str) -> Any:
            import httpx2

            async with httpx2.AsyncClient(base_url=http.url) as client:
                return (await client.get(path)).json()

        for tf in ("1s", "1m", "5m", "1M"):
            request = pb.GetCandlesRequest(instrument=BTC, timeframe=tf, include_open=True)
            answer, body = await stub.GetCandles(request), await rest(f"/v1/candles?instrument={BTC}&tf={tf}")
            frame = pb.Frame(candles=answer.candles)
            assert rendered(rig, rows_of(frame)) == body["candles"] and body["candles"]
            assert answer.position == body["position"]
        answer = await stub.GetTrades(pb.GetTradesRequest(instrument=BTC, limit=40))
        body = await rest(f"/v1/trades?instrument={BTC}&limit=40")
        assert rendered(rig, rows_of(pb.Frame(trades=answer.trades))) == body["trades"]
        assert answer.position == body["position"] and not answer.HasField("next")
        ticker, body = await stub.GetTicker(pb.GetTickerRequest(instrument=BTC)), await rest(f"/v1/ticker/{BTC}")
        assert (ticker.last, ticker.volume_24h, ticker.vwap_24h) == tuple(
            body[name] for name in ("last", "volume_24h", "vwap_24h")
        )
        assert ticker.ts == body["ts"] * 1_000_000
        coverage, body = (
            await stub.GetCoverage(pb.GetCoverageRequest(instrument=BTC)),
            await rest(f"/v1/coverage/{BTC}"),
        )
        assert [list(pair) for pair in zip(coverage.first_id, coverage.last_id, strict=True)] == body["ranges"]
        assert (coverage.complete, len(coverage.gaps)) == (body["complete"], len(body["gaps"])) == (False, 1)
        listed = await stub.ListInstruments(pb.ListInstrumentsRequest(venue="sim"))
        assert [one.id for one in listed.instruments] == [BTC]


async def test_pages_follow_each_other_without_hole_or_duplicate(rig: GrpcRig, stub: Any) -> None:
    await rig.tell(1, 5000, clock=T0 + 500 * SECOND)
    request, seqs = pb.GetTradesRequest(instrument=BTC, since="0", limit=700), []
    while True:
        answer = await stub.GetTrades(request)
        seqs += rows_of(pb.Frame(trades=answer.trades)).seq.tolist()
        if not answer.HasField("next"):
            break
        request = answer.next
    assert seqs == list(range(1, 5001))
    whole = await stub.GetCandles(pb.GetCandlesRequest(instrument=BTC, timeframe="1m"))
    for asked in ({"start": T0}, {}, {"since": "0"}):
        request, times = pb.GetCandlesRequest(instrument=BTC, timeframe="1m", limit=3, **asked), []
        for _ in range(10):
            answer = await stub.GetCandles(request)
            assert len(answer.candles.open_time) <= 9
            times += answer.candles.open_time
            if not answer.HasField("next"):
                break
            request = answer.next
        assert sorted(times) == list(whole.candles.open_time) and len(times) == 8


@pytest.mark.parametrize(("tf", "seconds"), [("1s", 1), ("1m", 60)])
@pytest.mark.parametrize("include_open", [False, True])
async def test_no_page_follows_where_the_range_ends(
    rig: GrpcRig, stub: Any, tf: str, seconds: int, include_open: bool
) -> None:
    await rig.tell(1, 5000, clock=T0 + 500 * SECOND)
    whole = [T0 + i * seconds * SECOND for i in range(5)]
    for limit in range(1, 7):
        request = pb.GetCandlesRequest(
            instrument=BTC, timeframe=tf, start=T0, end=whole[-1] + 1, limit=limit, include_open=include_open
        )
        times: list[int] = []
        while True:
            answer = await stub.GetCandles(request)
            assert answer.candles.open_time, request
            times += answer.candles.open_time
            if not answer.HasField("next"):
                break
            request = answer.next
        assert times == whole, limit


@pytest.mark.parametrize("fill", [0, 1])
async def test_open_candles_take_no_place_of_closed_ones(rig: GrpcRig, stub: Any, fill: int) -> None:
    for first in range(1, 9000, 300):  # trades run ahead of the clock
        await rig.tell(first, 300, clock=T0 + min(first // 10, 700) * SECOND)

    async def page(**more: Any) -> Any:
        request = pb.GetCandlesRequest(instrument=BTC, timeframe="1m", **{"fill": fill, **more})
        return await stub.GetCandles(request)

    every = list((await page(include_open=True)).candles.open_time)
    closed = list((await page()).candles.open_time)
    assert len(every) > len(closed) > 9 and closed == every[: len(closed)]
    for limit in (1, 3, 10, len(closed), len(closed) + 1):
        newest, first = await page(limit=limit), await page(limit=limit, start=T0)
        assert list(newest.candles.open_time) == closed[-limit:]
        assert list(first.candles.open_time) == closed[:limit]
    changed: list[int] = []
    at = "0"
    while len(changed) < len(closed):
        answer = await page(fill=0, since=at, limit=1)
        assert answer.candles.open_time, "no page is empty while there are more"
        changed, at = changed + list(answer.candles.open_time), answer.next.since
    assert sorted(changed) == closed


async def test_the_page_after_the_last_closed_candle_begins_at_the_open_one(rig: GrpcRig, stub: Any) -> None:
    await rig.tell(1, 700, clock=T0 + 70 * SECOND)
    asked = pb.GetCandlesRequest(instrument=BTC, timeframe="1m", start=T0, limit=1)
    answer = await stub.GetCandles(asked)
    assert list(answer.candles.open_time) == [T0] and answer.next.start == T0 + 60 * SECOND
    assert not (await stub.GetCandles(answer.next)).candles.open_time
    await rig.tell(701, 700, clock=T0 + 200 * SECOND)
    assert list((await stub.GetCandles(answer.next)).candles.open_time) == [T0 + 60 * SECOND]


async def test_live_rows_equal_those_of_the_websocket(rig: GrpcRig) -> None:
    await rig.tell(1, 500)
    candles = f"candle@{BTC}@1m"
    async with HttpGateway(rig.market, port=0) as http, peer(http.url.replace("http", "ws", 1) + "/v1/ws") as ws:
        async with rig.client() as c:
            ws.subscribe(TRADES, candles)
            await c.subscribe(TRADES, {"channel": candles, "include_open": True})
            await ws.got("snapshot", 2)
            await c.got("SNAPSHOT", 2)
            await rig.tell(501, 300, clock=T0 + 82 * SECOND)
            await rig.tell(901, 300, clock=T0 + 130 * SECOND)
            await rig.tell(801, 100, late=True)
            await rig.tell(1201, 5)
            await ws.until(lambda w: w.rows(TRADES, "event") and w.rows(TRADES, "event")[-1]["trade_id"] == 1205)
            await c.until(lambda c: c.seqs(TRADES)[-1:] == [1205])
            for type in ("snapshot", "event"):
                for name in (TRADES, candles):
                    ours = [row for b in c.batches(name, type.upper()) for row in rendered(rig, b)]
                    await ws.until(partial(reached, name, type, len(ours)))
                    assert ours == ws.rows(name, type) and ours
            mine = [(f.pos, f.from_pos, f.late, f.kind, f.reason) for f in c.of("EVENT")]
            told = [
                (f["pos"], f.get("from", ""), f.get("late", False), f.get("kind", ""), f.get("reason", ""))
                for f in ws.of("event")
            ]
            assert sorted(mine) == sorted(told)


async def test_wrong_requests_are_refused_by_name(rig: GrpcRig, stub: Any) -> None:
    candles, trades = pb.GetCandlesRequest, pb.GetTradesRequest
    unknown: Any = 7
    for call in (
        stub.GetCandles(candles(instrument=BTC, timeframe="7m")),
        stub.GetCandles(candles(instrument=BTC, timeframe="1m", limit=10**6)),
        stub.GetCandles(candles(instrument=BTC, timeframe="1m", limit=-1)),
        stub.GetCandles(candles(instrument=BTC, timeframe="1m", start=5, end=5)),
        stub.GetCandles(candles(instrument=BTC, timeframe="1m", start=-5)),
        stub.GetCandles(candles(instrument=BTC, timeframe="1m", fill=unknown)),
        stub.GetCandles(candles(instrument=BTC, timeframe="1m", since="0", start=1)),
        stub.GetTrades(trades(instrument=BTC, since="OTHER:1")),
        stub.GetTrades(trades(instrument=BTC, since="'; DROP TABLE trades")),
        stub.GetBook(pb.GetBookRequest(instrument=BTC, levels=-1)),
    ):
        assert await code_of(call) == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError, match="fill=7"):
        await stub.GetCandles(candles(instrument=BTC, timeframe="1m", fill=unknown))
    for call in (
        stub.GetTrades(trades(instrument="sim:NOPE")),
        stub.GetBook(pb.GetBookRequest(instrument=BTC)),
        stub.GetTicker(pb.GetTickerRequest(instrument="\x00" * 1000)),
    ):
        assert await code_of(call) == grpc.StatusCode.NOT_FOUND
    huge = pb.GetTradesRequest(instrument="x" * 100_000)
    assert await code_of(stub.GetTrades(huge)) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await code_of(stub.GetTrades(trades(instrument=BTC), timeout=0.0)) == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_health_follows_readiness(tmp_path: Path) -> None:
    trouble: list[str] = []
    kinds = health_pb2.HealthCheckResponse
    async with serving(tmp_path / "data", readiness=lambda: trouble[0] if trouble else None) as rig:
        async with rig.channel() as made:
            health = health_pb2_grpc.HealthStub(made)
            for service in ("", *(SERVICES - {"grpc.health.v1.Health"})):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == kinds.SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest(service="tapewick.v1.MarketData"))
            assert (await watch.read()).status == kinds.SERVING
            trouble.append("the store does not answer")
            assert (await asyncio.wait_for(watch.read(), 60)).status == kinds.NOT_SERVING
            trouble.clear()
            assert (await asyncio.wait_for(watch.read(), 60)).status == kinds.SERVING
            watch.cancel()


async def test_reflection_tells_services_and_schema(rig: GrpcRig) -> None:
    async with rig.channel() as made:
        reflect = reflection_pb2_grpc.ServerReflectionStub(made).ServerReflectionInfo()
        await reflect.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = (await reflect.read()).list_services_response.service
        assert {one.name for one in listed} >= SERVICES
        symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol="aggregator.AggregatorService")
        await reflect.write(symbol)
        files = (await reflect.read()).file_descriptor_response.file_descriptor_proto
        found = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in files]
        (legacy,) = (one for one in found if one.package == "aggregator")
        fields = {field.name: field.number for field in legacy.message_type[1].field}
        assert fields == dict(symbol=1, open=2, high=3, low=4, close=5, volume=6, timestamp=7)
        reflect.cancel()


async def test_tls_and_client_certificates(tmp_path: Path) -> None:
    cert, key, authority = certificate(tmp_path)
    tls = Tls(cert=str(cert), key=str(key))
    async with serving(tmp_path / "data", tls=tls) as rig:
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        async with grpc.aio.secure_channel(rig.gateway.address, credentials) as made:
            stub = rpc.MarketDataStub(made)  # type: ignore[no-untyped-call]
            assert (await stub.ListInstruments(pb.ListInstrumentsRequest())).instruments
        async with channel(rig.gateway.address) as plain:
            stub = rpc.MarketDataStub(plain)  # type: ignore[no-untyped-call]
            assert await code_of(stub.ListInstruments(pb.ListInstrumentsRequest())) == grpc.StatusCode.UNAVAILABLE
    async with serving(tmp_path / "mutual", tls=Tls(cert=str(cert), key=str(key), client_ca=str(authority))) as rig:
        for own, allowed in (((key.read_bytes(), cert.read_bytes()), True), ((None, None), False)):
            credentials = grpc.ssl_channel_credentials(authority.read_bytes(), *own)
            async with grpc.aio.secure_channel(rig.gateway.address, credentials) as made:
                stub = rpc.MarketDataStub(made)  # type: ignore[no-untyped-call]
                call = stub.ListInstruments(pb.ListInstrumentsRequest())
                if allowed:
                    await call
                else:
                    assert await code_of(call) == grpc.StatusCode.UNAVAILABLE


async def test_settings_that_cannot_work_are_explained(rig: GrpcRig, tmp_path: Path) -> None:
    port = int(rig.gateway.address.rpartition(":")[2])
    for wrong, words in (
        (GrpcGateway(rig.market, port=port), "choose another grpc.port"),
        (GrpcGateway(rig.market, port=0, tls=Tls(cert="a.pem")), "both a certificate and its key"),
        (GrpcGateway(rig.market, port=0, tls=Tls(cert="/nope", key="/nope")), "cannot read"),
    ):
        with pytest.raises(ConfigError, match=words):
            await wrong.__aenter__()


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc_reflection.v1alpha.reflection", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tapewick\[grpc\]'"):
        registry.grpc_gateway(Settings(grpc=Grpc(enabled=True)), None, lambda: None)  # type: ignore[arg-type]


def test_generated_code_is_what_the_schema_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "protoc.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_field_numbers_never_change() -> None:
    """The golden schema: names, numbers and types once published. Add lines, never change one."""
    golden = (Path(__file__).parent / "fields.txt").read_text().splitlines()
    from tapewick.v1 import aggregator_pb2, market_pb2, service_pb2

    told = [
        f"{message.full_name}.{field.name} = {field.number} {field.type} {'many' if field.is_repeated else 'one'}"
        for file in (aggregator_pb2, market_pb2, service_pb2)
        for message in _messages(file.DESCRIPTOR.message_types_by_name.values())
        for field in message.fields
    ]
    assert sorted(told) == golden


def _messages(found: Any) -> list[Any]:
    return [one for message in found for one in (message, *_messages(message.nested_types))]


def test_times_of_a_gap_that_are_not_known_are_left_out() -> None:
    ends = {"left_ts": NO_TIME, "right_ts": NO_END}
    open_ended = Gap(instrument=BTC, left_id=7, right_id=11, **ends)  # type: ignore[arg-type]
    told = gap_of(open_ended)
    assert (told.left_id, told.right_id, told.left_ts, told.right_ts) == (7, 11, 0, 0)
    told = gap_of(replace(open_ended, left_ts=T0, right_ts=T0 + SECOND))
    assert (told.left_ts, told.right_ts) == (T0, T0 + SECOND)
