"""Names, positions, and the seam between history and live data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tapewick.channel import HELD_BYTES, Channel, Seam, Since, parse_position, rest_of, span
from tapewick.errors import BadRequest, UnknownTimeframe
from tapewick.model import CANDLE, CandleBatch, TradeBatch
from tests.gateways.rig import batch


def trades(first: int, count: int) -> TradeBatch:
    made = batch(first, count)
    return replace(made, seq=made.trade_id)


def candles(*pos: int) -> CandleBatch:
    rows = np.zeros(len(pos), CANDLE)
    rows["pos"] = pos
    return CandleBatch(instrument="sim:X", rows=rows, price_scale=0, size_scale=0)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("trade@binance:BTCUSDT", "trade@binance:BTCUSDT"),
        ("candle@chainlink:ETH/USD@1H", "candle@chainlink:ETH/USD@1h"),
        ("candle@binance:BTCUSDT@1M", "candle@binance:BTCUSDT@1M"),
        ("book@binance:BTCUSDT", "book@binance:BTCUSDT"),
        ("book_top@chainlink:ETH/USD", "book_top@chainlink:ETH/USD"),
        ("bbo@binance:BTCUSDT", "bbo@binance:BTCUSDT"),
        ("health@binance:BTCUSDT", "health@binance:BTCUSDT"),
        ("health", "health"),
        ("health@*", "health"),
    ],
)
def test_names_are_parsed_and_printed_in_one_spelling(text: str, name: str) -> None:
    assert Channel.parse(text).name == name


@pytest.mark.parametrize(
    "text",
    ["", "trade", "trade@", "trade@a@1m", "candle@a", "candle", "book", "book@a@1m", "books@a", "health@", "bbo@"],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Channel.parse(text)


def test_an_unknown_timeframe_is_told() -> None:
    with pytest.raises(UnknownTimeframe, match="7m"):
        Channel.parse("candle@sim:X@7m")


def test_positions() -> None:
    assert parse_position("01J8Z:48211") == Since("01J8Z", 48211)
    assert parse_position("48211") == Since(None, 48211)
    for wrong in ("", ":", ":5", "E:", "E:-1", "E:1.5", "toolongepoch:1", "E:99999999999999999999", "E:٣"):
        with pytest.raises(BadRequest) as caught:
            parse_position(wrong)
        assert caught.value.field == "since"


def test_the_rest_of_a_batch() -> None:
    some = trades(5, 4)
    assert span(some) == (5, 8)
    assert rest_of(some, 4) is some
    cut = rest_of(some, 6)
    assert isinstance(cut, TradeBatch) and cut.trade_id.tolist() == [7, 8]
    assert rest_of(some, 8) is None
    rows = rest_of(candles(3, 3, 5), 3)
    assert isinstance(rows, CandleBatch) and rows.rows["pos"].tolist() == [5]


def test_a_seam_drops_what_history_held_and_keeps_the_rest() -> None:
    seam = Seam()
    assert seam.live(trades(1, 3)) is None
    assert seam.live(trades(4, 3)) is None
    held = seam.settle(5)
    assert [span(one) for one in held] == [(6, 6)]
    assert seam.live(trades(4, 2)) is None
    after = seam.live(trades(5, 3))
    assert after is not None and span(after) == (6, 7)


def test_a_seam_holds_a_bounded_amount() -> None:
    seam = Seam()
    for first in range(1, 40_000, 1000):
        seam.live(trades(first, 1000))
    assert seam.broken and not seam.held
    assert seam.size > HELD_BYTES
