"""The entries of DuckDB's write-ahead log, and whether acknowledged ones lie behind a broken one.

DuckDB 2.0 refuses a log with an entry that does not match its checksum. But an entry whose size is nonsense it
takes for the torn end that every crash leaves, and silently forgets all commits behind it. The log tells the two
apart: a commit is on disk before the next begins, so behind a torn end nothing can follow a whole commit.

A log is one header, then entries: size u64, checksum u64, ``size`` bytes; all little-endian. A commit ends with an
entry that is always the same 21 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct

__all__ = ["check", "entries", "lost_behind"]

FRAME = Struct("<QQ")
COMMITTED = bytes.fromhex("0500000000000000 e7fe7d722fed3d5e 640064ffff")
VERSION = bytes.fromhex("640062 650002")  # the header of the one layout known here
FIELD_ID, FIELD_COUNT, FIELD_END = b"\x66\x00", b"\x67\x00", b"\xff\xff"


def check(log: Path) -> str | None:
    """What is wrong with the file ``log`` that DuckDB would open without a word; None if nothing, or no such file."""
    found = _read(log)
    # A log that its owner empties and fills meanwhile reads as nonsense once, but not twice the same.
    if found is None or (at := lost_behind(found)) is None or _read(log) != found:
        return None
    return f"Corrupt WAL file: the entry at byte {at} has no valid size, whole commits follow it"


def lost_behind(log: bytes) -> int | None:
    """Where the entry begins that hides acknowledged commits; None if there is none, or the layout is unknown."""
    end = _header(log)
    if end is None:
        return None
    for start, size in entries(log):
        end = start + FRAME.size + size
    last = log.find(COMMITTED, end)
    return end if last >= 0 and last + len(COMMITTED) < len(log) else None


def entries(log: bytes) -> Iterator[tuple[int, int]]:
    """Start and payload size of each whole entry, until one is torn or empty."""
    at = _header(log)
    while at is not None and at + FRAME.size <= len(log):
        size, _ = FRAME.unpack_from(log, at)
        if not 0 < size <= len(log) - at - FRAME.size:
            return
        yield at, size
        at += FRAME.size + size


def _header(log: bytes) -> int | None:
    """Length of the header: the layout's version, the database's id (a list of varints), a count of checkpoints."""
    if not log.startswith(VERSION + FIELD_ID):
        return None
    at = len(VERSION) + len(FIELD_ID)
    length, at = _varint(log, at)
    for _ in range(length):
        _, at = _varint(log, at)
    if log[at : at + 2] != FIELD_COUNT:
        return None
    _, at = _varint(log, at + 2)
    return at + 2 if log[at : at + 2] == FIELD_END else None


def _varint(log: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, seven bits per byte, and where it ends; nothing is at the log's end."""
    value = shift = 0
    while at < len(log):
        value |= (log[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if log[at - 1] < 0x80:
            break
    return value, at


def _read(log: Path) -> bytes | None:
    try:
        return log.read_bytes()
    except FileNotFoundError:
        return None
