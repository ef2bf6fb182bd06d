"""Recorded files as blocks of whole lines: plain, gzip, zstd or zip, told apart by their first bytes.

A reader never holds more than a block, and a damaged or truncated file gives
everything that lies before the damage before it says so.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from tapewick.errors import BadPayload
from tapewick.sources._archive_zip import ZipText

__all__ = ["BLOCK", "Blocks", "Rejects", "read_text"]

BLOCK = 1 << 20
LONGEST_LINE = 64 << 20  # the largest real line, an exchangeInfo answer, is about 10 MB
_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_EXAMPLES = 10


@dataclass(slots=True)
class Rejects:
    """Rows that could not be taken, counted by reason, with the place of the first few."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count rows rejected for ``reason``, the first of them at ``where`` (``file:line``)."""
        self.counts[reason] += count
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{where}: {reason}")


class _Expander(Protocol):
    """Turns stored bytes into text bytes; ``fault`` says why it stopped early."""

    chunk: int
    fault: str

    def feed(self, data: bytes) -> bytes: ...
    def end(self) -> None: ...


class _Plain:
    chunk, fault = 256 << 10, ""

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> None:
        """A plain file may end anywhere."""


class _Gzip:
    """Gzip, also of several members."""

    chunk = 64 << 10

    def __init__(self) -> None:
        self.fault = ""
        self._member = zlib.decompressobj(31)

    def feed(self, data: bytes) -> bytes:
        out = []
        while data and not self.fault:
            if self._member.eof:
                data = data.lstrip(b"\0")  # archives may be padded with zeros
                if not data:
                    break
                self._member = zlib.decompressobj(31)
            before = self._member.copy()
            try:
                out.append(self._member.decompress(data))
            except zlib.error as error:
                self.fault = f"damaged gzip data ({error})"
                out.append(_salvage(before, data))
                break
            data = self._member.unused_data
        return b"".join(out)

    def end(self) -> None:
        if not self._member.eof:
            self.fault = self.fault or "gzip data cut short"


def _salvage(member: zlib._Decompress, data: bytes) -> bytes:
    """What ``data`` expands to before the damage: the failing call dropped its whole output."""
    out = []
    for i in range(len(data)):
        try:
            out.append(member.decompress(data[i : i + 1]))
        except zlib.error:
            break
    return b"".join(out)


class _Zstd:
    """Zstandard, also of several frames. Small chunks bound what one call can expand to."""

    chunk = 4 << 10

    def __init__(self) -> None:
        self.fault = ""
        self._frame = zstandard.ZstdDecompressor().decompressobj()

    def feed(self, data: bytes) -> bytes:
        out = []
        while data and not self.fault:
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                out.append(self._frame.decompress(data))
            except zstandard.ZstdError as error:
                self.fault = f"damaged zstd data ({error})"
                break
            data = self._frame.unused_data if self._frame.eof else b""
        return b"".join(out)

    def end(self) -> None:
        if not self._frame.eof:
            self.fault = self.fault or "zstd data cut short"


def _expander(magic: bytes) -> _Expander:
    if magic.startswith(_GZIP):
        return _Gzip()
    if magic.startswith(_ZSTD):
        return _Zstd()
    return _Plain()


class Blocks:
    """One file as blocks of whole lines.

    ``read`` returns at least one line and about ``size`` bytes until the file ends, then ``b""``.
    After that ``tail`` holds an unfinished last line and ``fault`` what was wrong with the
    compressed data, if anything. ``lines`` counts the lines given so far, ``bytes_read`` the
    stored bytes consumed. Raises ``BadPayload`` when the file cannot be opened or a line is absurdly long.
    """

    def __init__(self, path: Path, size: int = BLOCK, longest: int = LONGEST_LINE) -> None:
        self.path, self._size, self._longest = path, size, longest
        self.lines = self.bytes_read = 0
        self.tail = b""
        self._pending: list[bytes] = []
        self._held = 0
        self._has_line = False
        self._expander: _Expander
        try:
            self._file: BinaryIO | ZipText = path.open("rb")
        except OSError as error:
            raise BadPayload(f"cannot read {path}: {error.strerror}; give an existing, readable file") from error
        magic = self._file.read(4)
        self._file.seek(0)
        if magic.startswith(_ZIP):
            self._file.close()
            self._file = self._expander = ZipText(path)
        else:
            self._expander = _expander(magic)

    @property
    def fault(self) -> str:
        """Why reading stopped before the file's real end; empty if it did not."""
        return self._expander.fault

    def read(self) -> bytes:
        """The next block of whole lines, ``b""`` at the end."""
        while not self._file.closed:
            if self._held >= self._size and (block := self._cut()):
                return block
            if self._held > self._longest:
                self.close()
                raise BadPayload(f"{self.path}:{self.lines + 1}: a line of more than {self._longest >> 20} MiB")
            self._fetch()
        block = self._cut()
        if self._pending:
            self.tail = b"".join(self._pending)
            self._pending.clear()
        return block

    def _fetch(self) -> None:
        """Expand one more chunk; close the file when there is none or it is damaged."""
        data = self._file.read(min(self._expander.chunk, self._size))
        self.bytes_read = self._file.stored if isinstance(self._file, ZipText) else self.bytes_read + len(data)
        text = self._expander.feed(data)
        if not data:
            self._expander.end()
        if not data or self._expander.fault:
            self._file.close()
        if text:
            self._pending.append(text)
            self._held += len(text)
            self._has_line = self._has_line or b"\n" in text

    def _cut(self) -> bytes:
        """What is held up to its last newline."""
        if not self._has_line:
            return b""
        text = b"".join(self._pending)
        end = text.rfind(b"\n") + 1
        self._has_line = False
        self._pending, self._held = ([text[end:]] if end < len(text) else []), len(text) - end
        self.lines += text.count(b"\n", 0, end)
        return text[:end]

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read():
            yield block


def read_text(path: Path, largest: int = 2 << 30) -> bytes:
    """A whole file, expanded. Raises ``BadPayload`` when it is damaged or expands to more than ``largest`` bytes."""
    reader = Blocks(path, longest=largest)
    parts, held = [], 0
    try:
        for block in reader:
            parts.append(block)
            held += len(block)
            if held > largest:
                raise BadPayload(f"{path} expands to more than {largest >> 20} MiB; split it")
    finally:
        reader.close()
    if reader.fault:
        raise BadPayload(f"{path}:{reader.lines + 1}: {reader.fault}; fetch the file again")
    return b"".join(parts) + reader.tail
