"""Run benchmarks (all, or those named) in an environment of their own that also holds the peers.

The peers pin what we do not, so they stay out of the development environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".cache" / "bench"
PARTS = {"harness", "measured", "postgres"}  # imported by benchmarks, no benchmarks themselves


def main(names: list[str]) -> int:
    """The exit code: 0 when every benchmark ran."""
    known = sorted(p.stem for p in (ROOT / "bench").glob("*.py") if p.stem not in PARTS)
    if unknown := [name for name in names if name not in known]:
        sys.stderr.write(f"no benchmark {' '.join(unknown)}; there are {' '.join(known)}\n")
        return 2
    python = ENVIRONMENT / "bin" / "python"
    install(python)
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for name in names or known:
        print(f"== {name}", flush=True)
        if (code := subprocess.run([python, ROOT / "bench" / f"{name}.py"], env=env).returncode) != 0:
            return code
    return 0


def install(python: Path) -> None:
    """Make the environment, once per list of peers."""
    wanted = (ROOT / "bench" / "requirements.txt").read_text() + (ROOT / "pyproject.toml").read_text()
    stamp = ENVIRONMENT / ".ready"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    uv = str(ROOT / ".venv" / "bin" / "uv")
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
    packages: list[str | Path] = ["-r", ROOT / "bench" / "requirements.txt", "-r", ROOT / "pyproject.toml"]
    # A peer pins an older event loop than ours; it is measured without one.
    packages += ["--override", ROOT / "bench" / "overrides.txt"]
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    stamp.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
