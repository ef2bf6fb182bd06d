"""Extract PostgreSQL 17 with TimescaleDB (Apache edition) into ``.cache/timescale``, for the tests that run on it.

Debian bookworm has no TimescaleDB; the next suite has one. Nothing is installed: the packages are
unpacked into a folder, from the mirror this machine installs from, and run there by chroot. Needs
root and ``mmdebstrap``. A second run with the same recipe does nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "timescale"
STAMP = "recipe"
SUITE = "trixie"
PACKAGES = "base-files,libc-bin,dash,postgresql-17,postgresql-17-timescaledb"
OWNER = 999  # of the server's files and processes; it has a name inside the folder only


def recipe() -> str:
    """What the folder was made by."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def extract() -> None:
    """Make the folder anew."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        sys.exit("timescale: needs root and the package mmdebstrap (apt-get install mmdebstrap)")
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages", "Codename: bookworm"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    mirrors = sorted(set(asked.stdout.split()))
    if not mirrors:
        sys.exit("timescale: apt knows no bookworm mirror; run apt-get update")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    unread = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={PACKAGES}", *unread]
    subprocess.run([*command, SUITE, str(FOLDER), mirrors[0]], check=True)
    for name, rest in (("passwd", ":/pgdata:/bin/sh"), ("group", "")):
        ids = [f"root:x:0{':0:root:/root:/bin/sh' if rest else ':'}"]
        ids.append(f"postgres:x:{OWNER}{f':{OWNER}:{rest}' if rest else ':'}")
        (FOLDER / "etc" / name).write_text("\n".join(ids) + "\n")
    (FOLDER / STAMP).write_text(recipe())


def main() -> int:
    stamp = FOLDER / STAMP
    if not stamp.is_file() or stamp.read_text() != recipe():
        extract()
    print(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
