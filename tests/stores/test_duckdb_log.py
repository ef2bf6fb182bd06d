"""The write-ahead log: what DuckDB would forget silently is found, and no torn end is called damage."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick.errors import StoreDamaged
from tapewick.stores._duckdb_log import check, entries, lost_behind
from tapewick.stores.duckdb import DuckDBStore

COMMITS = 40
WRITER = f"""
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE IF NOT EXISTS numbers (n BIGINT, text VARCHAR)")
for n in range({COMMITS}):
    connection.execute("INSERT INTO numbers SELECT ? * 10 + i, 'row ' || i FROM range(10) r(i)", [n])
os._exit(0)  # as a crash: no checkpoint
"""
U64 = st.one_of(st.sampled_from([0, 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1), st.integers(0, 1 << 20))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database whose commits are all in its log."""
    folder = tmp_path_factory.mktemp("crashed")
    write(folder)
    return folder


def write(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITER, str(folder / "tape.duckdb")], check=True, timeout=60)


def log_of(folder: Path) -> bytes:
    return (folder / "tape.duckdb.wal").read_bytes()


def rows(crashed: Path, log: bytes) -> int | None:
    """How many rows DuckDB finds with this log; None where it refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(crashed / "tape.duckdb", folder)
        (Path(folder) / "tape.duckdb.wal").write_bytes(log)
        try:
            with duckdb.connect(f"{folder}/tape.duckdb", read_only=True) as connection:
                [count] = connection.execute("SELECT count(*) FROM numbers").fetchall()[0]
        except duckdb.Error:
            return None
    return int(count)


def test_the_walk_ends_where_the_log_does(crashed: Path) -> None:
    log = log_of(crashed)
    *_, (start, size) = entries(log)
    assert start + 16 + size == len(log)
    assert len(list(entries(log))) >= 2 * COMMITS
    assert lost_behind(log) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=U64)
def test_a_damaged_size_is_refused_or_found(crashed: Path, data: st.DataObject, size: int) -> None:
    log = bytearray(log_of(crashed))
    whole = list(entries(bytes(log)))
    start, was = data.draw(st.sampled_from(whole[: -len(whole) // 10]))  # not of the last commit
    struct.pack_into("<Q", log, start, size)
    found = rows(crashed, bytes(log))
    if size == was:
        assert found == COMMITS * 10
        assert lost_behind(bytes(log)) is None
    elif found is not None:
        assert lost_behind(bytes(log)) == start


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_torn_end_is_none(crashed: Path, data: st.DataObject) -> None:
    log = log_of(crashed)
    assert lost_behind(log[: data.draw(st.integers(0, len(log)))]) is None


def test_a_last_commit_that_came_to_disk_in_parts_is_none(crashed: Path) -> None:
    log = bytearray(log_of(crashed))
    start, _ = list(entries(bytes(log)))[-2]
    log[start : start + 16] = bytes(16)
    assert rows(crashed, bytes(log)) == (COMMITS - 1) * 10
    assert lost_behind(bytes(log)) is None


def test_what_is_appended_behind_a_torn_end_is_whole(crashed: Path, tmp_path: Path) -> None:
    shutil.copytree(crashed, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tape.duckdb.wal").write_bytes(log_of(crashed)[:-30])
    write(tmp_path)
    assert check(tmp_path / "tape.duckdb.wal") is None
    assert rows(tmp_path, log_of(tmp_path)) == (2 * COMMITS - 1) * 10


@pytest.mark.parametrize("content", [None, b"", b"a log of before", bytes(4096)])
def test_other_files_are_left_to_the_database(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "other.wal").write_bytes(content)
    assert check(tmp_path / "other.wal") is None


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_store_with_such_a_log_is_damaged_and_untouched(tmp_path: Path, crashed: Path, read_only: bool) -> None:
    shutil.copytree(crashed, tmp_path, dirs_exist_ok=True)
    log = bytearray(log_of(tmp_path))
    start, _ = list(entries(bytes(log)))[len(list(entries(bytes(log)))) // 2]
    log[start + 6] ^= 0x40
    (tmp_path / "tape.duckdb.wal").write_bytes(log)
    with pytest.raises(StoreDamaged, match=f"tapewick doctor --data .*the entry at byte {start} "):
        async with DuckDBStore(tmp_path, read_only=read_only):
            pass
    assert log_of(tmp_path) == bytes(log)
