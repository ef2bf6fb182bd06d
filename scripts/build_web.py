"""Build the page into the package, with the packages of web/package-lock.json."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from node import folder

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
WEBAPP = ROOT / "src" / "tapewick" / "gateways" / "webapp"
STAMP = WEB / "node_modules" / ".tapewick"


def main() -> int:
    """Install packages if the lock changed, then build; 0 when the page is there."""
    env = {**os.environ, "PATH": f"{folder()}{os.pathsep}{os.environ['PATH']}"}
    lock = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    if not STAMP.exists() or STAMP.read_text() != lock:
        print("tapewick: installing web packages", flush=True)
        if subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=WEB, env=env).returncode:
            print("tapewick: npm ci failed; is the package registry reachable?", file=sys.stderr)
            return 1
        STAMP.write_text(lock)
    print("tapewick: building the page", flush=True)
    log = ROOT / "logs" / "web.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as out:
        code = subprocess.run(["npm", "run", "build", "--silent"], cwd=WEB, env=env, stdout=out, stderr=out).returncode
    if code:
        print(f"tapewick: the page did not build:\n{log.read_text()[-2000:]}", file=sys.stderr)
        return 1
    (WEBAPP / "index.html").touch()  # newer than its sources, whatever the build wrote
    return 0


if __name__ == "__main__":
    sys.exit(main())
