"""A server started by the tests as a child process: own folder, own port, ended by its process id."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tapewick.parts import PARTS, find
from tests.e2e.browser import part

__all__ = ["Child", "installed"]

PATIENCE = 150.0  # seconds a start or an end may take on a loaded machine


def installed(name: str, title: str) -> str:
    """Path of the part's binary; without it the test is skipped, or fails where CI is set."""
    [known] = [one for one in PARTS if one.name == name]
    return part(title, find(known), f"apt-get install {known.package}")


def free_ports(count: int) -> list[int]:
    """Ports nobody uses at the moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Child:
    """One server. ``start`` again after ``kill`` runs it on the same data."""

    title = "server"

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tapewick-part-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.title} is not running"
        return self._process.pid

    def run(self, words: Sequence[str]) -> None:
        with open(self.home / "log", "ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.home)

    def until(self, holds: Callable[[], bool]) -> bool:
        """Wait for ``holds()``; False when the process ended first. Fails after patience, showing the log."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if self._process is None or self._process.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"{self.title} does not start:\n{self.log()}"
            time.sleep(0.02)
        return True

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")[-4000:]

    def start(self) -> None:
        raise NotImplementedError

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as when the machine dies."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(PATIENCE)
        self._process = None

    def running(self) -> Iterator[Child]:
        """For fixtures: started, and removed in the end."""
        try:
            self.start()
            yield self
        finally:
            self.end()
            shutil.rmtree(self.home, ignore_errors=True)
