"""Recorded markets through the command line: exact tapes and candles, whatever the order."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.realdata.brute import fold_minutes, recorded_trades, text
from tests.realdata.reading import candles, replay, rows, stored_candles, tapewick, values

pytestmark = pytest.mark.realdata

BTC = "binance:BTCUSDT"


@pytest.fixture(scope="module")
def spot(testdata: Path) -> list[Path]:
    return [testdata / "binance-ws-2024-08" / f"spot_btcusdt_2024080{day}.gz" for day in (8, 9)]


@pytest.fixture(scope="module")
def stored(spot: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("spot") / "D"
    replay(data, *spot)
    return data


def test_every_trade_is_on_the_tape_once(stored: Path) -> None:
    trades = rows(tapewick("trades", BTC, "--data", stored, "--limit", "0", "--json"))
    assert len(trades) == 19_904
    assert [t["seq"] for t in trades] == list(range(1, 19_905))
    assert [t["trade_id"] for t in trades] == list(range(3_735_683_259, 3_735_703_163))
    (coverage,) = rows(tapewick("coverage", BTC, "--data", stored, "--json"))
    assert coverage["trades"] == 19_904
    assert coverage["ranges"] == [[3_735_683_259, 3_735_703_162]]
    assert coverage["gaps"] == []


def test_midnight_falls_between_the_right_trades(stored: Path) -> None:
    midnight = 1_723_161_600_000
    trades = rows(tapewick("trades", BTC, "--data", stored, "--limit", "0", "--json"))
    assert [t["price"] for t in trades if t["ts_event"] < midnight][-1] == "61685.99"
    assert next(t["price"] for t in trades if t["ts_event"] >= midnight) == "61686"
    days = rows(candles(stored, BTC, "1d"))
    assert (days[0]["close"], days[1]["open"]) == ("61685.99", "61686")


def test_minutes_equal_an_independent_fold(stored: Path, spot: list[Path]) -> None:
    expected = fold_minutes(recorded_trades(spot))
    got = rows(candles(stored, BTC, "1m"))
    assert [{k: row[k] for k in expected[0]} for row in got] == expected
    whole = [row for row in got if 3_735_684_134 <= row["first_id"] <= 3_735_701_449]
    assert len(whole) == 10 and all(row["complete"] for row in whole)
    edge = next(row for row in got if row["open_time"] == 1_723_161_540_000)
    assert (edge["volume"], edge["quote_volume"], edge["trades"]) == ("32.41946", "2000509.286525", 1312)
    assert (edge["taker_buy_volume"], edge["taker_buy_quote_volume"]) == ("9.47796", "584848.4530402")


def test_the_command_line_prints_what_is_stored(stored: Path) -> None:
    read = stored_candles(stored, BTC)
    for tf in ("1m", "1M"):
        assert candles(stored, BTC, tf) == read[tf]


def test_the_same_files_again_change_no_byte(stored: Path, spot: list[Path]) -> None:
    before = stored_candles(stored, BTC)
    for again in (spot, spot[::-1], spot * 2):
        replay(stored, *again)
        assert stored_candles(stored, BTC) == before


def test_another_order_into_another_folder_gives_the_same_values(
    stored: Path, spot: list[Path], tmp_path: Path
) -> None:
    for file in spot[::-1]:  # one command each: the later file first
        replay(tmp_path / "D", file)
    assert values(stored_candles(tmp_path / "D", BTC)) == values(stored_candles(stored, BTC))


def test_three_markets_interleaved_do_not_touch_each_other(
    stored: Path, spot: list[Path], testdata: Path, tmp_path: Path
) -> None:
    folder = testdata / "binance-ws-2024-08"
    others = [
        folder / f"{name}.gz"
        for name in ("usdm_btcusdt_20240808", "cm_btcusd_perp_20240808", "cm_btcusd_perp_20240809")
    ]
    replay(tmp_path / "D", others[0], spot[1], others[2], spot[0], others[1])
    assert values(stored_candles(tmp_path / "D", BTC)) == values(stored_candles(stored, BTC))
    for id, first, last in (
        ("binance-usdm:BTCUSDT", 5_266_583_935, 5_266_605_247),
        ("binance-coinm:BTCUSD_PERP", 849_714_402, 849_719_636),
    ):
        (coverage,) = rows(tapewick("coverage", id, "--data", tmp_path / "D", "--json"))
        assert (coverage["ranges"], coverage["gaps"]) == ([[first, last]], [])
    expected = fold_minutes(recorded_trades(others[:1]))
    got = rows(candles(tmp_path / "D", "binance-usdm:BTCUSDT", "1m"))
    assert [{k: row[k] for k in expected[0]} for row in got] == expected


@pytest.mark.parametrize(("name", "venue"), [("BINANCE.ws.1.0", "binance"), ("BINANCE_FUTURES.ws.1.0", "binance-usdm")])
def test_every_aggregate_of_other_captures_is_on_its_tape(
    name: str, venue: str, testdata: Path, tmp_path: Path
) -> None:
    capture = testdata / "ws-captures" / f"{name}.gz"
    replay(tmp_path / "D", capture)
    expected: dict[str, list[dict[str, Any]]] = {}
    with gzip.open(capture, "rt") as lines:
        frames = [json.loads(line.partition(": ")[2]) for line in lines if '"e":"aggTrade"' in line]
    for d in (frame["data"] for frame in frames):
        row = {"trade_id": d["l"], "first_id": d["f"], "count": d["l"] - d["f"] + 1, "ts_event": d["T"]}
        row |= {"price": text(Decimal(d["p"])), "size": text(Decimal(d["q"])), "side": "sell" if d["m"] else "buy"}
        expected.setdefault(f"{venue}:{d['s']}", []).append(row)
    assert len(expected) >= 2
    for id, trades in expected.items():
        told = rows(tapewick("trades", id, "--data", tmp_path / "D", "--limit", "0", "--json"))
        whole = [{"first_id": row["trade_id"], "count": 1, **row} for row in told]
        assert [{name: row[name] for name in trades[0]} for row in whole] == trades, id


@pytest.mark.parametrize("name", ["COINBASE.ws.28.0", "KRAKEN.ws.48.0"])
def test_captures_of_venues_that_are_not_read_put_nothing_on_a_tape(name: str, testdata: Path, tmp_path: Path) -> None:
    (told,) = rows(tapewick("replay", testdata / "ws-captures" / f"{name}.gz", "--data", tmp_path / "D", "--json"))
    assert (told["trades"], told["duplicates"], told["rejects"], told["gaps"]) == (0, 0, {}, 0)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_both_engines_store_the_same_bytes(engine: str, stored: Path, spot: list[Path], tmp_path: Path) -> None:
    replay(tmp_path / "D", *spot, TAPEWICK_ENGINE=engine)
    assert values(stored_candles(tmp_path / "D", BTC)) == values(stored_candles(stored, BTC))
