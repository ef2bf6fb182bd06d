"""SC10: timeframes of a list, decimals of one form, times between 2009 and now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.gateways.rig import BTC
from tests.security.rig import Locked, locked, now_ms

DECIMALS = (
    "NaN Infinity -Infinity inf 1e5 1E5 -1 +1 0x10 1_000 1,5 .5 1. 1..2 ١ 1.5.5 --1 1/3 true".split()
    + ["", " 1", "1 ", "1\n", "1" * 21, "1." + "1" * 19, "0", "0.0"]
)  # fmt: skip
TIMEFRAMES = ("1 microsecond", "2m", "1M'--", "1h; DROP TABLE candles", "0m", "-1m", "1e3m", "٥m", "1m\x00", "")
TIMES = (0, -1, 1_230_767_999_999, 2**63, 10**20)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Locked]:
    async with locked(tmp_path) as made:
        yield made


async def test_sc10_decimals_have_one_form(server: Locked) -> None:
    values: list[Any] = [*DECIMALS, 1.5, 1, None, True, [], {}]
    for field, value in product(("price", "size"), values):
        told = await server.verdict(**{field: value})
        assert told["verdict"] == "rejected" and told["field"] == field, (value, told)
    for field, value in product(("price", "size"), ("1", "0.00000001", "123456.78")):
        told = await server.verdict(**{field: value, "trade_id": f"{field}{value}"})
        assert told["verdict"] == "accepted", (value, told)


async def test_sc10_times_lie_between_2009_and_now(server: Locked) -> None:
    for number, value in enumerate((*TIMES, now_ms() + 5_001, "1", 1.5, None, True)):
        told = await server.verdict(ts_event=value, trade_id=f"bad{number}")
        assert told["verdict"] == "rejected" and told["field"] == "ts_event", (value, told)
    for number, value in enumerate((1_230_768_000_000, now_ms() + 4_000)):
        told = await server.verdict(ts_event=value, trade_id=f"good{number}")
        assert told["verdict"] == "accepted", (value, told)


async def test_sc10_a_timeframe_is_one_of_the_list(server: Locked) -> None:
    async with server.rig.ws() as c:
        for number, tf in enumerate(TIMEFRAMES):
            answer = await server.ask("GET", "/v1/candles", params={"instrument": BTC, "tf": tf})
            assert answer.status_code == 400 and "tf" in answer.text, tf
            answer = await server.ask("GET", "/api/v3/klines", params={"symbol": "BTCUSDT", "interval": tf})
            assert answer.status_code == 400, tf
            c.subscribe(f"candle@{BTC}@{tf}", id=number)
            (told,) = await c.got("subscribed", id=number)
            assert told["errors"] and not told["channels"], tf
