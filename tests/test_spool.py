"""The spool: what was appended is there after any crash, in order; what is damaged is told and kept aside."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapewick import spool
from tapewick.errors import StoreError
from tapewick.spool import HEAD, Spool, framed, parse

RECORDS = st.lists(st.binary(max_size=40), max_size=12)
MOST = 1 << 20


def drained(one: Spool) -> list[bytes]:
    """All that waits, oldest first, removed."""
    found: list[bytes] = []
    while (records := one.read()) is not None:
        found += records
        one.drop()
    return found


@given(RECORDS, st.data())
def test_a_cut_segment_holds_all_whole_records_and_one_torn_at_most(records: list[bytes], data: Any) -> None:
    whole = b"".join(map(framed, records))
    cut = data.draw(st.integers(0, len(whole)))
    ends = [sum(map(len, map(framed, records[: n + 1]))) for n in range(len(records))]
    sound = sum(end <= cut for end in ends)
    found = parse(whole[:cut])
    assert found.records == records[:sound]
    assert (found.damaged, found.torn) == (0, cut - (ends[sound - 1] if sound else 0))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=12), st.data())
def test_a_flipped_bit_costs_one_record_and_is_told(records: list[bytes], data: Any) -> None:
    frames = list(map(framed, records))
    hit = data.draw(st.integers(0, len(frames) - 1))
    place = data.draw(st.integers(0, len(frames[hit]) - 1))
    broken = bytearray(frames[hit])
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    found = parse(b"".join([*frames[:hit], bytes(broken), *frames[hit + 1 :]]))
    assert found.records == records[:hit] + records[hit + 1 :]
    assert found.damaged + found.torn == len(frames[hit])
    assert not found.torn or hit == len(frames) - 1


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange(noise: bytes) -> None:
    found = parse(noise)
    assert sum(map(len, found.records)) + found.damaged + found.torn <= len(noise)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(RECORDS, st.sampled_from(["crash", "drain one", "drain some", "restart"])), max_size=25),
    st.integers(1, 300),
)
def test_against_a_queue(steps: list[Any], segment: int) -> None:
    """Crashes and restarts at any point: what waits is what was appended and not dropped, in order."""
    before, spool.SEGMENT = spool.SEGMENT, segment
    try:
        with TemporaryDirectory() as folder:
            model: list[bytes] = []
            one = Spool(folder, MOST)
            for step in steps:
                if isinstance(step, list):
                    assert one.append(step) == len(step)
                    model += step
                elif step == "drain some":
                    if (records := one.read()) is not None:
                        rest = records[::2]
                        one.drop(rest=rest)
                        model[: len(records)] = rest
                elif step == "drain one":
                    if (records := one.read()) is not None:
                        assert records == model[: len(records)]
                        one.drop()
                        del model[: len(records)]
                else:
                    if step == "restart":
                        one.close()
                    else:
                        let_go(one)
                    one = Spool(folder, MOST)
                    one.adopt()
                assert (one.nbytes > 0) == bool(model)
            assert drained(one) == model
            one.close()
            assert list(Path(folder).iterdir()) == []
    finally:
        spool.SEGMENT = before


def let_go(one: Spool) -> None:
    """What the kernel does to a process that is killed: its descriptors close."""
    if one._file is not None:
        os.close(one._file)
    for fd in one._locks.values():
        os.close(fd)


def test_a_living_process_keeps_its_own(tmp_path: Path) -> None:
    one, other = Spool(tmp_path, MOST), Spool(tmp_path, MOST)
    one.append([b"mine"])
    other.append([b"yours"])
    assert one.adopt() == other.adopt() == 0
    let_go(other)
    assert one.adopt() > 0
    assert drained(one) == [b"mine", b"yours"]


def test_the_bound_holds_and_counts_what_was_taken_over(tmp_path: Path) -> None:
    one = Spool(tmp_path, 3 * (HEAD.size + 10))
    assert one.append([b"x" * 10, b"y" * 10]) == 2
    one.close()
    again = Spool(tmp_path, 3 * (HEAD.size + 10))
    again.adopt()
    assert again.append([b"z" * 10, b"z" * 10]) == 1
    assert again.append([b""]) == 0
    assert drained(again) == [b"x" * 10, b"y" * 10, b"z" * 10]
    assert again.append([b"z" * 10] * 4) == 3


def test_some_of_a_segment_goes_and_the_rest_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT", 1)
    one = Spool(tmp_path, MOST)
    for records in ([b"a1", b"b1"], [b"a2", b"b2"], [b"b3"]):
        one.append(records)
    before, middle = one.nbytes, one.segments[1]
    assert one.read(middle) == [b"a2", b"b2"]
    one.drop(rest=[b"a2"])
    assert one.nbytes == before - len(framed(b"b2")) == sum(path.stat().st_size for path in one.segments)
    one.append([b"a3"])
    assert drained(one) == [b"a1", b"b1", b"a2", b"b3", b"a3"]


@pytest.mark.parametrize("fails", ["write", "rename"])
def test_a_segment_that_cannot_be_rewritten_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """As where the process is killed before the new one is whole: what was being written is swept up."""
    one = Spool(tmp_path, MOST)
    one.append([b"a", b"b"])
    one.read()

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(*((os, "fdatasync", fail) if fails == "write" else (Path, "replace", fail)))
        with pytest.raises(StoreError, match="No space left"):
            one.drop(rest=[b"a"])
    let_go(one)
    [path] = tmp_path.glob("*.seg")
    path.with_name(path.name + ".new").write_bytes(b"half of")
    again = Spool(tmp_path, MOST)
    again.adopt()
    assert drained(again) == [b"a", b"b"]
    again.close()
    assert [each.name for each in tmp_path.iterdir()] == []


@pytest.mark.parametrize("damage", ["middle", "torn"])
@pytest.mark.parametrize("partly", [False, True])
def test_a_damaged_segment_is_kept_aside(tmp_path: Path, damage: str, partly: bool) -> None:
    one = Spool(tmp_path, MOST)
    one.append([b"first", b"second", b"third"])
    one.close()
    [path] = tmp_path.glob("*.seg")
    data = bytearray(path.read_bytes())
    if damage == "middle":
        data[len(framed(b"first")) + HEAD.size] ^= 1
    else:
        del data[-2:]
    path.write_bytes(data)
    again = Spool(tmp_path, MOST)
    again.adopt()
    sound = [b"first", b"third"] if damage == "middle" else [b"first", b"second"]
    if partly:
        assert again.read() == sound
        again.drop(rest=sound[1:])
        sound = sound[1:]
    assert drained(again) == sound
    [kept] = again.kept()
    assert kept.read_bytes() == data and again.nbytes == 0
    again.close()
    assert Spool(tmp_path, MOST).adopt() == 0


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spool(tmp_path, MOST)
    one.append([b"first"])
    real = os.write

    def write(fd: int, data: Any) -> int:
        if len(data) > 20:
            return real(fd, bytes(data[:20]))  # some of it fits
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        with pytest.raises(StoreError, match="No space left"):
            one.append([b"second" * 10])
    one.append([b"third"])
    assert drained(one) == [b"first", b"third"] and one.kept() == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="spool"):
        Spool(tmp_path / "file" / "spool", MOST).append([b"x"])
