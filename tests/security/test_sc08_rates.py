"""SC8: who asks too often gets 429, who meets a full server 503, both with ``Retry-After``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tapewick.errors import ConfigError
from tapewick.gateways._address import Addresses, account
from tapewick.gateways.grpc import GrpcGateway
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.gateways.grpc_rig import channel
from tests.gateways.rig import BTC, running
from tests.gateways.test_bridge import wire
from tests.security.rig import locked

PATH = "/v1/instruments"
FREE = ("/health/live", "/health/ready", "/health", "/metrics")


async def test_sc08_request_n_plus_1_in_a_window_is_429_and_health_and_metrics_are_free(tmp_path: Path) -> None:
    async with running(tmp_path, requests_per_min=10) as rig, rig.http as client:
        for _ in range(10):
            assert (await client.get(PATH)).status_code == 200
        for path in (PATH, "/", "/docs", "/nowhere", f"/v1/sse?channels=trade@{BTC}"):
            answer = await client.get(path)
            assert answer.status_code == 429, path
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.headers["content-type"] == "application/problem+json"
            assert "server.requests_per_min" in answer.json()["detail"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in FREE * 5:
            assert (await client.get(path)).status_code == 200, path
        async with wire(rig) as w:
            w.upgrade()
            status, headers = await w.head()
            assert status == 429 and headers["retry-after"]
        text = (await client.get("/metrics")).text
        assert 'tapewick_limited_total{limit="requests"}' in text
        await rig.clock.sleep(0)
        rig.clock.advance(60.0)
        assert (await client.get(PATH)).status_code == 200, "a new window"


async def test_sc08_binance_paths_count_their_own_weight(tmp_path: Path) -> None:
    async with running(tmp_path, requests_per_min=1) as rig, rig.http as client:
        for _ in range(5):
            answer = await client.get("/api/v3/ping")
            assert answer.status_code == 200 and answer.headers["x-mbx-used-weight-1m"]


async def test_sc08_a_header_does_not_make_another_address(tmp_path: Path) -> None:
    async with running(tmp_path, requests_per_min=2) as rig, rig.http as client:
        told = []
        for number in range(4):
            spoofed = {"x-forwarded-for": f"203.0.113.{number}", "x-real-ip": f"203.0.113.{number}"}
            told.append((await client.get(PATH, headers=spoofed)).status_code)
        assert told == [200, 200, 429, 429]


async def test_sc08_behind_a_trusted_proxy_each_client_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path, requests_per_min=1, trusted_proxies=("127.0.0.0/8",)) as rig, rig.http as client:
        for number in range(3):
            for expected in (200, 429):
                # What the client wrote itself stands left of what our proxy added.
                forwarded = {"x-forwarded-for": f"198.51.100.77, 203.0.113.{number}"}
                assert (await client.get(PATH, headers=forwarded)).status_code == expected
        async with wire(rig) as w:
            w.upgrade(X_Forwarded_For="203.0.113.0")
            assert (await w.head())[0] == 429
        async with wire(rig) as w:
            w.upgrade(X_Forwarded_For="203.0.113.99")
            assert (await w.head())[0] == 101


async def test_sc08_a_key_has_its_own_count_and_a_wrong_one_none(tmp_path: Path) -> None:
    async with locked(tmp_path, required=True, requests_per_min=2) as server:
        good = server.key("read")
        told = [(await server.ask("GET", PATH, "tw_00000000_wrong")).status_code for _ in range(4)]
        assert told == [401, 401, 429, 429], "guessing is limited too"
        told = [(await server.ask("GET", PATH, good)).status_code for _ in range(4)]
        assert told == [200, 200, 429, 429]


async def test_sc08_pages_of_an_allowed_origin_can_read_the_refusal(tmp_path: Path) -> None:
    friend, other = "http://friend.example", "http://other.example"
    async with running(tmp_path, requests_per_min=1, allowed_origins=(friend,)) as rig, rig.http as client:
        await client.get(PATH)
        for origin, expected in ((friend, friend), (other, None)):
            answer = await client.get(PATH, headers={"origin": origin})
            assert answer.status_code == 429 and answer.headers.get("access-control-allow-origin") == expected


async def test_sc08_a_full_server_is_503(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.http as client:
        held: list[Any] = [rig.gateway.quota.slot(f"192.0.2.{number}") for number in range(64)]
        answer = await client.get(f"/v1/export/trades?instrument={BTC}")
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        held.clear()
        assert (await client.get(f"/v1/export/trades?instrument={BTC}")).status_code == 200


async def test_sc08_the_quota_of_costly_requests_is_429(tmp_path: Path) -> None:
    async with running(tmp_path, heavy_requests=1) as rig, rig.http as client:
        with rig.gateway.quota.slot("127.0.0.1"):
            answer = await client.get(f"/v1/export/trades?instrument={BTC}")
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


async def test_sc08_grpc_calls_are_counted_the_same_way(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as rig,
        GrpcGateway(rig.market, port=0, requests_per_min=2, trusted_proxies=("127.0.0.1",)) as gateway,
        channel(gateway.address) as made,
    ):
        stub: Any = rpc.MarketDataStub(made)  # type: ignore[no-untyped-call]

        async def asked(client: str) -> Any:
            metadata = (("x-forwarded-for", client),)
            return await stub.ListInstruments(pb.ListInstrumentsRequest(), metadata=metadata, timeout=30)

        for client in ("203.0.113.1", "203.0.113.2"):
            for _ in range(2):
                await asked(client)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asked(client)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert int(dict(caught.value.trailing_metadata())["retry-after"]) >= 1
        health: Any = health_pb2_grpc.HealthStub(made)
        for _ in range(5):
            await health.Check(health_pb2.HealthCheckRequest(), timeout=30)


def test_sc08_whose_address_counts() -> None:
    proxies = Addresses(("10.0.0.0/8", "::1", "192.0.2.7"))
    for peer, forwarded, expected in (
        ("203.0.113.1", ["198.51.100.1"], "203.0.113.1"),  # no proxy of ours: what it says counts for nothing
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["evil, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["198.51.100.1", "192.0.2.7"], "198.51.100.1"),  # two lines, two proxies
        ("10.1.2.3", ["198.51.100.1, evil"], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1:4711"], "198.51.100.1"),
        ("::1", ["[2001:db8:1:2:3::4]:80"], "2001:db8:1:2::/64"),
        ("::ffff:10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:203.0.113.1", [], "203.0.113.1"),
    ):
        assert proxies.of(peer, forwarded) == expected, (peer, forwarded)
    assert account("2001:db8::1") == account("2001:db8::ffff:2") != account("2001:db8:0:1::1")
    with pytest.raises(ConfigError, match="trusted_proxies"):
        Addresses(("proxy.example",))
