"""A tapewick process started by a test: its first line, its URL, its end."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

__all__ = ["Server"]


OURS = (sys.executable, "-m", "tapewick")


class Server:
    """``PROGRAM ARGS`` while the context is open; lines of both outputs are kept."""

    def __init__(self, *args: str | Path, program: Sequence[str] = OURS, **env: str) -> None:
        self._command = [*program, *map(str, args)]
        self._env = os.environ | {"PYTHONUNBUFFERED": "1"} | env
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._env,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        with suppress(ProcessLookupError):  # all it started, and all of it has ended already
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            self._queue.put(line.rstrip())

    def line(self, pattern: str, seconds: float = 60) -> str:
        """The next output line that matches; fails with everything said so far."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._queue.get(timeout=min(left, 0.2))
            except queue.Empty:
                if self.process.poll() is not None and self._queue.empty():
                    break
                continue
            if re.search(pattern, line):
                return line
        raise AssertionError(f"no line like {pattern!r} in {self.lines}")

    def ready(self, seconds: float = 60) -> str:
        """Wait for the start-up line; the page's URL."""
        found = re.search(r"https?://[\w.:]+", self.line(r"https?://", seconds))
        assert found
        self.url = found[0]
        return self.url

    def get(self, path: str) -> Any:
        """The JSON body of a successful GET."""
        answer = httpx2.get(self.url + path, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for(self, what: Callable[[], Any], seconds: float = 60) -> Any:
        """``what()`` once it is truthy; a failed assertion or connection counts as not yet."""
        end = time.monotonic() + seconds
        error: Exception | None = None
        while time.monotonic() < end:
            try:
                if value := what():
                    return value
            except (AssertionError, httpx2.TransportError) as caught:
                error = caught
            time.sleep(0.1)
        raise AssertionError(f"never came true; last {error!r}; output {self.lines}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)
