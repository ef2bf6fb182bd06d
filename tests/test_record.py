"""The recorder: what is written is what came, whole at any moment, and never in the way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tapewick import metrics
from tapewick.net.inbox import FRAME_OVERHEAD, Wakeup
from tapewick.record import Recorder
from tapewick.sources._files import Blocks, read_text
from tapewick.sources._recordings import Recording

START = 1_700_000_000_000_000_000


def frame(id: int, symbol: str = "btcusdt") -> bytes:
    time = START // 1_000_000 + id
    return (
        f'{{"stream":"{symbol}@trade","data":{{"e":"trade","E":{time},"s":"{symbol.upper()}","t":{id},'
        f'"p":"100.50","q":"0.25","T":{time},"m":false,"M":true}}}}'
    ).encode()


def wakeup(*frames: bytes, recv: int = START) -> Wakeup:
    return Wakeup(None, list(frames), recv, sum(len(each) + FRAME_OVERHEAD for each in frames))


def lines(folder: Path, pattern: str = "*.zst") -> list[bytes]:
    return b"".join(read_text(path) for path in files(folder, pattern)).splitlines()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (a thread changes it)
            await asyncio.sleep(0.02)


def more_than(recorder: Recorder, count: int) -> bool:
    return recorder.frames > count


def files(folder: Path, pattern: str = "*.zst") -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


async def test_lines_are_receive_time_and_frame(tmp_path: Path) -> None:
    async with Recorder(tmp_path) as recorder:
        take = recorder.tap("binance")
        take(wakeup(frame(1), frame(2), recv=START + 5))
        times = np.array([START + 6, START + 7], np.int64)
        take(Wakeup(None, [frame(3), frame(4)], times, 400))
    (path,) = files(tmp_path)
    assert path.name == "spot_btcusdt_20231114T221320Z.zst"
    assert lines(tmp_path) == [
        b"%d %b" % (START + offset, frame(id)) for offset, id in ((5, 1), (5, 2), (6, 3), (7, 4))
    ]
    assert (recorder.frames, recorder.dropped, recorder.waiting) == (4, 0, 0)
    recording = Recording(path)
    part = recording.read()
    assert part is not None
    assert (recording.venue, recording.start, recording.fault) == ("binance", START + 5, "")
    assert [batch.trade_id.tolist() for _, batch in part.batches] == [[1, 2, 3, 4]]


async def test_each_symbol_has_its_file_and_its_book(tmp_path: Path) -> None:
    async with Recorder(tmp_path) as recorder:
        spot, futures = recorder.tap("binance"), recorder.tap("binance-usdm")
        spot(wakeup(frame(1), frame(1, "ethusdt")))
        futures(wakeup(frame(9)))
        recorder.snapshot("binance", "ETHUSDT", b'{"lastUpdateId":7,\n "bids":[],"asks":[]}', recv=START + 1)
        spot(wakeup(b'{"result":null,"id":1}', recv=START + 2))
    assert len(files(tmp_path)) == 3
    assert lines(tmp_path, "spot_ethusdt*") == [
        b"%d %b" % (START, frame(1, "ethusdt")),
        b'%d {"lastUpdateId":7,  "bids":[],"asks":[]}' % (START + 1),
        b'%d {"result":null,"id":1}' % (START + 2),
    ]
    assert lines(tmp_path, "spot_btcusdt*")[-1].endswith(b'{"result":null,"id":1}')
    assert lines(tmp_path, "usdm_btcusdt*") == [b"%d %b" % (START, frame(9))]


async def test_names_from_outside_are_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "frames"
    async with Recorder(folder) as recorder:
        hostile = b'{"stream":"../../evil@trade","data":{}}'
        recorder.tap("binance")(wakeup(frame(1), hostile, b'{"stream":"@trade"}', b'{"stream":"%b' % (b"x" * 300)))
    assert [path.name for path in files(tmp_path, "*")] == ["spot_btcusdt_20231114T221320Z.zst"]
    assert len(lines(folder)) == 4  # what names no symbol goes where the others go


async def test_receive_times_never_go_back_inside_a_file(tmp_path: Path) -> None:
    async with Recorder(tmp_path) as recorder:
        take = recorder.tap("binance")
        for offset in (10, 5, 20):
            take(wakeup(frame(offset), recv=START + offset))
    assert [int(line.split(b" ", 1)[0]) - START for line in lines(tmp_path)] == [10, 10, 20]


async def test_a_new_file_by_time_and_by_size(tmp_path: Path) -> None:
    async with Recorder(tmp_path / "time", rotate_seconds=60) as recorder:
        take = recorder.tap("binance")
        for minute in range(3):
            take(wakeup(frame(minute), recv=START + minute * 60 * 10**9))
            await until(partial(more_than, recorder, minute))
    assert len(files(tmp_path / "time")) == 3
    async with Recorder(tmp_path / "size", rotate_bytes=1) as recorder:
        take = recorder.tap("binance")
        for id in range(3):
            take(wakeup(frame(id)))
            await until(partial(more_than, recorder, id))
    names = [path.name for path in files(tmp_path / "size")]
    assert names == [f"spot_btcusdt_20231114T221320Z{suffix}.zst" for suffix in ("-2", "-3", "")]
    assert len(lines(tmp_path / "size")) == 3


async def test_what_does_not_fit_is_dropped_and_counted_at_once(tmp_path: Path) -> None:
    def metric() -> float:
        return metrics.REGISTRY.get_sample_value("tapewick_record_dropped_frames_total", {"venue": "binance"}) or 0.0

    before = metric()
    recorder = Recorder(tmp_path, max_bytes=4096)
    take = recorder.tap("binance")  # its thread does not run yet: nothing is taken off the queue
    for id in range(100):
        take(wakeup(frame(id)))
    assert recorder.waiting <= 4096
    kept = 100 - recorder.dropped
    assert 0 < kept < 100
    async with recorder:
        pass
    assert len(lines(tmp_path)) == recorder.frames == kept
    assert metric() == before + recorder.dropped


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
async def test_a_disk_that_refuses_costs_frames_only(tmp_path: Path) -> None:
    async with Recorder(tmp_path) as recorder:
        take = recorder.tap("binance")
        take(wakeup(frame(1)))
        await until(lambda: recorder.frames == 1)
        (path,) = files(tmp_path)
        whole = path.read_bytes()
        path.unlink()
        path.symlink_to("/dev/full")
        take(wakeup(frame(2), frame(3)))
        await until(lambda: recorder.dropped == 2)
        assert "No space left" in (recorder.trouble or "")
        path.unlink()
        path.write_bytes(whole)
        take(wakeup(frame(4)))
        await until(lambda: recorder.frames == 2)
        assert recorder.trouble is None
    assert [line.rsplit(b'"t":', 1)[1][:1] for line in lines(tmp_path)] == [b"1", b"4"]


async def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        async with Recorder(tmp_path / "file"):
            raise AssertionError


KILLED = """
import asyncio, sys, time
from tapewick.net.inbox import Wakeup
from tapewick.record import Recorder

async def main():
    async with Recorder(sys.argv[1]) as recorder:
        take, id = recorder.tap("binance"), 0
        while True:
            id += 1
            text = b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":%d}}' % id
            take(Wakeup(None, [text], time.time_ns(), 200))
            print(id, flush=True)
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


def test_after_kill_9_all_but_the_last_second_is_readable(tmp_path: Path) -> None:
    script = tmp_path / "record.py"
    script.write_text(KILLED)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    sizes, told = {0: 0}, 0
    while len(sizes) < 4:  # until the disk got something three times; and what had been told by then
        told = int(process.stdout.readline())
        sizes.setdefault(sum(path.stat().st_size for path in files(tmp_path)), told)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (path,) = files(tmp_path)
    blocks = Blocks(path)
    text = b"".join(blocks)
    assert (blocks.tail, blocks.fault) == (b"", "")
    ids = [int(line.rsplit(b'"t":', 1)[1].rstrip(b"}")) for line in text.splitlines()]
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) >= list(sizes.values())[2]  # the third write began after the second had been seen
