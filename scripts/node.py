"""Print the folder of a Node that can build the page: the system's if it is new enough, else the locked wheel's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path


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


if __name__ == "__main__":
    print(folder())
