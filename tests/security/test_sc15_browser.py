"""SC15: a page of another site reads nothing, opens no socket and runs nothing of ours in a frame."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateways.rig import BTC, running
from tests.gateways.test_bridge import wire

FRIEND = "https://friend.example"
STRANGERS = (
    "https://evil.example",
    "https://friend.example.evil.example",
    "https://evilfriend.example",
    "http://friend.example",
    "https://friend.example:8443",
    "https://FRIEND.example",
    "https://friend.example/",
    "null",
    "*",
    "",
)
PAGES = ("/", "/docs", "/docs/style.css", "/nowhere", "/v1/instruments", "/v1/trades", "/metrics", "/health/ready")


async def test_sc15_cors_is_an_exact_list_without_credentials(tmp_path: Path) -> None:
    async with running(tmp_path, allowed_origins=(FRIEND,)) as rig, rig.http as client:
        for origin in (FRIEND, *STRANGERS):
            for path in ("/v1/instruments", f"/v1/trades?instrument={BTC}", "/v1/nope"):
                answer = await client.get(path, headers={"origin": origin})
                allowed = answer.headers.get("access-control-allow-origin")
                assert allowed == (FRIEND if origin == FRIEND and answer.status_code == 200 else allowed)
                assert allowed in ((None, FRIEND) if origin == FRIEND else (None,)), (origin, path)
                assert "access-control-allow-credentials" not in answer.headers
            asking = {"origin": origin, "access-control-request-method": "POST"}
            preflight = await client.options("/v1/ingest/trades", headers=asking)
            assert "POST" not in preflight.headers.get("access-control-allow-methods", "")
            told = preflight.headers.get("access-control-allow-origin")
            assert told is None or (origin, told) == (FRIEND, FRIEND)


async def test_sc15_without_a_list_no_origin_is_allowed(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.http as client:
        for origin in (FRIEND, *STRANGERS):
            answer = await client.get("/v1/instruments", headers={"origin": origin})
            assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/v1/ws", "/ws", "/ws/btcusdt@trade", "/stream?streams=btcusdt@trade"])
async def test_sc15_sockets_check_the_origin(tmp_path: Path, path: str) -> None:
    async with running(tmp_path, allowed_origins=(FRIEND,)) as rig:
        for origin in STRANGERS:
            async with wire(rig) as w:
                w.upgrade(path, Origin=origin)
                assert (await w.head())[0] == 403, origin
        async with wire(rig) as w:
            w.upgrade(path, Origin=FRIEND)
            assert (await w.head())[0] == 101


async def test_sc15_event_streams_check_the_origin(tmp_path: Path) -> None:
    async with running(tmp_path, allowed_origins=(FRIEND,)) as rig, rig.http as client:
        for origin in STRANGERS:
            answer = await client.get(f"/v1/sse?channels=trade@{BTC}", headers={"origin": origin})
            assert answer.status_code == 403, origin
        ask = {"origin": FRIEND}
        async with client.stream("GET", f"/v1/sse?channels=trade@{BTC}", headers=ask) as answer:
            assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == FRIEND


async def test_sc15_every_answer_forbids_inline_scripts_frames_and_guessing(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        async with rig.http as client:
            answers = [await client.get(path) for path in PAGES]
            answers += [await client.post("/v1/instruments"), await client.get("/v1/ws"), await client.head("/")]
            heads = [dict(answer.headers) for answer in answers]
        for bad in (b"GET / HTTP/9\r\n\r\n", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n"):
            async with wire(rig) as w:
                w.send(bad)
                heads.append((await w.head())[1])
    for head in heads:
        policy = dict(part.strip().partition(" ")[::2] for part in head["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert policy["object-src"] == policy["base-uri"] == "'none'"
        assert not re.search(r"unsafe|https?:|data:|\*", head["content-security-policy"]), (
            "no inline script, no other host"
        )
        assert head["x-content-type-options"] == "nosniff" and head["x-frame-options"] == "DENY"
        assert head["referrer-policy"] == "no-referrer" and "server" not in head


async def test_sc15_what_a_request_says_is_not_markup_in_an_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.http as client:
        evil = "<script>alert(1)</script>"
        for path in (f"/{evil}", f"/v1/ticker/{evil}", f"/v1/trades?{evil}=1", f"/v1/candles?instrument={evil}&tf=1m"):
            answer = await client.get(path)
            assert answer.status_code in (400, 404) and "html" not in answer.headers["content-type"]
