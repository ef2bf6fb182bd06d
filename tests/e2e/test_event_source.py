"""A browser's own EventSource through kill -9 of the server: no trade missing, none twice."""

from __future__ import annotations

import re
import socket
import threading
from functools import partial
from pathlib import Path

import httpx2

from tests.e2e.browser import Browser
from tests.e2e.server import Server

KILLS = 2
BTC = "sim:BTCUSDT"


def clients(server: Server) -> float:
    """Push connections of the server now."""
    found = re.search(r"^tapewick_ws_clients (\S+)", httpx2.get(f"{server.url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def test_a_page_misses_nothing_when_the_server_is_killed(browser: Browser, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = ("demo", "--port", port, "--no-open", "--rate", "100", "--data", tmp_path / "D")
    channels = f"trade@{BTC},candle@{BTC}@1m"
    failed: list[BaseException] = []

    def drive() -> None:
        try:
            browser.drive("eventsource.mjs", f"http://127.0.0.1:{port}", tmp_path / "shots", channels, str(KILLS))
        except BaseException as error:  # told in the test's own thread
            failed.append(error)

    page = threading.Thread(target=drive)
    for kill in range(KILLS + 1):
        with Server(*words) as server:
            server.ready()
            server.wait_for(lambda: server.get(f"/v1/coverage/{BTC}")["trades"])
            if not kill:
                page.start()
            if kill == KILLS:
                page.join()
            else:
                server.wait_for(lambda: failed or clients(server))
                before = server.get(f"/v1/coverage/{BTC}")["trades"]
                server.wait_for(partial(lambda n: server.get(f"/v1/coverage/{BTC}")["trades"] > n + 50, before))
                server.process.kill()
    assert not failed, failed
