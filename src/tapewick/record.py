"""Raw frames to files that ``replay`` reads: ``<receive ns> <frame JSON>`` lines, zstd, one file per symbol.

The live path only appends to a queue bounded in bytes; a thread does the rest. Every half
second it ends a zstd frame, so a file is always whole up to there, whatever ends the process. When the
disk lags, frames are left out of the recording, and counted: never out of the live path.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeAlias

import structlog
import zstandard

from tapewick import metrics
from tapewick.clock import Clock, RealClock
from tapewick.net.inbox import FRAME_OVERHEAD, Wakeup

__all__ = ["Recorder"]

log = structlog.get_logger()

LEVEL = 3
FLUSH = 0.5  # seconds between writes; a killed process loses at most that
PENDING = 1 << 20  # bytes of text after which a file is written at once
MOST_FILES = 4096  # per process: names come from outside
_MARKETS = {"binance": "spot", "binance-usdm": "usdm", "binance-coinm": "cm"}
_HEAD = b'{"stream":"'
_SYMBOL = re.compile(r"[^\W_][\w-]{0,39}")
_BREAKS = re.compile(rb"[\r\n]+")

_Job: TypeAlias = tuple[str, bytes, Wakeup]
"""Venue, symbol (empty: as each frame's stream name tells) and frames that came together."""


class Recorder:
    """Writes while its context is open; what was queued before the end of it is written.

    Files are ``<market>_<symbol>_<UTC start>.zst`` in ``folder``, a new one every ``rotate_seconds`` of receive time
    and after ``rotate_bytes`` stored. Frames that name no stream (answers to control messages) go to every open file
    of their venue. ``dropped`` counts frames that found more than ``max_bytes`` waiting, or a disk that refused them;
    ``trouble`` says why the disk does, None while it does not.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        max_bytes: int = 64 << 20,
        rotate_seconds: int = 3600,
        rotate_bytes: int = 256 << 20,
        clock: Clock | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.trouble: str | None = None
        self.frames = self.dropped = 0
        self._max_bytes = max_bytes
        self._rotate = rotate_seconds * 10**9, rotate_bytes
        self._clock = clock or RealClock()
        self._jobs: deque[_Job] = deque()
        # Each is changed by one thread only, so neither needs a lock: their difference is what waits.
        self._queued = self._taken = 0
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="record", daemon=True)
        self._files: dict[str, dict[bytes, _File]] = {}

    async def __aenter__(self) -> Self:
        """Raises ``OSError`` when the folder cannot be made or written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(13, "recording needs a folder it may write", str(self.folder))
        self._thread.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    def tap(self, venue: str) -> Callable[[Wakeup], None]:
        """What to hang on a feed of ``venue``: takes every wake-up, never waits, never raises."""

        def take(wakeup: Wakeup) -> None:
            self._offer((venue, b"", wakeup))

        return take

    def snapshot(self, venue: str, symbol: str, body: bytes, recv: int | None = None) -> None:
        """Record the body of a REST order book of ``symbol``, which does not name it itself."""
        size = len(body) + FRAME_OVERHEAD
        self._offer((venue, symbol.lower().encode(), Wakeup(None, [body], recv or self._clock.now(), size)))

    @property
    def waiting(self) -> int:
        """Bytes not yet taken by the writer."""
        return self._queued - self._taken

    def _offer(self, job: _Job) -> None:
        wakeup = job[2]
        waiting = self._queued - self._taken + wakeup.size
        if waiting > self._max_bytes:
            self.dropped += len(wakeup.frames)
            metrics.record_dropped_frames.labels(job[0]).inc(len(wakeup.frames))
            return
        self._queued += wakeup.size
        self._jobs.append(job)
        if waiting > self._max_bytes // 4:
            self._wake.set()

    # The writer's thread.

    def _work(self) -> None:
        while True:
            closing = self._closing
            started = time.monotonic()
            while self._jobs:
                venue, symbol, wakeup = self._jobs.popleft()
                self._take(venue, symbol, wakeup)
                self._taken += wakeup.size
            for files in self._files.values():
                for file in files.values():
                    self._write(file)
            if closing:
                return
            self._wake.wait(max(0.0, FLUSH - (time.monotonic() - started)))
            self._wake.clear()

    def _take(self, venue: str, symbol: bytes, wakeup: Wakeup) -> None:
        files, recv = self._files.setdefault(venue, {}), wakeup.recv
        stamps = [recv] * len(wakeup.frames) if isinstance(recv, int) else recv.tolist()
        for stamp, frame in zip(stamps, wakeup.frames, strict=True):
            name = symbol or _stream_symbol(frame)
            file = files.get(name)
            for each in self._routed(venue, name) if file is None else (file,):
                each.add(stamp, frame)
                if each.size > PENDING:
                    self._write(each)

    def _routed(self, venue: str, symbol: bytes) -> list[_File]:
        """The files a frame goes to that names no symbol, or one that has none yet."""
        files = self._files[venue]
        name = symbol.decode("utf-8", "replace").lower()
        if _SYMBOL.fullmatch(name) is None or sum(map(len, self._files.values())) >= MOST_FILES:
            return list(files.values())
        market = _MARKETS.get(venue, f"{venue}-spot")
        files[symbol] = _File(self.folder, f"{market}_{name}", venue, *self._rotate)
        return [files[symbol]]

    def _write(self, file: _File) -> None:
        """Write what a file holds back; a disk that refuses costs these frames, not the process."""
        count = file.count
        if not count:
            return
        try:
            file.write()
        except OSError as error:
            self.dropped += count
            metrics.record_dropped_frames.labels(file.venue).inc(count)
            if self.trouble is None:
                log.error("recording is interrupted", cause=error.strerror, file=str(file.path))
            self.trouble = f"{file.path}: {error.strerror}"
        else:
            self.trouble = None
            self.frames += count
            metrics.record_frames.labels(file.venue).inc(count)


def _stream_symbol(frame: bytes) -> bytes:
    """``btcusdt`` of a combined-stream frame; nothing where the frame names no stream of a symbol."""
    if frame.startswith(_HEAD):
        end = frame.find(b"@", len(_HEAD), len(_HEAD) + 160)
        if end > 0:
            return frame[len(_HEAD) : end]
    return b""


class _File:
    """The files of one symbol, one after the other; lines wait here until ``write``."""

    def __init__(self, folder: Path, name: str, venue: str, rotate_ns: int, rotate_bytes: int) -> None:
        self.venue = venue
        self.path = folder / f"{name}.zst"
        self.size = 0
        self._folder, self._name = folder, name
        self._rotate_ns, self._rotate_bytes = rotate_ns, rotate_bytes
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)
        self._lines: list[bytes] = []
        self._newest = 0  # receive time of the last line
        self._first = 0  # of the first line that waits
        self._period = -1
        self._stored = 0

    def add(self, recv: int, frame: bytes) -> None:
        """One line; receive times never go back inside a file, also when the system's clock does."""
        if recv > self._newest:
            self._newest = recv
        lines = self._lines
        if not lines:
            self._first = self._newest
        lines.append(b"%d %b\n" % (self._newest, frame))
        self.size += len(lines[-1])

    @property
    def count(self) -> int:
        """Lines that wait."""
        return len(self._lines)

    def write(self) -> None:
        """Append the waiting lines as one zstd frame. Raises ``OSError``; the lines are gone then, the file whole."""
        text, first = b"".join(self._lines), self._first
        if text.count(b"\n") > len(self._lines):  # a frame of many lines becomes one
            text = b"".join(_BREAKS.sub(b" ", line[:-1]) + b"\n" for line in self._lines)
        self._lines.clear()
        self.size = 0
        data = self._compressor.compress(text)
        if first // self._rotate_ns != self._period or self._stored >= self._rotate_bytes:
            self.path = _new_file(self._folder, self._name, first)
            self._period, self._stored = first // self._rotate_ns, 0
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError:
            with suppress(OSError):  # the first error is the one to tell
                os.ftruncate(handle, self._stored)  # half a zstd frame would hide everything behind it
            raise
        finally:
            os.close(handle)
        self._stored += len(data)


def _new_file(folder: Path, name: str, recv: int) -> Path:
    """An empty file that did not exist, named by its first receive time."""
    start = datetime.fromtimestamp(recv // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 1
    while True:
        path = folder / (f"{name}_{start}.zst" if number == 1 else f"{name}_{start}-{number}.zst")
        try:
            path.open("xb").close()
        except FileExistsError:
            number += 1
        else:
            return path
