"""The port itself: documents, page, health, headers, start and stop."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.errors import ConfigError
from tapewick.gateways import _docs
from tapewick.gateways.http import HttpGateway
from tapewick.gateways.ingest import Options
from tapewick.market import Market
from tapewick.model import Health
from tapewick.stores.duckdb import DuckDBStore
from tests.gateways.rig import BTC, Rig, instrument, running


async def test_security_headers_are_on_every_answer(rig: Rig) -> None:
    async with rig.http as client:
        for path in ("/", "/docs", "/v1/instruments", "/nope", "/metrics", "/v1/trades"):
            headers = (await client.get(path)).headers
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "script-src" not in headers["content-security-policy"], "scripts fall to default-src: no inline"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "server" not in headers


async def test_health(tmp_path: Path) -> None:
    cause: list[str | None] = ["the engine is starting"]
    async with running(tmp_path, readiness=lambda: cause[0]) as rig:
        assert await rig.get("/health/live") == {"status": "ok"}
        problem = await rig.get("/health/ready", 503)
        assert problem["detail"] == "the engine is starting" and problem["status"] == 503
        assert await rig.get("/health") == {"status": "unready", "cause": "the engine is starting", "conditions": []}
        cause[0] = None
        assert await rig.get("/health/ready") == {"status": "ready"}


async def test_health_tells_how_sources_stand(rig: Rig) -> None:
    rig.bus.offer("health", Health(source="sim", state="refused", detail="HTTP 451", ts=5_000_000))
    while not (told := await rig.get("/health"))["conditions"]:  # noqa: ASYNC110 - it comes over a bus
        await asyncio.sleep(0.01)
    assert (told["status"], told["cause"]) == ("ready", None)
    wanted = {"kind": "stream_health", "source": "sim", "instrument": None, "state": "refused", "detail": "HTTP 451"}
    assert told["conditions"] == [wanted | {"ts": 5}]


async def test_metrics_can_be_parsed(rig: Rig) -> None:
    await rig.tell(1, 10)
    async with rig.http as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"tapewick_commits", "tapewick_commit_seconds", "tapewick_ws_clients", "tapewick_http_requests"} <= names


async def test_the_docs_need_no_script_and_no_network(rig: Rig) -> None:
    async with rig.http as client:
        page = (await client.get("/docs")).text
        document = (await client.get("/schema/openapi.json")).json()
        style = await client.get("/docs/style.css")
    assert "<script" not in page and not re.search(r"(?:https?:)?//", page)
    assert style.headers["content-type"].startswith("text/css")
    for path in document["paths"]:
        assert path in page
    assert {"/v1/instruments", "/v1/trades", "/v1/candles", "/v1/ticker/{id}", "/v1/coverage/{id}"} <= set(
        document["paths"]
    )
    candles = document["paths"]["/v1/candles"]["get"]
    assert {one["name"] for one in candles["parameters"] if one.get("required")} == {"instrument", "tf"}
    assert "application/problem+json" in candles["responses"]["400"]["content"]


@pytest.mark.parametrize("tokens", [(), ("tok_0123456789abcdef",)])
async def test_the_document_says_of_everything_what_it_is_and_who_may_ask(
    tmp_path: Path, tokens: tuple[str, ...]
) -> None:
    async with running(tmp_path, tokens=tokens, ingest=Options(tmp_path)) as rig, rig.http as client:
        document = (await client.get("/schema/openapi.json")).json()
        page = (await client.get("/docs")).text
    operations = {(m, p): o for p, item in document["paths"].items() for m, o in item.items()}
    assert len(operations) > 30
    for name, operation in operations.items():
        assert operation.get("description"), name
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
    assert "``" not in page
    assert page.count("Needs a key.") == (3 if not tokens else len(operations) - 3)
    assert "Needs a key or a signature." in page
    assert document["info"]["description"]
    schemes = document["components"]["securitySchemes"]
    assert (schemes["key"]["type"], schemes["key"]["scheme"]) == ("http", "bearer")
    guarded = {name: o for name, o in operations.items() if {"key": []} in o["security"]}
    assert operations.keys() - guarded.keys() == {("get", "/health/live"), ("get", "/health/ready")}
    for name, operation in guarded.items():
        assert {"401", "403"} <= set(operation["responses"]), name
    for path in ("/v1/status", "/v1/candles", "/v1/book/{id}", "/v1/orders", "/udf/history", "/v1/export/trades"):
        read = operations["get", path]
        assert ({} in read["security"]) == (not tokens), path
        assert "application/problem+json" in read["responses"]["503"]["content"], path
    assert operations["post", "/v1/watch"]["security"] == [{"key": []}]
    assert {"signature": []} in operations["post", "/v1/ingest/trades"]["security"]
    assert "UdfError" in str(operations["get", "/udf/history"]["responses"]["401"])


async def test_every_link_of_the_docs_leads_somewhere(tmp_path: Path) -> None:
    async with running(tmp_path / "data", tokens=("tok_0123456789abcdef",)) as rig, rig.http as client:
        page = (await client.get("/docs")).text
        targets = set(re.findall(r'(?:href|src)="([^"]+)"', page))
        assert "/docs/datafeed.js" in targets
        for target in targets:
            path, _, part = target.partition("#")
            assert not path or (await client.get(path)).status_code == 200, target
            assert not part or f"id={part}>" in page or f'id="{part}"' in page, target
        feed = await client.get("/docs/datafeed.js")
    assert feed.headers["content-type"].startswith("text/javascript") and feed.content == _docs.DATAFEED


async def test_another_origin_may_load_the_datafeed_and_send_a_token(tmp_path: Path) -> None:
    friend = {"origin": "http://friend.example"}
    asking = {**friend, "access-control-request-method": "GET", "access-control-request-headers": "authorization"}
    options: dict[str, Any] = {"allowed_origins": (friend["origin"],), "tokens": ("tok_0123456789abcdef",)}
    async with running(tmp_path, **options) as rig, rig.http as client:
        feed = await client.get("/docs/datafeed.js", headers=friend)
        allowed = await client.options("/udf/config", headers=asking)
        told = await client.get("/udf/config", headers={**friend, "authorization": "Bearer tok_0123456789abcdef"})
    assert (feed.status_code, feed.headers["access-control-allow-origin"]) == (200, friend["origin"])
    assert allowed.is_success and "authorization" in allowed.headers["access-control-allow-headers"].lower()
    assert (told.status_code, told.headers["access-control-allow-origin"]) == (200, friend["origin"])


async def test_the_page_and_its_assets(tmp_path: Path) -> None:
    webapp = tmp_path / "webapp"
    (webapp / "assets").mkdir(parents=True)
    (webapp / "index.html").write_text("<!doctype html><title>chart</title>")
    (webapp / "assets" / "index-abc.js").write_text("let x = 1")
    (tmp_path / "secret").write_text("no")
    (webapp / "leak").symlink_to(tmp_path / "secret")
    async with running(tmp_path / "data", webapp=webapp) as rig, rig.http as client:
        page = await client.get("/")
        assert page.text == "<!doctype html><title>chart</title>" and page.headers["cache-control"] == "no-cache"
        again = await client.get("/", headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304 and again.text == ""
        asset = await client.get("/assets/index-abc.js")
        assert "javascript" in asset.headers["content-type"] and "immutable" in asset.headers["cache-control"]
        for path in ("/leak", "/..%2fsecret", "/assets/../../secret", "/%2e%2e/secret"):
            assert (await client.get(path)).status_code == 404


async def test_without_a_web_build_the_page_says_so(tmp_path: Path) -> None:
    async with running(tmp_path / "data", webapp=tmp_path / "none") as rig, rig.http as client:
        page = await client.get("/")
    assert page.status_code == 200 and "make web" in page.text


async def test_a_busy_port_is_explained(rig: Rig) -> None:
    port = int(rig.gateway.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"port {port} is in use: choose another "):
        async with HttpGateway(rig.market, port=port):
            raise AssertionError


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 99_999)])
async def test_an_address_that_is_not_ours_is_explained(rig: Rig, host: str, port: int) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        async with HttpGateway(rig.market, host=host, port=port):
            raise AssertionError


async def test_only_allowed_origins_get_cors(tmp_path: Path) -> None:
    async with running(tmp_path, allowed_origins=("http://friend.example",)) as rig, rig.http as client:
        friend = await client.get("/v1/instruments", headers={"origin": "http://friend.example"})
        other = await client.get("/v1/instruments", headers={"origin": "http://other.example"})
    assert friend.headers["access-control-allow-origin"] == "http://friend.example"
    assert "access-control-allow-origin" not in other.headers


async def test_a_store_that_fails_is_503_not_a_traceback(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.__aenter__()
    await store.put_instrument(instrument())
    async with MemoryBus() as bus, Market(bus, store, ManualClock()) as market, HttpGateway(market, port=0) as gateway:
        await store.__aexit__(None, None, None)
        async with httpx2.AsyncClient(base_url=gateway.url) as client:
            answer = await client.get(f"/v1/trades?instrument={BTC}")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert "Traceback" not in answer.text and answer.json()["status"] == 503
