"""A server that relays a demo: invented prices stay marked as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.server import Server


def addresses(url: str) -> dict[str, str]:
    """Where a source looks for Binance, as environment variables: at ``url``."""
    return {"BINANCE_BASE_URL": url, "BINANCE_WEBSOCKET_BASE_URL": url.replace("http", "ws", 1)}


@pytest.mark.timeout(240)
def test_simulated_prices_are_never_sold_as_a_venues_own(tmp_path: Path) -> None:
    with Server("demo", "--port", "0", "--no-open", "--data", tmp_path / "demo") as demo:
        url = demo.ready()
        demo.wait_for(lambda: demo.get("/v1/coverage/sim:BTCUSDT")["trades"])
        told = demo.get("/api/v3/exchangeInfo?symbol=BTCUSDT")["symbols"]
        assert told[0]["simulated"] is True

        as_real = ("serve", "--source", "binance:BTCUSDT", "--port", "0", "--data", tmp_path / "real")
        with Server(*as_real, **addresses(url)) as taken:
            taken.line("prices of BTCUSDT are simulated there: follow it as sim:BTCUSDT")
            assert taken.process.wait(60) == 2

        with Server(
            "serve", "--source", "sim:BTCUSDT", "--port", "0", "--data", tmp_path / "r", **addresses(url)
        ) as one:
            one.ready()
            one.wait_for(lambda: one.get("/v1/instruments")["instruments"])
            assert [row["simulated"] for row in one.get("/v1/instruments")["instruments"]] == [True]
            one.wait_for(lambda: one.get("/v1/coverage/sim:BTCUSDT")["trades"])


def test_a_demo_has_no_markets_without_its_address(tmp_path: Path) -> None:
    with Server("serve", "--source", "sim:BTCUSDT", "--port", "0", "--data", tmp_path) as one:
        one.line("run `tapewick demo`, or give the addresses of a running one")
        assert one.process.wait(60) == 2
