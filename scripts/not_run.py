"""Name every test group that cannot run for want of a program; with CI=true that is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tapewick.parts import PARTS, find

ROOT = Path(__file__).resolve().parent.parent
ANVIL = ROOT / "contracts" / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
FETCHED = (
    ("timescale", "timescale.py", "root and mmdebstrap"),
    ("kafka", "kafka.py", "maven and openjdk-17-jre-headless"),
)


def _refused() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """What of the kernel this machine does not let a test use, the call, and what that takes."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    mount = ("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt")
    for tests, words, needs in (
        ("tests without a network", ("unshare", *user, "--net", "true"), "be root, or allow user namespaces"),
        ("tests of roles on machines of their own", ("unshare", "--net", "true"), "be root, with CAP_SYS_ADMIN"),
        ("the test of a full disk", mount, "be root, with CAP_SYS_ADMIN"),
    ):
        if shutil.which(words[0]) is None or subprocess.run(words, capture_output=True).returncode:
            yield tests, words, needs


def main() -> int:
    """Print a line per absent part; 1 if there is one and CI is true."""
    absent = [
        f"{part.purpose} ({part.program} is not installed: apt-get install {part.package})"
        for part in PARTS
        if find(part) is None
    ]
    if find_spec("tapewick.engine._native") is None:
        absent.append("native-engine tests (it was not built: apt-get install g++ python3-dev, then make again)")
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        absent.append("fresh-machine tests (they need root and mmdebstrap: apt-get install mmdebstrap)")
    absent += [f"{tests} ({' '.join(words)} is refused: {needs})" for tests, words, needs in _refused()]
    for name, script, needs in FETCHED:
        if not (ROOT / ".cache" / name / "recipe").is_file():
            absent.append(f"{name} tests (python scripts/{script} fetches it; needs {needs})")
    if not os.access(ANVIL, os.X_OK):
        absent.append("chain tests on a real node (python scripts/contracts.py fetches it; Linux on x86-64)")
    named = [] if os.environ.get("TAPEWICK_TESTDATA") else ["recorded-data tests (TAPEWICK_TESTDATA is not set)"]
    for line in absent + named:
        print(f"not run: {line}")
    return 1 if absent and os.environ.get("CI", "").lower() in ("1", "true") else 0


if __name__ == "__main__":
    sys.exit(main())
