"""Records that wait on disk, in order: appended with one fdatasync, removed once they are needed no more, a whole
segment or some of it.

A spool is a folder of segments. A process writes segments of its own, under a lock that ends with it; what a process
that is gone has left is taken over by the next. Each record carries its length and a checksum: the torn tail of a
process that was killed is told apart from damage, and a damaged segment is kept aside, never dropped.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import structlog

from tapewick.errors import StoreError

__all__ = ["Found", "Spool", "parse"]

log = structlog.get_logger()

MARK = b"TwSp"
HEAD = struct.Struct("<4sII")  # the mark, bytes of the record, CRC-32 of that number and the record
SEGMENT = 4 << 20  # bytes after which a new segment begins
KEPT = ".damaged"
NEW = ".new"  # what is not yet whole


class Found(NamedTuple):
    """What a segment holds: its sound ``records``, bytes that are ``damaged``, and those of a ``torn`` last record,
    which nobody was told is safe."""

    records: list[bytes]
    damaged: int
    torn: int


def framed(record: bytes) -> bytes:
    """A record as it lies in a segment."""
    size = len(record).to_bytes(4, "little")
    return HEAD.pack(MARK, len(record), crc32(record, crc32(size))) + record


def parse(data: bytes) -> Found:
    """The records of a segment; what is damaged between them is skipped and counted."""
    records: list[bytes] = []
    at = damaged = 0
    while at < len(data):
        record = _record(data, at)
        if record is None:
            after = _next_sound(data, at + 1)
            if after is None:
                torn = _is_torn(data, at)
                return Found(records, damaged + (0 if torn else len(data) - at), len(data) - at if torn else 0)
            damaged += after - at
            at = after
        else:
            records.append(record)
            at += HEAD.size + len(record)
    return Found(records, damaged, 0)


def _record(data: bytes, at: int) -> bytes | None:
    """The sound record that begins at ``at``; None where there is none."""
    if len(data) - at < HEAD.size:
        return None
    mark, size, check = HEAD.unpack_from(data, at)
    record = data[at + HEAD.size : at + HEAD.size + size]
    sound = mark == MARK and len(record) == size and crc32(record, crc32(size.to_bytes(4, "little"))) == check
    return record if sound else None


def _next_sound(data: bytes, at: int) -> int | None:
    while (at := data.find(MARK, at)) >= 0:
        if _record(data, at) is not None:
            return at
        at += 1
    return None


def _is_torn(data: bytes, at: int) -> bool:
    """Whether ``data`` ends with the beginning of a record, as a process leaves it that is killed while it writes."""
    rest = data[at:]
    if len(rest) < HEAD.size:
        return rest.startswith(MARK) or MARK.startswith(rest)
    mark, size, _ = HEAD.unpack_from(rest)
    return bool(mark == MARK and len(rest) < HEAD.size + size)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o600)


class Spool:
    """A folder of at most ``most`` bytes. Methods block: call them from one thread at a time. They raise
    ``StoreError`` when the disk fails."""

    def __init__(self, folder: str | Path, most: int) -> None:
        self._folder, self._most = Path(folder), most
        self._run = f"{time.time_ns():016x}-{secrets.token_hex(4)}"
        self._locks: dict[str, int] = {}
        self._segments: dict[Path, int] = {}  # own and taken over, with their sizes, oldest first
        self._file: int | None = None
        self._path = Path()
        self._number = 0
        self._read: tuple[Path, int, bool] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that wait."""
        return sum(self._segments.values())

    @property
    def segments(self) -> tuple[Path, ...]:
        """What is there, oldest first."""
        return tuple(self._segments)

    @property
    def written(self) -> Path:
        """The segment of what was appended last."""
        return self._path

    @property
    def room(self) -> int:
        """Bytes that may be added."""
        return self._most - self.nbytes

    def adopt(self) -> int:
        """Take over what processes that are gone have left; bytes of it."""
        before = self.nbytes
        try:
            runs = {path.name.rpartition("-")[0] for path in self._folder.glob("*.seg")}
            runs |= {path.stem for path in self._folder.glob("*.lock")}
            for run in sorted(runs - self._locks.keys()):
                if self._lock(run):
                    for path in self._folder.glob(f"{run}-*{NEW}"):
                        path.unlink()
                    left = {path: path.stat().st_size for path in self._folder.glob(f"{run}-*.seg")}
                    self._segments |= left
                    if not left:
                        self._unlock(run)
        except OSError as error:
            raise self._failed(error) from error
        self._segments = dict(sorted(self._segments.items()))
        return self.nbytes - before

    def append(self, records: Sequence[bytes]) -> int:
        """Add as many of ``records`` as there is room for, the first ones; when this returns they are on disk."""
        parts: list[bytes] = []
        room = self.room
        for record in records:
            if (room := room - HEAD.size - len(record)) < 0:
                break
            parts.append(framed(record))
        if parts:
            try:
                self._write(b"".join(parts))
            except OSError as error:
                raise self._failed(error) from error
        return len(parts)

    def _write(self, data: bytes) -> None:
        file, begin = self._open()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fdatasync(file)
        except OSError:
            try:
                os.ftruncate(file, begin)
            except OSError:
                self._end()  # what is half written stays the torn tail of a segment nobody adds to
            raise
        self._segments[self._path] = begin + len(data)
        if begin + len(data) >= SEGMENT:
            self._end()

    def _open(self) -> tuple[int, int]:
        """The segment that is written, and its size."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            while self._run not in self._locks and not self._lock(self._run):
                time.sleep(0.001)  # another process looks whether it has been left behind
            self._number += 1
            self._path = self._folder / f"{self._run}-{self._number:08}.seg"
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._segments[self._path] = 0
            self._keep_names()
        return self._file, self._segments[self._path]

    def _keep_names(self) -> None:
        """A file whose name is lost is lost."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _end(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def read(self, path: Path | None = None) -> list[bytes] | None:
        """The sound records of one of ``segments``, to which nothing is added any more; of the oldest where none is
        named, None when nothing waits."""
        if path is None:
            if not self._segments:
                return None
            path = next(iter(self._segments))
        if self._file is not None and path == self._path:
            self._end()
        try:
            found = parse(path.read_bytes())
        except OSError as error:
            raise self._failed(error) from error
        if found.torn:
            log.warning(
                "the last record of a spool is not whole, as when a process is killed while it writes: kept aside",
                kept=str(self._kept(path)), bytes=found.torn,
            )  # fmt: skip
        self._read = path, len(found.records), found.damaged + found.torn > 0
        if found.damaged:
            log.error(
                "trades waiting on disk are damaged: the segment is kept aside, the sound ones are stored",
                kept=str(self._kept(path)), bytes=found.damaged,
            )  # fmt: skip
        return found.records

    def drop(self, *, rest: Sequence[bytes] = (), keep: bool = False) -> None:
        """Remove the segment that was read last but for ``rest``, those of its records that wait on, in its place. One
        that is damaged or torn, or to ``keep``, is set aside as it was. Whenever the process is killed, ``rest`` is
        there."""
        assert self._read is not None, "no segment was read"
        path, count, damaged = self._read
        aside = damaged or keep
        data = b"".join(map(framed, rest))
        try:
            if rest and (aside or len(rest) < count):
                if aside:
                    self._put(self._kept(path), path.read_bytes())
                self._put(path, data)
                self._segments[path] = len(data)
            elif not rest:
                if aside:
                    path.rename(self._kept(path))
                else:
                    path.unlink()
        except OSError as error:
            raise self._failed(error) from error
        self._read = None
        if not rest:
            self._forget(path)

    def _put(self, path: Path, data: bytes) -> None:
        """Have a file of ``data``, whatever was there before; that, or the new one, after any crash."""
        new = path.with_name(path.name + NEW)
        try:
            with open(new, "wb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fdatasync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        self._keep_names()

    def _forget(self, path: Path) -> None:
        del self._segments[path]
        run = path.name.rpartition("-")[0]
        if run != self._run and not any(one.name.startswith(run) for one in self._segments):
            self._unlock(run)

    def kept(self) -> list[Path]:
        """Segments that were set aside."""
        return sorted(self._folder.glob(f"*{KEPT}"))

    def close(self) -> None:
        """Let go of the files; what waits stays for the next process."""
        self._end()
        for run in list(self._locks):
            self._unlock(run, remove=not any(one.name.startswith(run) for one in self._segments))
        self._segments.clear()

    def _kept(self, path: Path) -> Path:
        return path.with_name(path.name + KEPT)

    def _lock(self, run: str) -> bool:
        """Whether the segments of ``run`` are this process's now; False while another has them."""
        path = self._folder / f"{run}.lock"
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            try:
                if path.stat().st_ino == os.fstat(fd).st_ino:
                    self._locks[run] = fd
                    return True
            except FileNotFoundError:
                pass
            os.close(fd)  # whoever had it removed the file meanwhile: this lock would be seen by nobody

    def _unlock(self, run: str, *, remove: bool = True) -> None:
        if remove:
            (self._folder / f"{run}.lock").unlink(missing_ok=True)
        os.close(self._locks.pop(run))

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(f"the spool in {self._folder} failed: {error.strerror or error}; free or mend the disk")
