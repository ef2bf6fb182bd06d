"""Print the folder of a Node that can build the page: the system's if it is new enough, else the locked wheel's.

Other scripts run npm with it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def folder() -> Path:
    """Where ``node`` and ``npm`` are. Vite needs 20.19, 22.12 or newer."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
        if found := re.match(r"v(\d+)\.(\d+)", said):
            major, minor = int(found[1]), int(found[2])
            if (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major > 22:
                return Path(node).parent
    return Path(sys.executable).absolute().parent


def npm(project: Path, log: Path, *words: str) -> bool:
    """Whether ``npm words`` ends with 0 in the folder ``project``; what it says is added to ``log``."""
    env = {**os.environ, "PATH": f"{folder()}{os.pathsep}{os.environ['PATH']}"}
    if CERTIFICATES.exists():  # the wheel's Node knows only its own authorities, not those of the machine
        env.setdefault("NODE_EXTRA_CA_CERTS", str(CERTIFICATES))
    with log.open("a") as said:
        return subprocess.run(["npm", *words], cwd=project, env=env, stdout=said, stderr=said).returncode == 0


if __name__ == "__main__":
    print(folder())
