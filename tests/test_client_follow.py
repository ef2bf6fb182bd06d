"""What one followed channel makes of frames: each record once, holes found, gaps told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick._client_follow import Followed, Hole
from tapewick._client_frames import Frame, Rows, Skip, StreamGap, frames

TRADES, CANDLES = "trade@sim:BTCUSDT", "candle@sim:BTCUSDT@1m"


def trades(first: int, last: int, epoch: str = "e", **more: Any) -> Frame:
    rows = [{"seq": seq} for seq in range(first, last + 1)]
    told = {"type": "event", "ch": TRADES, "pos": f"{epoch}:{last}", "from": f"{epoch}:{first}", "data": rows, **more}
    return frames(msgspec.json.encode(told))[0]


def candles(pos: int, *rows: tuple[int, int]) -> Frame:
    data = [{"open_time": time, "pos": own} for time, own in rows]
    told = {"type": "event", "ch": CANDLES, "pos": f"e:{pos}", "kind": "closed", "data": data}
    return frames(msgspec.json.encode(told))[0]


def seqs(items: list[Any]) -> list[int]:
    return [msgspec.json.decode(row)["seq"] for item in items if isinstance(item, Rows) for row in item.raw]


def pairs(items: list[Any]) -> list[tuple[int, int]]:
    heads = [msgspec.json.decode(row) for item in items if isinstance(item, Rows) for row in item.raw]
    return [(head["open_time"], head["pos"]) for head in heads]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=40))
def test_overlapping_frames_give_each_trade_once(parts: list[tuple[int, int]]) -> None:
    followed, got = Followed(TRADES, {}, "e:100"), list[int]()
    reached = 100
    for back, count in parts:
        first = max(1, reached + 1 - back)
        got += seqs(followed.take(trades(first, first + count - 1)))
        reached = max(reached, first + count - 1)
    assert got == list(range(101, reached + 1)) and followed.position == f"e:{reached}"


def test_a_hole_is_asked_for_again_and_told_only_if_it_stays() -> None:
    followed = Followed(TRADES, {}, "e:10")
    with pytest.raises(Hole):
        followed.take(trades(15, 16))
    assert followed.wish()["since"] == "e:10"
    gap, rows = followed.take(trades(15, 16))
    assert isinstance(gap, StreamGap) and (gap.first, gap.last, gap.reason, gap.count) == ("e:10", "e:15", "missing", 4)
    assert seqs([rows]) == [15, 16]
    with pytest.raises(Hole):  # another hole is asked for again as well
        followed.take(trades(20, 20))


def test_another_epoch_without_a_gap_is_a_hole() -> None:
    followed = Followed(TRADES, {}, "e:10")
    with pytest.raises(Hole):
        followed.take(trades(11, 12, "f"))
    gap, rows = followed.take(trades(11, 12, "f"))
    assert isinstance(gap, StreamGap) and gap.count is None and seqs([rows]) == [11, 12]
    assert seqs(followed.take(trades(13, 13, "f"))) == [13]


def test_a_skip_counts_as_seen() -> None:
    followed = Followed(TRADES, {}, "e:10")
    skip = frames(b'{"type":"skip","ch":"x","from":"e:11","to":"e:20","count":10}')[0]
    (item,) = followed.take(skip)
    assert isinstance(item, Skip) and (item.count, item.position) == (10, "e:20")
    assert followed.take(skip) == [] and seqs(followed.take(trades(21, 21))) == [21]


def test_a_gap_lets_the_snapshot_replace_what_was_held() -> None:
    followed = Followed(TRADES, {"snapshot": 5}, "e:10")
    followed.admitted("f:3", recovered=False)
    (gap,) = followed.take(frames(b'{"type":"gap","ch":"x","from":"e:10","to":"f:3","reason":"epoch"}')[0])
    assert isinstance(gap, StreamGap) and gap.reason == "epoch" and "since" not in followed.wish()
    snapshot = frames(b'{"type":"snapshot","ch":"x","pos":"f:3","data":[{"seq":2},{"seq":3}]}')[0]
    assert seqs(followed.take(snapshot)) == [2, 3] and seqs(followed.take(trades(4, 4, "f"))) == [4]


def test_a_refusal_without_a_gap_is_told_all_the_same() -> None:
    followed = Followed(TRADES, {"snapshot": 5}, "e:10")
    followed.admitted("f:3", recovered=False)
    snapshot = frames(b'{"type":"snapshot","ch":"x","pos":"f:3","data":[{"seq":3}]}')[0]
    gap, rows = followed.take(snapshot)
    assert isinstance(gap, StreamGap) and gap.reason == "not_recovered" and seqs([rows]) == [3]


def test_without_a_snapshot_the_stream_begins_where_the_server_says() -> None:
    followed = Followed(TRADES, {"snapshot": 0})
    followed.admitted("e:7", recovered=False)
    assert followed.wish()["since"] == "e:7"


@given(st.data())
def test_commits_of_candles_cut_anywhere_come_once(data: st.DataObject) -> None:
    """Rows of a commit share a pos, and a frame that is not its last prints the position before it."""
    commits = data.draw(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True), max_size=12))
    stream: list[Frame] = []
    for pos, times in enumerate(commits, 1):
        cut = data.draw(st.integers(0, len(times)))
        for part, at in ((times[:cut], pos - 1 if cut < len(times) else pos), (times[cut:], pos)):
            if part:
                stream.append(candles(at, *((time, pos) for time in part)))
    followed, got, at = Followed(CANDLES, {}, "e:0"), list[tuple[int, int]](), 0
    while at < len(stream):
        got += pairs(followed.take(stream[at]))
        at += 1
        if data.draw(st.booleans()):  # cut: everything after the position comes again
            seen = int(followed.wish()["since"].partition(":")[2])
            at = next((n for n, one in enumerate(stream) if min(_positions(one)) > seen), len(stream))
    assert got == [(time, pos) for pos, times in enumerate(commits, 1) for time in times]


def _positions(frame: Frame) -> list[int]:
    return [msgspec.json.decode(row)["pos"] for row in frame.data]


def test_history_of_candles_hands_on_from_its_first_page() -> None:
    followed = Followed(CANDLES, {}, opening="/1")
    rows = [msgspec.Raw(b'{"open_time":1,"pos":5}')]
    assert followed.history(rows, "e:5", "/2").position == ""
    later = [msgspec.Raw(b'{"open_time":2,"pos":7}')]
    assert followed.history(later, "e:8", None).position == "e:5" and followed.opening is None
    assert followed.wish()["since"] == "e:5"
    assert pairs(followed.take(candles(8, (1, 6), (2, 7), (2, 8)))) == [(1, 6), (2, 8)]
