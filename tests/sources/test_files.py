"""Blocks of whole lines from plain, gzip and zstd files, whole and damaged."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest
import zstandard

from tapewick.errors import BadPayload
from tapewick.sources._files import Blocks, Rejects, read_text

LINES = b"".join(b"%d line %d\n" % (n * 7919, n) for n in range(20_000))


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.csv", data)
    return out.getvalue()


def stored(tmp_path: Path, how: str, data: bytes = LINES) -> Path:
    """``data`` in a file stored ``how``."""
    make = {
        "plain": lambda: data,
        "gz": lambda: gzip.compress(data),
        "gz members": lambda: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
        "gz padded": lambda: gzip.compress(data) + b"\0" * 512,
        "zip": lambda: zipped(data),
        "zst": lambda: zstandard.ZstdCompressor().compress(data),
        "zst frames": lambda: b"".join(zstandard.ZstdCompressor().compress(d) for d in (data[:1000], data[1000:])),
    }
    path = tmp_path / "data"
    path.write_bytes(make[how]())
    return path


@pytest.mark.parametrize("how", ["plain", "gz", "gz members", "gz padded", "zip", "zst", "zst frames"])
@pytest.mark.parametrize("size", [1, 5000, 1 << 20])
def test_blocks_are_whole_lines_and_miss_nothing(tmp_path: Path, how: str, size: int) -> None:
    blocks = Blocks(stored(tmp_path, how), size)
    found = list(blocks)
    assert b"".join(found) == LINES
    assert all(block.endswith(b"\n") for block in found)
    assert (blocks.tail, blocks.fault, blocks.lines) == (b"", "", 20_000)
    assert blocks.bytes_read == blocks.path.stat().st_size


@pytest.mark.parametrize("how", ["plain", "gz", "zst"])
def test_an_unfinished_last_line_is_the_tail(tmp_path: Path, how: str) -> None:
    blocks = Blocks(stored(tmp_path, how, LINES + b"unfinished"), 4096)
    assert b"".join(blocks) == LINES
    assert (blocks.tail, blocks.fault) == (b"unfinished", "")


@pytest.mark.parametrize(("how", "fault"), [("gz", "gzip data cut short"), ("zst", "zstd data cut short")])
def test_what_lies_before_a_cut_is_read(tmp_path: Path, how: str, fault: str) -> None:
    path = stored(tmp_path, how)
    path.write_bytes(path.read_bytes()[:-100])
    blocks = Blocks(path)
    text = b"".join(blocks) + blocks.tail
    assert LINES.startswith(text)
    assert blocks.fault == fault
    with pytest.raises(BadPayload, match=f"{path}:{blocks.lines + 1}: {fault}"):
        read_text(path)


def test_what_lies_before_damage_is_read(tmp_path: Path) -> None:
    path = stored(tmp_path, "gz members")
    data = bytearray(path.read_bytes())
    first = len(gzip.compress(LINES[:1000]))
    data[first : first + 4] = b"\xff\xff\xff\xff"  # the second member has no header any more
    path.write_bytes(data)
    blocks = Blocks(path)
    assert b"".join(blocks) + blocks.tail == LINES[:1000]
    assert blocks.fault.startswith("damaged gzip data")


def test_damage_inside_the_data_keeps_lines_decoded_before_it(tmp_path: Path) -> None:
    path = stored(tmp_path, "gz")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(data)
    blocks = Blocks(path)
    text = b"".join(blocks)
    assert blocks.fault.startswith("damaged gzip data")
    assert len(text) > len(LINES) // 3
    assert LINES.startswith(text[: len(LINES) // 3])


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(BadPayload, match="No such file"):
        Blocks(tmp_path / "absent")
    archive = tmp_path / "trades.zip"
    archive.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(BadPayload, match="zip archive cut short"):
        Blocks(archive)
    endless = tmp_path / "endless"
    endless.write_bytes(b"x" * 3000)
    with pytest.raises(BadPayload, match=f"{endless}:1: a line of more than"):
        list(Blocks(endless, 1000, longest=2000))


def test_text_is_bounded(tmp_path: Path) -> None:
    path = stored(tmp_path, "gz")
    assert read_text(path) == LINES
    with pytest.raises(BadPayload, match="more than 0 MiB"):
        read_text(path, largest=1000)


def test_rejects_remember_the_first_places() -> None:
    rejects = Rejects()
    for n in range(100):
        rejects.add("price", f"f:{n}")
    rejects.add("fields", "f:200", 5)
    assert rejects.counts == {"price": 100, "fields": 5}
    assert rejects.examples[0] == "f:0: price"
    assert len(rejects.examples) == 10
