"""`make run` and `make test` where nothing is installed: a bare Debian, an ordinary user, a fresh clone.

First without a compiler and without Node, then with a compiler and with Debian's Node, which is too old for the page.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.bookworm import Machine, make_root, obstacle
from tests.e2e.server import Server

ROOT = Path(__file__).parent.parent.parent
BARE = ("ca-certificates", "git", "make", "python3", "python3-venv")
EQUIPPED = (*BARE, "g++", "nodejs", "npm", "python3-dev")
SET_UP_SECONDS = 1200
# The whole suite again, twice, would double the time of a run; `make fresh` (FRESH=all) does it.
EVERYTHING = os.environ.get("FRESH") == "all"
FEW = (
    "tests/engine/test_tape.py tests/engine/test_codec.py tests/contract/test_store.py tests/gateways/test_rest.py "
    "tests/test_cli.py"
)
WITHOUT_COMPILER = "" if EVERYTHING else FEW
WITH_COMPILER = "" if EVERYTHING else f"{FEW} tests/engine/test_native.py tests/test_packaging.py"
MAKE = ("make", "--no-print-directory", "-C", "tapewick")
LOG = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(5400)

Made = Callable[[tuple[str, ...]], Machine]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Made]:
    """Makes the machine that has the given packages, and in its home a clone of this repository."""
    if why := obstacle():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    home = tmp_path / "home"

    def made(packages: tuple[str, ...]) -> Machine:
        new = Machine(make_root(ROOT / ".cache", packages), home)
        clone(home / "tapewick")
        new.own()
        return new

    yield made
    shutil.rmtree(home, ignore_errors=True)


def clone(folder: Path) -> None:
    """The repository as a newcomer gets it, and on top of it what is not committed yet."""
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    listed = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    changed = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, changed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def make_run(machine: Machine, engine: str, *stop: str) -> list[str]:
    """`make run` until it serves candles, then ``stop``, else SIGTERM to make; what was printed."""
    started = time.monotonic()
    with Server(program=machine.command(*MAKE, "run", "ARGS=--port 0 --no-open")) as server:
        server.ready(SET_UP_SECONDS)
        took(f"make run, {engine} engine", started)
        assert f"{engine} engine" in server.lines[-1], server.lines
        server.wait_for(lambda: server.get("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=1")["candles"])
        if stop:
            subprocess.run(machine.command(*stop), check=True)
            assert server.process.wait(20) == 0
        else:
            server.stop()
    assert len([line for line in server.lines if "http://" in line]) == 1, server.lines
    assert not is_listening(server.url), "make has ended, the server has not"
    return server.lines


def make_test(machine: Machine, arguments: str = "") -> str:
    """What `make test` prints; it must end well."""
    started = time.monotonic()
    command = machine.command(*MAKE, "test", f"PYTEST_ARGS={arguments}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    took(f"make test {arguments}", started)
    assert done.returncode == 0, done.stdout[-20_000:]
    return done.stdout


def output(machine: Machine, *words: str) -> str:
    return subprocess.run(machine.command(*words), capture_output=True, text=True, check=True).stdout.strip()


def took(what: str, started: float) -> None:
    """For `pytest --log-cli-level=info`."""
    LOG.info("%s: %.1f s", what, time.monotonic() - started)


def is_listening(url: str) -> bool:
    port = f"{int(url.rpartition(':')[2]):04X}"
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(words[1].endswith(f":{port}") and words[3] == "0A" for words in sockets)


def test_without_compiler_and_node(machine: Made) -> None:
    bare = machine(BARE)
    assert output(bare, "sh", "-c", "which cc c++ g++ node npm || true") == ""
    assert any("no C++ compiler" in line for line in make_run(bare, "reference"))
    again = make_run(bare, "reference", *MAKE, "stop")
    assert "http://" in again[0], again  # nothing is set up a second time
    said = make_test(bare, WITHOUT_COMPILER)
    for group in ("browser tests", "native-engine tests", "recorded-data tests", "fresh-machine tests"):
        assert f"not run: {group}" in said, said


def test_with_a_compiler_and_an_old_node(machine: Made) -> None:
    equipped = machine(EQUIPPED)
    assert any("native engine built" in line for line in make_run(equipped, "native"))
    assert output(equipped, "node", "--version").startswith("v18.")
    chosen = output(equipped, "env", "-C", "tapewick", ".venv/bin/python", "scripts/node.py")
    assert chosen.endswith("tapewick/.venv/bin"), chosen
    assert "http://" in make_run(equipped, "native")[0]
    said = make_test(equipped, WITH_COMPILER)
    assert "not run: native-engine tests" not in said
