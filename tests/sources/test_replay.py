"""The replay source on invented recordings: formats, markets, merging, clock, damage."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from tapewick.clock import RecordedClock
from tapewick.errors import BadPayload, ConfigError
from tapewick.model import Event, Instrument, TradeBatch
from tapewick.sources import replay
from tapewick.sources.replay import ReplaySource

T0 = 1_700_000_000_000_000_000
MS = 1_000_000
SECOND = 1000 * MS


def trade(id: int, ms: int, symbol: str = "ABCUSDT", price: str = "1.25", **more: object) -> str:
    """A combined-stream spot trade whose trade time is ``ms`` after the start."""
    at = T0 // MS + ms
    data = {"e": "trade", "E": at, "s": symbol, "t": id, "p": price, "q": "2", "T": at, "m": True, "M": True, **more}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":"))


def aggregate(id: int, first: int, last: int, ms: int, symbol: str = "ABCUSDT") -> str:
    at = T0 // MS + ms
    data = {"e": "aggTrade", "E": at, "s": symbol, "a": id, "p": "3", "q": "4", "f": first, "l": last, "T": at}
    data |= {"m": False, "M": True}
    return json.dumps({"stream": f"{symbol.lower()}@aggTrade", "data": data}, separators=(",", ":"))


def futures(id: int, ms: int, price: str = "5.0", size: str = "1", execution: str = "MARKET") -> str:
    at = T0 // MS + ms
    data = {"e": "trade", "E": at, "T": at, "s": "ABCUSDT", "t": id, "p": price, "q": size, "X": execution, "m": False}
    return json.dumps({"stream": "abcusdt@trade", "data": data}, separators=(",", ":"))


TICKER = '{"stream":"abcusdt@bookTicker","data":{"u":9,"s":"ABCUSDT","b":"1","B":"1","a":"2","A":"1"}}'


def recorded(path: Path, frames: Iterable[tuple[int, str]]) -> Path:
    """A file of recorder lines; (ms after the start, frame)."""
    path.write_text("".join(f"{T0 + ms * MS} {frame}\n" for ms, frame in frames))
    return path


async def run(*files: Path, speed: float | None = None, **more: object) -> tuple[ReplaySource, list[Event]]:
    source = ReplaySource(files, speed=speed, **more)  # type: ignore[arg-type]
    return source, [event async for event in source.events()]


def batches(events: list[Event], instrument: str | None = None) -> list[TradeBatch]:
    found = [event for event in events if isinstance(event, TradeBatch)]
    return [batch for batch in found if instrument in (None, batch.instrument)]


def ids(events: list[Event], instrument: str | None = None) -> list[int]:
    return [id for batch in batches(events, instrument) for id in batch.trade_id.tolist()]


def accounted(source: ReplaySource) -> bool:
    return source.lines == source.trades + source.others.total() + source.rejects.total()


async def test_recorder_lines_become_batches_with_their_clock(tmp_path: Path) -> None:
    path = recorded(tmp_path / "spot.txt", [(0, trade(7, 900)), (10, TICKER), (20, trade(8, 950, price="1.5"))])
    source, events = await run(path)
    assert events[0] == Instrument(id="binance:ABCUSDT", venue="binance", symbol="ABCUSDT")
    (batch,) = batches(events)
    assert (batch.trade_id.tolist(), batch.price.tolist(), batch.size.tolist()) == (
        [7, 8],
        [125_000_000, 150_000_000],
        [200_000_000] * 2,
    )
    assert batch.ts_event.tolist() == [T0 + 900 * MS, T0 + 950 * MS]  # ahead of the receive time: legal
    assert batch.ts_recv.tolist() == [T0, T0 + 20 * MS]
    assert (batch.side.tolist(), batch.clock, batch.source) == ([-1, -1], T0 + 20 * MS, "replay")
    assert (source.lines, source.trades, source.others) == (3, 2, {"bookTicker": 1})
    assert source.bytes_read == source.bytes_total == path.stat().st_size
    assert source.clock.now() == T0 + 20 * MS


@pytest.mark.parametrize(
    "store", [lambda d: d, gzip.compress, zstandard.ZstdCompressor().compress], ids=["plain", "gz", "zst"]
)
async def test_files_are_read_however_they_are_stored(tmp_path: Path, store: object) -> None:
    path = recorded(tmp_path / "spot", [(n, trade(n + 1, n)) for n in range(3000)])
    path.write_bytes(store(path.read_bytes()))  # type: ignore[operator]
    _, events = await run(path)
    assert ids(events) == list(range(1, 3001))


@pytest.mark.parametrize("block", [200, 4 << 20])
async def test_a_trade_far_ahead_of_its_receive_time_is_refused_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """The clock of the block it came in must not decide: candles would depend on the block's size."""
    monkeypatch.setattr(replay, "BLOCK", block)
    frames = [(minute * 60_000, trade(minute + 1, minute * 60_000)) for minute in range(60)]
    frames.insert(10, (10 * 60_000, trade(900, 30 * 60_000, price="999")))
    frames.insert(11, (10 * 60_000, trade(901, 30 * 60_000, symbol="ONLYBAD")))
    source, events = await run(recorded(tmp_path / "spot", frames))
    assert ids(events) == list(range(1, 61))
    assert [event.id for event in events if isinstance(event, Instrument)] == ["binance:ABCUSDT"]
    assert source.rejects == {"bad_time": 2} and accounted(source)


async def test_frames_that_are_no_trades_move_the_clock(tmp_path: Path) -> None:
    path = recorded(tmp_path / "spot", [(0, trade(1, 0)), (60_000, TICKER)])
    _, events = await run(path)
    assert batches(events)[-1].clock == T0 + 60 * SECOND


@pytest.mark.parametrize(
    ("name", "frame", "venue"),
    [
        ("spot_x.gz", trade(1, 0), "binance:ABCUSDT"),
        ("binance-spot_x", trade(1, 0), "binance:ABCUSDT"),
        ("sim-spot_abcusdt_20231114T221320Z.zst", trade(1, 0), "sim:ABCUSDT"),
        ("usdm_x", futures(1, 0), "binance-usdm:ABCUSDT"),
        ("x_um_2024", futures(1, 0), "binance-usdm:ABCUSDT"),
        ("cm_x", futures(1, 0), "binance-coinm:ABCUSDT"),
        ("plain.txt", trade(1, 0), "binance:ABCUSDT"),
        ("plain.txt", futures(1, 0), "binance-usdm:ABCUSDT"),
        ("plain.txt", futures(1, 0).replace("ABCUSDT", "ABCUSD_PERP"), "binance-coinm:ABCUSD_PERP"),
    ],
)
async def test_the_market_comes_from_the_name_else_from_the_frames(
    tmp_path: Path, name: str, frame: str, venue: str
) -> None:
    _, events = await run(recorded(tmp_path / name, [(0, frame)]))
    assert batches(events)[0].instrument == venue


async def test_a_venue_nobody_knows_is_refused_until_it_is_named(tmp_path: Path) -> None:
    path = recorded(tmp_path / "testnet-spot_abcusdt", [(0, trade(1, 0))])
    with pytest.raises(BadPayload, match=r"'testnet'.*--venue .*\|sim"):
        await run(path)
    _, events = await run(path, venue="sim")
    assert batches(events)[0].instrument == "sim:ABCUSDT"


async def test_an_option_decides_the_market(tmp_path: Path) -> None:
    path = recorded(tmp_path / "usdm_x", [(0, futures(1, 0))])
    _, events = await run(path, venue="binance-coinm")
    assert batches(events)[0].instrument == "binance-coinm:ABCUSDT"


@pytest.mark.parametrize(
    ("name", "frame", "option"),
    [
        ("spot_x", futures(1, 0), None),
        ("usdm_x", trade(1, 0), None),
        ("x", futures(1, 0), "binance"),
        ("cm_x", trade(1, 0), None),
        ("sim-spot_x", futures(1, 0), None),
        ("usdm_x", '{"stream":"a@depth","data":{"e":"depthUpdate","pu":1,"ps":"ABCUSD"}}', None),
    ],
)
async def test_frames_of_another_market_are_refused(tmp_path: Path, name: str, frame: str, option: str | None) -> None:
    with pytest.raises(BadPayload, match="correct --venue"):
        await run(recorded(tmp_path / name, [(0, frame)]), venue=option)


async def test_a_market_that_cannot_be_told_must_be_named(tmp_path: Path) -> None:
    path = recorded(tmp_path / "x", [(0, TICKER)])
    with pytest.raises(BadPayload, match=r"--venue binance\|binance-usdm\|binance-coinm"):
        await run(path)
    source, events = await run(path, venue="binance")
    assert (events, source.others) == ([], {"bookTicker": 1})


async def test_an_id_without_execution_is_covered_but_no_trade(tmp_path: Path) -> None:
    path = recorded(tmp_path / "usdm", [(0, futures(1, 0)), (1, futures(2, 1, "0", "0", "")), (2, futures(3, 2))])
    source, events = await run(path)
    assert ids(events) == [1, 3]
    assert batches(events)[0].covers == ((2, 2),)
    assert source.others == {"void": 1}
    assert accounted(source)


async def test_the_first_granularity_of_a_symbol_is_kept(tmp_path: Path) -> None:
    frames = [
        (0, aggregate(5, 10, 12, 0)),
        (1, trade(12, 0)),
        (2, aggregate(6, 13, 13, 1)),
        (3, trade(1, 0, "XYZUSDT")),
    ]
    source, events = await run(recorded(tmp_path / "spot", frames))
    (batch,) = batches(events, "binance:ABCUSDT")[:1]
    assert (batch.trade_id.tolist(), batch.first_id.tolist(), batch.count.tolist()) == ([12, 13], [10, 13], [3, 1])
    assert source.others == {"granularity": 1}
    assert accounted(source)
    kinds = {event.symbol: event.granularity for event in events if isinstance(event, Instrument)}
    assert kinds == {"ABCUSDT": "agg", "XYZUSDT": "raw"}


async def test_malformed_lines_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "spot", [(0, trade(1, 0)), (1, '{"stream":"a@trade","data":{'), (2, trade(2, 1, price="x"))]
    )
    with path.open("a") as file:
        file.write(f"no stamp\n\n{T0} {trade(3, 3)}\n")
    source, events = await run(path)
    assert ids(events) == [1, 3]
    assert source.rejects.total() == 3
    assert source.others == {"blank": 1}
    assert accounted(source)


async def test_one_absurd_receive_time_moves_no_clock(tmp_path: Path) -> None:
    path = recorded(tmp_path / "spot", [(0, trade(1, 0)), (10**9, trade(2, 1)), (2, trade(3, 2))])
    _, events = await run(path)
    assert ids(events) == [1, 2, 3]
    assert max(batch.clock for batch in batches(events)) == T0 + 2 * MS


def capture(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


async def test_capture_lines_are_all_accounted_for(tmp_path: Path) -> None:
    path = capture(
        tmp_path / "session.ws",
        "wss://stream.binance.com:9443/stream?streams=abcusdt@trade <-> 1700000000.5",
        'wss://stream.binance.com:9443/stream <- 1700000000.6: {"method":"SUBSCRIBE"}',
        f"1700000001.1234567: {trade(1, 1100)}",
        f"1700000001.2: {TICKER}",
        "https://api.binance.com/api/v3/depth?symbol=ABCUSDT -> 1700000001.3: {}",
        'configuration: {"trades":["ABC-USDT"]}',
        "",
        "neither this nor that",
        f"1700000002: {trade(2, 2000)}",
        "",
    )
    source, events = await run(path)
    assert ids(events) == [1, 2]
    assert np.concatenate([b.ts_recv for b in batches(events)]).tolist() == [
        1_700_000_001_123_456_700,  # more digits than a float of seconds holds
        1_700_000_002_000_000_000,
    ]
    others = {"connect": 1, "sent": 1, "http": 1, "configuration": 1, "blank": 2, "bookTicker": 1}
    assert (source.others, source.rejects) == (others, {"malformed": 1})
    assert source.lines == 10
    assert accounted(source)


@pytest.mark.parametrize(
    ("url", "frame", "instrument"),
    [
        ("wss://stream.binance.com:9443/ws", trade(1, 0), "binance:ABCUSDT"),
        ("wss://fstream.binance.com/stream", aggregate(1, 1, 1, 0), "binance-usdm:ABCUSDT"),
        ("wss://dstream.binance.com/stream", aggregate(1, 1, 1, 0), "binance-coinm:ABCUSDT"),
    ],
)
async def test_the_market_of_a_capture_comes_from_its_url(
    tmp_path: Path, url: str, frame: str, instrument: str
) -> None:
    frame = frame.replace(',"M":true', "") if "stream.binance" not in url else frame
    path = capture(tmp_path / "x", f"{url} <-> 1700000000.1", f"1700000000.2: {frame}")
    _, events = await run(path)
    assert batches(events)[0].instrument == instrument


async def test_frames_of_an_unknown_venue_are_counted_by_type(tmp_path: Path) -> None:
    path = capture(
        tmp_path / "other",
        "wss://ws.example.org <-> 1700000000.1",
        '1700000000.2: {"type":"match","price":"1"}',
        '1700000000.3: {"event":"heartbeat"}',
        '1700000000.4: [5,{"a":[]},{"b":[]},"book-1000","A/B"]',
        "1700000000.5: [1]",
        "1700000000.6: {nonsense",
    )
    source, events = await run(path)
    assert events == []
    names = ("match", "heartbeat", "book-1000", "other", "malformed")
    assert source.others == {"connect": 1} | {f"unknown venue frame: {name}": 1 for name in names}
    assert accounted(source)


@pytest.mark.parametrize("content", ["", "\n\n", "hello\n", "123 {}\n", '{"a":1}\n', "PK\x03\x04"])
async def test_files_of_no_known_format_are_refused_before_any_event(tmp_path: Path, content: str) -> None:
    path = tmp_path / "spot"
    path.write_text(content)
    good = recorded(tmp_path / "spot2", [(0, trade(1, 0))])
    source = ReplaySource([good, path], speed=None)
    with pytest.raises(BadPayload, match=str(path)):
        await anext(source.events())


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPayload, match="absent: No such file"):
        await run(tmp_path / "absent")


async def test_files_follow_one_another_by_receive_time_whatever_their_order(tmp_path: Path) -> None:
    first = recorded(tmp_path / "spot_b", [(n, trade(n, n)) for n in range(1, 50)])
    second = recorded(tmp_path / "spot_a", [(n, trade(n, n)) for n in range(50, 90)])
    for files in ((first, second), (second, first)):
        _, events = await run(*files)
        assert ids(events) == list(range(1, 90))
    assert sum(isinstance(event, Instrument) for event in events) == 1


async def test_overlapping_files_are_merged_trade_by_trade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BLOCK", 700)  # many small parts
    odd = recorded(tmp_path / "spot_1", [(n, trade(n, n)) for n in range(1, 300, 2)])
    even = recorded(tmp_path / "spot_2", [(n, trade(n, n)) for n in range(100, 400, 2)])
    other = recorded(tmp_path / "usdm", [(n, futures(n, n)) for n in range(150, 250)])
    source, events = await run(other, even, odd)
    spot = ids(events, "binance:ABCUSDT")
    assert spot == sorted(spot)
    assert len(spot) == 300
    assert ids(events, "binance-usdm:ABCUSDT") == list(range(150, 250))
    assert accounted(source)
    clocks = [batch.clock for batch in batches(events)]
    assert clocks == sorted(clocks)
    assert all((batch.ts_recv <= batch.clock).all() for batch in batches(events))


async def test_batches_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "LARGEST", 10)
    _, events = await run(recorded(tmp_path / "spot", [(n, trade(n, n)) for n in range(1, 36)]))
    assert [len(batch) for batch in batches(events)] == [10, 10, 10, 5]
    assert [batch.clock for batch in batches(events)] == [T0 + ms * MS for ms in (10, 20, 30, 35)]


async def test_a_cut_last_line_is_named_after_everything_before_it(tmp_path: Path) -> None:
    path = recorded(tmp_path / "spot", [(n, trade(n, n)) for n in range(1, 5)])
    path.write_text(path.read_text()[:-20])
    source = ReplaySource([path], speed=None)
    events: list[Event] = []
    with pytest.raises(BadPayload, match=f"{path}:4: the last line is cut short"):
        async for event in source.events():
            events.append(event)  # noqa: PERF401 (keeps what came before the error)
    assert ids(events) == [1, 2, 3]
    assert source.rejects == {"truncated": 1}
    assert accounted(source)


async def test_a_last_line_without_a_newline_counts_if_it_is_whole(tmp_path: Path) -> None:
    path = recorded(tmp_path / "spot", [(n, trade(n, n)) for n in range(1, 5)])
    path.write_text(path.read_text()[:-1])
    source, events = await run(path)
    assert ids(events) == [1, 2, 3, 4]
    assert accounted(source)


async def test_damaged_gzip_gives_what_lies_before_and_other_files_go_on(tmp_path: Path) -> None:
    path = recorded(tmp_path / "spot_1", [(n, trade(n, n)) for n in range(1, 2000)])
    path.write_bytes(gzip.compress(path.read_bytes())[:-200])
    later = recorded(tmp_path / "spot_2", [(n, trade(n, n)) for n in range(5000, 5010)])
    source = ReplaySource([path, later], speed=None)
    events: list[Event] = []
    with pytest.raises(BadPayload, match=rf"{path}:\d+: gzip data cut short"):
        async for event in source.events():
            events.append(event)  # noqa: PERF401 (keeps what came before the error)
    found = ids(events)
    kept = len(found) - 10
    assert found == [*range(1, kept + 1), *range(5000, 5010)]
    assert kept > 1000
    assert accounted(source)


class StepClock(RecordedClock):
    """A recorded clock that waits for nobody and notes where it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: list[int] = []

    async def reach(self, t: int) -> None:
        self.reached.append(t)
        await super().reach(t)


async def test_paced_trades_come_when_the_recorded_clock_has_reached_them(tmp_path: Path) -> None:
    clock = StepClock()
    path = recorded(tmp_path / "spot", [(0, trade(1, 0)), (504, trade(2, 504)), (506, trade(3, 506)), (4000, TICKER)])
    source = ReplaySource([path], speed=1.0, clock=clock)
    seen = [(clock.now(), event) async for event in source.events() if isinstance(event, TradeBatch)]
    trades = [(now - T0, batch.trade_id.tolist()) for now, batch in seen if len(batch)]
    assert trades == [(10 * MS, [1]), (510 * MS, [2, 3])]
    assert all(now == batch.clock for now, batch in seen)
    ticks = [(batch.clock - T0) / SECOND for _, batch in seen if not len(batch)]
    assert ticks == [1.51, 2.51, 3.51, 4.0]  # at least one each recorded second, and at the end
    assert clock.reached[0] == T0


async def test_fast_pacing_takes_larger_steps(tmp_path: Path) -> None:
    clock = StepClock()
    path = recorded(tmp_path / "spot", [(n * 100, trade(n, n * 100)) for n in range(1, 100)])
    _, events = await run(path, speed=50.0, clock=clock)
    assert ids(events) == list(range(1, 100))
    assert len(clock.reached) < 30


async def test_stopping_early_releases_the_files(tmp_path: Path) -> None:
    path = recorded(tmp_path / "spot", [(n, trade(n, n)) for n in range(1, 20_000)])
    source = ReplaySource([path], speed=None)
    events = source.events()
    assert isinstance(await anext(events), Instrument)
    await events.aclose()  # type: ignore[attr-defined]


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to replay"):
        ReplaySource([])
    for speed in (0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="not positive"):
            ReplaySource([tmp_path], speed=speed)
