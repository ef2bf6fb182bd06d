"""What is shipped: lock files without addresses, and a wheel that builds and runs without a compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.fault.recording import write_recording
from tests.parts.absent import absent

ROOT = Path(__file__).parent.parent
SHIPPED = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "NOTICE", "src", ".gitignore")
BUILD = "import sys; from scikit_build_core import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"
PAGE = "<!doctype html><title>tapewick</title>"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with an invented page where the built one goes, and no compiled module."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "webapp"))
        else:
            shutil.copy(source, folder / name)
    page = folder / "src" / "tapewick" / "gateways" / "webapp"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text(PAGE)
    (page / "assets" / "app.js").write_text("export {};\n")
    return folder


def build(what: str, checkout: Path, out: Path, **env: str) -> Path:
    """The path of the artefact; the backend runs as an installer would run it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(out)],
        capture_output=True,
        text=True,
        cwd=checkout,
        env={**os.environ, "PATH": path, **env},
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def unpacked(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel a machine without a compiler builds, unpacked."""
    wheel = build("build_wheel", checkout, tmp_path_factory.mktemp("wheel"), CC="/bin/false", CXX="/bin/false")
    assert wheel.name.endswith("-py3-none-any.whl"), wheel.name
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def shipped_environment(unpacked: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TAPEWICK_")}
    return env | {"PYTHONPATH": str(unpacked)}


def test_lock_files_name_no_registry() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "check_locks.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_locked_package_has_hashes() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = [i for i, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    assert len(pinned) > 50
    for i in pinned:
        assert "==" in lines[i] and lines[i].endswith("\\"), lines[i]
        assert lines[i + 1].strip().startswith("--hash=sha256:"), lines[i]


def test_without_a_compiler_the_wheel_is_pure_and_whole(unpacked: Path) -> None:
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    own = {name for name in names if name.startswith("tapewick/")}
    assert not [name for name in own if name.endswith((".so", ".cpp", ".hpp", ".h"))]
    for source in (ROOT / "src" / "tapewick").rglob("*"):
        name = str(source.relative_to(ROOT / "src"))
        if source.suffix in (".py", ".sql", ".typed") and "webapp" not in name:
            assert name in own
    assert "tapewick/gateways/webapp/index.html" in own
    assert "tapewick/gateways/webapp/assets/app.js" in own
    assert [name for name in names if name.endswith("licenses/NOTICE")]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_pure_wheel_runs_on_the_reference_engine(unpacked: Path, tmp_path: Path) -> None:
    def tapewick(*args: str) -> str:
        command = [sys.executable, "-m", "tapewick", *args]
        env = shipped_environment(unpacked)
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    recording = write_recording(tmp_path / "r.log", 500)
    tapewick("replay", str(recording), "--venue", "binance", "--data", "d")
    rows = [json.loads(line) for line in tapewick("candles", "binance:BTCUSDT", "1d", "--data", "d").splitlines()]
    assert sum(row["trades"] for row in rows) == 500
    findings = [json.loads(line) for line in tapewick("doctor", "--data", "d", "--port", "0", "--json").splitlines()]
    assert next(f["detail"] for f in findings if f["check"] == "engine").startswith("reference")


def test_the_source_distribution_can_build_all_of_it(checkout: Path, tmp_path: Path) -> None:
    with tarfile.open(build("build_sdist", checkout, tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert "src/tapewick/gateways/webapp/index.html" in names
    assert "CMakeLists.txt" in names
    assert [name for name in names if name.endswith(".cpp")]
    assert not [name for name in names if "node_modules" in name or name.endswith(".so")]


def test_the_demo_needs_no_network(unpacked: Path, tmp_path: Path) -> None:
    """In a network namespace that has loopback only; nothing else can be reached from there."""
    inside = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    probe = subprocess.run([*inside, "true"], capture_output=True, text=True) if shutil.which("unshare") else None
    if probe is None or probe.returncode:
        absent("this machine does not let a test make a network namespace: that needs root, or user namespaces")
    script = tmp_path / "inside.py"
    script.write_text(_INSIDE)
    done = subprocess.run(
        [*inside, sys.executable, str(script), PAGE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=shipped_environment(unpacked),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "trades arrive" in done.stdout


_INSIDE = r"""
import fcntl, json, re, socket, struct, subprocess, sys, time, urllib.request

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 1 | 64))  # SIOCSIFFLAGS: up and running
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
demo = subprocess.Popen(
    [sys.executable, "-m", "tapewick", "demo", "--port", "0", "--no-open", "--data", "d"],
    stdout=subprocess.PIPE, text=True,
)
try:
    url = re.search(r"http://[^ /]+", demo.stdout.readline())[0]
    assert sys.argv[1] in opener.open(url + "/").read().decode()
    while "sim:BTCUSDT" not in opener.open(url + "/v1/instruments").read().decode():
        time.sleep(0.2)
    seen = set()
    while len(seen) < 2:
        answer = json.load(opener.open(url + "/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=1"))
        seen.update(row["trades"] for row in answer["candles"])
        time.sleep(0.2)
    print("trades arrive")
    demo.terminate()
    assert demo.wait(30) == 143
finally:
    demo.kill()
"""
