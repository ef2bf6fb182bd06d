"""The newcomer's commands as processes: what they print, serve, remember and how they end."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tapewick.sim.venue import SimVenue
from tests.e2e.server import Server

BTC = "sim:BTCUSDT"


def demo(data: Path, *more: str) -> Server:
    return Server("demo", "--port", "0", "--no-open", "--data", data, *more)


def coverage(server: Server) -> dict[str, Any]:
    body: dict[str, Any] = server.wait_for(lambda: server.get(f"/v1/coverage/{BTC}"))
    return body


def test_demo_shows_a_market_with_a_past_and_says_it_is_simulated(tmp_path: Path) -> None:
    with demo(tmp_path / "D") as server:
        server.ready()
        assert "native engine" in server.lines[0] or "reference engine" in server.lines[0]
        assert "simulated" in server.lines[0] and len(server.lines) == 1
        (first,) = (i for i in server.wait_for(lambda: server.get("/v1/instruments")["instruments"]) if i["id"] == BTC)
        assert first["simulated"] is True
        server.wait_for(lambda: len(server.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=400")["candles"]) > 300)
        before = coverage(server)["trades"]
        server.wait_for(lambda: coverage(server)["trades"] > before)
        state = coverage(server)
        assert len(state["ranges"]) == 1 and state["gaps"] == []
        assert server.stop() == 143


def test_a_pause_is_filled_at_the_next_start_and_earlier_candles_are_there(tmp_path: Path) -> None:
    with demo(tmp_path / "D") as server:
        server.ready()
        last = server.wait_for(lambda: (r := coverage(server)["ranges"]) and r[-1][1])
        kept = server.get(f"/v1/candles?instrument={BTC}&tf=1h&limit=2")["candles"][0]
        assert server.stop(signal.SIGINT) == 130
    with demo(tmp_path / "D") as server:
        server.ready()
        server.wait_for(lambda: coverage(server)["ranges"][-1][1] > last + 100)
        state = server.wait_for(lambda: (c := coverage(server))["complete"] and c)
        ((first, now),) = state["ranges"]  # unbroken: what was traded while it was stopped is there
        assert now > last and state["trades"] == now - first + 1 and state["gaps"] == []
        again = server.get(f"/v1/candles?instrument={BTC}&tf=1h&limit=2&end={kept['open_time'] + 1}")["candles"][-1]
        for key in ("open", "first_id", "open_time"):
            assert again[key] == kept[key]
        assert server.stop() == 143


def test_a_busy_port_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Server("demo", "--port", str(port), "--no-open", "--data", tmp_path / "D") as server:
            assert server.process.wait(60) == 2
            server._reader.join()
            assert len(server.lines) == 1 and str(port) in server.lines[0] and "--port" in server.lines[0]


def test_a_second_server_on_the_same_folder_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with demo(tmp_path / "D") as first:
        first.ready()
        with demo(tmp_path / "D") as second:
            assert second.process.wait(60) == 1
            second._reader.join()
            assert (
                len(second.lines) == 1
                and "name another folder with --data" in second.lines[0]
                and "Traceback" not in second.lines[0]
            )
        assert first.stop() == 143


def test_an_unreachable_venue_is_named_and_tried_again(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"127.0.0.1:{nobody.getsockname()[1]}"
        with Server(
            "serve", "--port", "0", "--data", tmp_path / "D",
            TAPEWICK_BINANCE__REST_URL=f"http://{url}", TAPEWICK_BINANCE__WS_URL=f"ws://{url}",
        ) as server:  # fmt: skip
            server.ready()
            line = server.line("tapewick demo")
            assert url in line
            assert server.get("/health/ready") == {"status": "ready"}
            assert server.stop() == 143


async def test_a_blocked_venue_is_named_and_recovers_alone(tmp_path: Path) -> None:
    async with SimVenue(["BTCUSDT"]) as venue:
        venue.refuse(451)
        with Server(
            "serve", "--source", "binance:BTCUSDT", "--port", "0", "--data", tmp_path / "D",
            TAPEWICK_BINANCE__REST_URL=venue.rest_url, TAPEWICK_BINANCE__WS_URL=venue.ws_url,
        ) as server:  # fmt: skip
            await asyncio.to_thread(server.ready)
            line = await asyncio.to_thread(server.line, "451")
            assert "demo" in line
            venue.refuse(None)
            path = "/v1/trades?instrument=binance:BTCUSDT&limit=1"
            await asyncio.to_thread(server.wait_for, lambda: server.get(path)["trades"], 120)
            assert await asyncio.to_thread(server.stop) == 143


@pytest.mark.parametrize("route", ["/", "/docs", "/metrics", "/health/live", "/schema/openapi.json"])
def test_every_page_is_served_from_one_port(route: str, tmp_path: Path) -> None:
    with demo(tmp_path / "D") as server:
        server.ready()
        answer = httpx2.get(server.url + route)
        assert answer.status_code == 200
        assert "//cdn" not in answer.text and "https://unpkg" not in answer.text
