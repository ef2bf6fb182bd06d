"""Build the native engine beside its sources, or say in one line why the reference engine runs instead.

Goes through the same build backend as a wheel, so what developers run is what users get.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = ROOT / "build" / "native.stamp"
WHEELS = ROOT / "build" / "wheels"
LOG = ROOT / "logs" / "native.log"
ENGINE = ROOT / "src" / "tapewick" / "engine"


def main(sources: list[str]) -> int:
    """Build if sources, Python or compiler changed since the last time. Never fails."""
    state = fingerprint(sources)
    if STAMP.exists() and STAMP.read_text().splitlines()[:1] == [state]:
        return 0
    for old in ENGINE.glob("_native*.so"):
        old.unlink()
    outcome = build() or "native engine built"
    print(f"tapewick: {outcome}", flush=True)
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.write_text(f"{state}\n{outcome}\n")
    return 0


def fingerprint(sources: list[str]) -> str:
    """What the outcome of a build depends on."""
    digest = hashlib.sha256(f"{sys.version}{compiler()}{has_headers()}".encode())
    for name in sorted(sources):
        digest.update(Path(name).read_bytes())
    return digest.hexdigest()


def compiler() -> str | None:
    """The C++ compiler CMake would take."""
    return shutil.which(os.environ.get("CXX", "") or "c++") or shutil.which("g++") or shutil.which("clang++")


def has_headers() -> bool:
    """Whether Python's own headers are installed."""
    return Path(sysconfig.get_path("include"), "Python.h").exists()


def build() -> str | None:
    """Why there is no native engine now; None when there is one."""
    if not (ROOT / "CMakeLists.txt").exists():
        return "no native engine in these sources: the reference engine runs"
    if compiler() is None:
        return "no C++ compiler: the reference engine runs (slower); apt-get install g++ python3-dev, then make again"
    if not has_headers():
        return "no Python headers: the reference engine runs (slower); apt-get install python3-dev, then make again"
    print("tapewick: building the native engine", flush=True)
    shutil.rmtree(WHEELS, ignore_errors=True)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log:
        command = [sys.executable, __file__, "--wheel"]
        failed = subprocess.run(command, stdout=log, stderr=log, cwd=ROOT).returncode
    found = [] if failed else [extract(wheel) for wheel in WHEELS.glob("*.whl")]
    if not any(found):
        return f"the native engine did not compile (see {LOG.relative_to(ROOT)}): the reference engine runs (slower)"
    return None


def extract(wheel: Path) -> bool:
    """Put the compiled module of ``wheel`` beside the sources; whether there was one."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("tapewick/engine/_native") and name.endswith(".so"):
                (ENGINE / Path(name).name).write_bytes(archive.read(name))
                return True
    return False


if __name__ == "__main__":
    if sys.argv[1:] == ["--wheel"]:
        from scikit_build_core.build import build_wheel

        logging.getLogger("scikit_build_core").setLevel(logging.INFO)
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        build_wheel(str(WHEELS))
        sys.exit()
    sys.exit(main(sys.argv[1:]))
