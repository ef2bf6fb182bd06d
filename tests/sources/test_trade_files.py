"""Importing invented trade files: every format, every trap."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tapewick.decimals import parse_mantissa
from tapewick.errors import BadPayload, ConfigError
from tapewick.model import Event, Instrument, TradeBatch
from tapewick.sources import _trade_csv, _trade_json
from tapewick.sources.trade_files import TradeFileSource

T0 = 1_700_000_000_000  # ms
RECORDED = (
    "TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,TradeId,Price,Quantity,IsBuyerMarketMaker"
)


def stored(tmp_path: Path, text: str, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


async def run(*files: Path, format: str, instrument: str = "binance:ABCUSDT") -> tuple[TradeFileSource, list[Event]]:
    source = TradeFileSource(files, format=format, instrument=instrument)
    events = [event async for event in source.events()]
    assert source.lines == source.trades + source.others.total() + source.rejects.total()
    assert source.bytes_read == source.bytes_total
    return source, events


def column(events: list[Event], name: str) -> list[int]:
    found = [getattr(event, name) for event in events if isinstance(event, TradeBatch)]
    return np.concatenate(found).tolist() if found else []


def recorded(*rows: str, last: str = "MUnknownParameter") -> str:
    return "\n".join((f"{RECORDED},{last}", *rows)) + "\n"


def row(id: int, price: str = "1.5", size: str = "2", time: int = T0, maker: str = "1", last: str = "True") -> str:
    return f"{time + 3},abcusdt@trade,trade,{time + 1},{time},ABCUSDT,{id},{price},{size},{maker},{last}"


async def test_recorded_csv(tmp_path: Path) -> None:
    text = "# a note\n" + recorded(row(7), "", row(8, "0.25", "1000.125", T0 + 5, "0"), "# another")
    source, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert events[0] == Instrument(id="binance:ABCUSDT", venue="binance", symbol="ABCUSDT")
    assert column(events, "trade_id") == column(events, "first_id") == [7, 8]
    assert column(events, "price") == [150_000_000, 25_000_000]
    assert column(events, "size") == [200_000_000, 100_012_500_000]
    assert column(events, "ts_event") == [T0 * 10**6, (T0 + 5) * 10**6]
    assert column(events, "ts_recv") == [(T0 + 3) * 10**6, (T0 + 8) * 10**6]
    assert column(events, "side") == [-1, 1]
    assert source.others == {"header": 1, "comment": 2, "blank": 1}
    assert all(event.clock == 0 for event in events if isinstance(event, TradeBatch))


@pytest.mark.parametrize(("factor", "unit"), [(1, "ms"), (1000, "µs"), (1_000_000, "ns")])
async def test_the_unit_of_time_is_detected_per_file(tmp_path: Path, factor: int, unit: str) -> None:
    text = recorded(*(row(n, time=(T0 + n) * factor) for n in range(1, 4)))
    _, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert column(events, "ts_event") == [(T0 + n) * 10**6 for n in range(1, 4)], unit


async def test_two_files_of_different_units_make_one_tape(tmp_path: Path) -> None:
    old = stored(tmp_path, recorded(row(1)), "old")
    new = stored(tmp_path, recorded(row(2, time=(T0 + 1) * 1000)), "new")
    _, events = await run(old, new, format="binance-trades-csv")
    assert column(events, "ts_event") == [T0 * 10**6, (T0 + 1) * 10**6]
    assert sum(isinstance(event, Instrument) for event in events) == 1


async def test_an_id_without_execution_is_covered_but_no_trade(tmp_path: Path) -> None:
    rows = row(1, last="MARKET"), row(2, "0.0", "0.0", last=""), row(3, last="MARKET"), row(4, "0", "0", last="MARKET")
    text = recorded(*rows, last="XUnknownParameter")
    source, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert column(events, "trade_id") == [1, 3, 4]  # 4 claims to be a trade: the engine refuses it, with its reason
    assert [event.covers for event in events if isinstance(event, TradeBatch)] == [((2, 2),)]
    assert source.others["void"] == 1


@pytest.mark.parametrize(
    "text",
    [
        f"5,1.5,2,3.0,{T0},True,True\n6,1.6,2,3.2,{T0},False,True\n",
        f"5,1.5,2,3.0,{T0},true\r\n6,1.6,2,3.2,{T0},false\r\n",
        f"id,price,qty,quote_qty,time,is_buyer_maker\n5,1.5,2,3.0,{T0},true\n6,1.6,2,3.2,{T0},false",
        f"id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch\n5,1.5,2,3.0,{T0},True,True\n6,1.6,2,3.2,{T0},False,True\n",
    ],
    ids=["spot archive", "futures archive without header", "futures archive", "with header"],
)
async def test_the_archive_forms(tmp_path: Path, text: str) -> None:
    _, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert column(events, "trade_id") == [5, 6]
    assert column(events, "price") == [150_000_000, 160_000_000]
    assert column(events, "size") == [200_000_000] * 2
    assert column(events, "ts_event") == column(events, "ts_recv") == [T0 * 10**6] * 2
    assert column(events, "side") == [-1, 1]


@pytest.mark.parametrize(
    "first",
    ["time,open,high,low,close", f"5,1.5,2,3.0,True,{T0}", '{"result":{}}'],
)
async def test_columns_are_never_guessed(tmp_path: Path, first: str) -> None:
    with pytest.raises(BadPayload, match=r"file:1: .*expected a header naming TradeId"):
        await run(stored(tmp_path, first + "\n"), format="binance-trades-csv")


async def test_rows_that_cannot_be_parsed_are_counted_with_their_place(tmp_path: Path) -> None:
    bad = [
        row(1).replace("ABCUSDT", "XYZUSDT"), row(2).replace(",trade,", ",kline,"), row(3).replace(",3,", ",x3,"),
        row(4, "abc"), row(5, "1e400"), row(6, size="NaN"), row(7, size=""), row(8, time=T0 * 1000), row(9, maker="?"),
        row(10) + ",more", "junk", row(11, "1.2.3"), row(12, "9" * 30),
    ]  # fmt: skip
    text = recorded(row(100), *bad, row(101))
    source, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert column(events, "trade_id") == [100, 101]
    assert source.rejects == {
        "other symbol": 1, "other event": 1, "id": 1, "price": 4, "size": 2, "time": 1, "side": 1, "fields": 2,
    }  # fmt: skip
    assert f"{tmp_path}/file:3: other symbol" in source.examples
    assert f"{tmp_path}/file:6: price" in source.examples


TEXTS = [
    "0.00000001", "92233720368.54775807", "1", "1.", "0.1", "123456789.12345678", "1e-8", "1E+1", "8e-8", "00012.50",
    "10.0000000000", "+3.5", "0.10000000",
]  # fmt: skip


async def test_decimals_are_exact_however_they_are_written(tmp_path: Path) -> None:
    text = recorded(*(row(n, value, value) for n, value in enumerate(TEXTS, 1)))
    _, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    batch = events[1]
    assert isinstance(batch, TradeBatch)
    expected = [parse_mantissa(value, batch.price_scale) for value in TEXTS]
    assert batch.price.tolist() == batch.size.tolist() == expected
    assert batch.price_scale == 8  # the largest value needs all of int64 at this scale


async def test_more_digits_widen_the_scale(tmp_path: Path) -> None:
    text = recorded(row(1, "0.1234567891"), row(2, "1"))
    _, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert isinstance(events[0], Instrument)
    assert (events[0].price_scale, events[0].size_scale) == (10, 8)
    assert column(events, "price") == [1_234_567_891, 10**10]


async def test_large_sizes_take_a_scale_with_head_room(tmp_path: Path) -> None:
    text = recorded(row(1, size="250000000000.5"), row(2, size="1"))
    _, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert isinstance(events[0], Instrument)
    assert events[0].size_scale == 4
    assert column(events, "size") == [2_500_000_000_005_000, 10_000]


async def test_scales_never_shrink_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trade_csv, "_BLOCK", 400)
    text = recorded(*(row(n) for n in range(20)), row(50, "0.12345678912"), *(row(n) for n in range(100, 120)))
    _, events = await run(stored(tmp_path, text), format="binance-trades-csv")
    scales = [event.price_scale for event in events if isinstance(event, TradeBatch)]
    assert len(scales) > 3
    assert scales == sorted(scales)
    assert {scales[0], scales[-1]} == {8, 11}
    values = {
        id: price * 10 ** (11 - event.price_scale)
        for event in events
        if isinstance(event, TradeBatch)
        for id, price in zip(event.trade_id.tolist(), event.price.tolist(), strict=True)
    }
    assert values[50] == 12_345_678_912
    assert values[0] == values[119] == 150_000_000_000


async def test_lines_are_numbered_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trade_csv, "_BLOCK", 300)
    text = recorded(*(row(n) for n in range(30)), row(31, "bad"))
    source, _ = await run(stored(tmp_path, text), format="binance-trades-csv")
    assert source.examples == [f"{tmp_path}/file:32: price"]


async def test_a_damaged_file_gives_what_lies_before_and_the_next_goes_on(tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(gzip.compress(recorded(*(row(n) for n in range(5000))).encode())[:-300])
    good = stored(tmp_path, recorded(row(9001)), "good")
    source = TradeFileSource([cut, good], format="binance-trades-csv", instrument="binance:ABCUSDT")
    events: list[Event] = []
    with pytest.raises(BadPayload, match=rf"{cut}:\d+: gzip data cut short"):
        async for event in source.events():
            events.append(event)  # noqa: PERF401 (keeps what came before the error)
    found = column(events, "trade_id")
    assert found == [*range(len(found) - 1), 9001]
    assert len(found) > 3000


def kraken(*rows: object, pair: str = "ABCUSD", **more: object) -> str:
    return json.dumps({"error": [], "result": {pair: rows, "last": "1700000000999999999"}, **more})


async def test_kraken_trades(tmp_path: Path) -> None:
    text = kraken("ROWS").replace(
        '"ROWS"',
        '["105.10000","0.00050000",1700000000.1234567,"b","l","",41],["105.2","1",1700000001,"s","m","",42],'
        '["1","1",1700000002.123456789,"b","l","",43],["1","x",1700000003.5,"b","l","",44],["short"]',
    )
    source, events = await run(stored(tmp_path, text), format="kraken-trades", instrument="kraken:ABCUSD")
    assert column(events, "trade_id") == [41, 42, 43]
    assert column(events, "ts_event") == [  # exact: a float of these seconds is off by up to 119 ns
        1_700_000_000_123_456_700, 1_700_000_001_000_000_000, 1_700_000_002_123_456_789,
    ]  # fmt: skip
    assert column(events, "price")[0] == 10_510_000_000
    assert column(events, "size")[0] == 50_000
    assert column(events, "side") == [1, -1, 1]
    assert source.rejects == {"number": 1, "fields": 1}
    assert source.examples == [f"{tmp_path}/file:1 row 4: number", f"{tmp_path}/file:1 row 5: fields"]


async def test_kraken_answers_that_hold_no_trades(tmp_path: Path) -> None:
    for text, message in (
        ('{"error":["EGeneral:Too many requests"]}', "Too many requests"),
        ('{"error":[],"result":{"A":[],"B":[]}}', "no trades of ABCUSD; it holds A, B"),
        ("[1,2]", "expected"),
        ("", "is empty"),
    ):
        with pytest.raises(BadPayload, match=message):
            await run(stored(tmp_path, text), format="kraken-trades", instrument="kraken:ABCUSD")


def aggregate(id: int, first: int, last: int, **more: object) -> dict[str, object]:
    return {"a": id, "p": "0.5", "q": "4", "f": first, "l": last, "T": T0 + id, "m": True, "M": True, **more}


WRAPPED = [{"info": aggregate(n, 2 * n, 2 * n + 1), "price": 0.5, "symbol": "ABC/USDT"} for n in range(3)]
BARE = [aggregate(n, 2 * n, 2 * n + 1) for n in range(3)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WRAPPED), json.dumps(BARE), json.dumps(BARE, indent=1), "\n".join(map(json.dumps, BARE)),
        json.dumps(BARE[:2]) + "\n" + json.dumps(BARE[2:]) + "\n",
    ],
    ids=["wrapped", "array", "indented", "lines", "arrays on lines"],
)  # fmt: skip
async def test_aggregates_cover_their_trade_ids(tmp_path: Path, text: str) -> None:
    _, events = await run(stored(tmp_path, text), format="binance-aggtrades-json")
    assert isinstance(events[0], Instrument)
    assert events[0].granularity == "agg"
    assert column(events, "first_id") == [0, 2, 4]
    assert column(events, "trade_id") == [1, 3, 5]
    assert column(events, "count") == [2, 2, 2]
    assert column(events, "ts_event") == [(T0 + n) * 10**6 for n in range(3)]
    assert column(events, "side") == [-1] * 3


async def test_odd_aggregates_are_counted(tmp_path: Path) -> None:
    rows = [
        aggregate(1, 1, 2), aggregate(2, 5, 4), aggregate(3, 6, 7, T=5), aggregate(4, 8, 8, p="no"), {"a": 5}, 7,
        aggregate(6, 9, 9, p=1.5), aggregate(7, 10, 10, q="1e30"),
    ]  # fmt: skip
    source, events = await run(stored(tmp_path, json.dumps(rows)), format="binance-aggtrades-json")
    assert source.rejects == {"id": 1, "time": 1, "number": 1, "fields": 3, "overflow": 1}
    assert column(events, "trade_id") == [2]


async def test_json_is_taken_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trade_json, "_ROWS", 2)
    _, events = await run(stored(tmp_path, json.dumps(BARE)), format="binance-aggtrades-json")
    assert [len(event) for event in events if isinstance(event, TradeBatch)] == [2, 1]


def test_settings_are_checked(tmp_path: Path) -> None:
    for files, format, instrument, message in (
        ([tmp_path], "csv", "a:B", "unknown trade file format 'csv'"),
        ([], "kraken-trades", "a:B", "nothing to import"),
        ([tmp_path], "kraken-trades", "B", "is no instrument"),
    ):
        with pytest.raises(ConfigError, match=message):
            TradeFileSource(files, format=format, instrument=instrument)
