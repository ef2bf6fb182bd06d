"""The page in a real Chromium, against the real demo: it draws, moves, switches, and stays on loopback."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.tls import certificate
from tests.e2e.browser import Browser
from tests.e2e.server import Server


def test_the_page_draws_the_demo(browser: Browser, tmp_path: Path) -> None:
    with Server("demo", "--port", "0", "--no-open", "--data", tmp_path / "D") as server:
        browser.drive("browser.mjs", server.ready(), tmp_path / "shots")
    assert {p.name for p in (tmp_path / "shots").iterdir()} >= {"desktop-dark.png", "desktop-light.png"}


def test_the_page_moves_over_tls(browser: Browser, tmp_path: Path) -> None:
    made = certificate(tmp_path)
    own = {"TAPEWICK_SERVER__TLS_CERT": str(made.cert), "TAPEWICK_SERVER__TLS_KEY": str(made.key)}
    with Server("demo", "--port", "0", "--no-open", "--data", tmp_path / "D", **own) as server:
        url = server.ready()
        assert url.startswith("https://")
        browser.drive("tls.mjs", url, tmp_path / "shots")
    assert (tmp_path / "shots" / "tls.png").exists()


def test_the_page_pages_reconnects_and_navigates(browser: Browser, tmp_path: Path) -> None:
    browser.drive("mocked.mjs", tmp_path / "shots")
