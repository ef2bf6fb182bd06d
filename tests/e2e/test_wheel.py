"""The wheel of this checkout in an empty environment and without a network: it draws, and it is one process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import Browser
from tests.e2e.namespace import Namespace, way_in
from tests.e2e.server import Server

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
CANDLES = "/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=5"


def succeed(*words: str | Path) -> None:
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tapewick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a wheel installed, with what it depends on and nothing else, outside this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    build = ("build", "-q", "--wheel", "--offline", "--no-build-isolation", "--python", sys.executable)
    succeed(BIN / "uv", *build, "-o", folder, ROOT)
    (wheel,) = folder.glob("tapewick-*.whl")
    succeed(BIN / "uv", "venv", "-q", "--python", sys.executable, folder / "venv")
    into = ("--python", folder / "venv" / "bin" / "python")
    succeed(BIN / "uv", "pip", "install", "-q", *into, "-c", ROOT / "requirements.lock", wheel)
    return folder / "venv" / "bin" / "tapewick"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    options = way_in()
    if options is None:
        message = "this machine does not let a test make a network namespace"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with Namespace(options) as made:
        yield made


@pytest.fixture
def program(namespace: Namespace, tapewick: Path, tmp_path: Path) -> list[str]:
    """The command, inside, in an empty folder that is all it has: working, home and temporary folder."""
    alone = tmp_path / "alone"
    alone.mkdir()
    env = (f"HOME={alone}", f"TMPDIR={alone}", "PYTHONPATH=", "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "XDG_CACHE_HOME=")
    return namespace.command("env", "-C", alone, *env, tapewick)


def children(pid: int) -> list[str]:
    return [task.read_text().strip() for task in Path(f"/proc/{pid}/task").glob("*/children") if task.read_text()]


def test_the_demo_draws_without_a_network(
    program: list[str], namespace: Namespace, browser: Browser, tmp_path: Path
) -> None:
    with Server("demo", "--port", "0", "--no-open", "--data", "D", program=program) as server:
        url = server.ready()
        page = namespace.get(url).decode()
        assets = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page)
        assert {Path(name).suffix for name in assets} == {".js", ".css"}, page
        assert all(namespace.get(f"{url}/{name}") for name in assets)
        server.wait_for(lambda: json.loads(namespace.get(url + CANDLES))["candles"])
        assert children(server.process.pid) == []
        # Its one port, and the port of the venue it simulates: the same source that reads a venue reads that.
        assert {address for address, _ in namespace.listening()} == {"127.0.0.1"}
        assert len(namespace.listening()) == 2
        assert namespace.strayed() == 0
        browser.drive("browser.mjs", url, tmp_path / "shots", within=namespace.command())
        assert children(server.process.pid) == []
        assert server.stop() == 143
    assert [entry.name for entry in (tmp_path / "alone").iterdir()] == ["D"]


def test_serve_is_one_process_one_port_one_folder(program: list[str], namespace: Namespace, tmp_path: Path) -> None:
    with Server("serve", "--source", "binance:BTCUSDT", "--port", "0", program=program) as server:
        port = int(server.ready().rpartition(":")[2])
        assert "tapewick demo" in server.line("tapewick demo")
        assert children(server.process.pid) == []
        assert namespace.listening() == [("127.0.0.1", port)]
        assert namespace.strayed() > 0  # it does look for the venue, and the counter sees that
        assert json.loads(namespace.get(f"{server.url}/health/ready")) == {"status": "ready"}
        assert server.stop() == 143
    assert [entry.name for entry in (tmp_path / "alone").iterdir()] == ["tapewick-data"]
