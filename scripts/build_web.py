"""Build the page into the package, with the packages of web/package-lock.json."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from node import npm

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
WEBAPP = ROOT / "src" / "tapewick" / "gateways" / "webapp"
STAMP = WEB / "node_modules" / ".tapewick"
LOG = ROOT / "logs" / "web.log"


def main() -> int:
    """Install packages if the lock changed, then build; 0 when the page is there."""
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    lock = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    if not STAMP.exists() or STAMP.read_text() != lock:
        print("tapewick: installing web packages", flush=True)
        if not npm(WEB, LOG, "ci", "--ignore-scripts"):
            return fail("the web packages could not be installed; is the package registry reachable?")
        STAMP.write_text(lock)
    print("tapewick: building the page", flush=True)
    if not npm(WEB, LOG, "run", "build"):
        return fail("the page did not build")
    (WEBAPP / "index.html").touch()  # newer than its sources, whatever the build wrote
    return 0


def fail(text: str) -> int:
    """Print the end of the log and one line, return 1."""
    tail = LOG.read_text().splitlines()[-12:]
    print("\n".join([*tail, f"tapewick: {text} (all of it: {LOG.relative_to(ROOT)})"]), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
