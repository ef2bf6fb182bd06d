"""A PostgreSQL server of a benchmark's own: free port, own data folder, stopped by its process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["binaries", "running"]


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; None where no server is installed."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def _as_owner() -> list[str]:
    """PostgreSQL does not run as root: the words that run a command as user ``postgres``."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


@contextmanager
def running(bin: Path) -> Iterator[str]:
    """A fresh server with default settings (fsync on); yields its connection URL."""
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-pg-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data, user = f"{folder}/data", _as_owner()
        subprocess.run(
            [*user, f"{bin}/initdb", "-D", data, "-U", "bench", "--auth=trust", "-E", "UTF8", "--locale=C"],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = [
            "-D",
            data,
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={folder}",
        ]
        server = subprocess.Popen([*user, f"{bin}/postgres", *words], stderr=subprocess.DEVNULL, cwd=folder)
        try:
            _wait(port, server)
            yield f"postgresql://bench@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(30)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if server.poll() is not None:
                raise RuntimeError(f"postgres ended with code {server.returncode}") from None
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("postgres did not listen within a minute")
