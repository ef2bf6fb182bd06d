"""Rules of UDF's bars: quiet times filled, days at midnight, never the future, never too many, marks on bars."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick.timeframe import DAY, SECOND, next_open, parse
from tests.gateways.rig import BTC, T0, Rig, batch, running
from tests.gateways.test_parity import SPAN, START, tape, told

S0 = T0 // SECOND
NOW = S0 + 86_400  # the rig's present


async def bars(rig: Rig, resolution: str, to: int, **asked: int) -> dict[str, Any]:
    params = "".join(f"&{name.rstrip('_')}={value}" for name, value in asked.items())
    answer: dict[str, Any] = await rig.get(f"/udf/history?symbol={BTC}&resolution={resolution}&to={to}{params}")
    return answer


async def apart(rig: Rig, *seconds: int) -> None:
    """One trade at each of these times after ``S0``, with ids that follow each other."""
    made = batch(1, len(seconds))
    made.ts_event = T0 + np.array(seconds, np.int64) * SECOND
    made.ts_recv = made.ts_event + 1
    await rig.bus.publish("trades", made)
    await rig.bus.settled("trades")


async def test_quiet_times_between_bars_are_filled_with_the_close_before(rig: Rig) -> None:
    await apart(rig, 10, 130, 460)
    found = await bars(rig, "1", NOW, from_=S0)
    assert found["t"] == [S0 + 60 * n for n in range(8)], "from the first real bar to the last"
    real = {0, 2, 7}
    for n in range(8):
        if n not in real:
            close = found["c"][n - 1]
            assert [found[k][n] for k in "ohlcv"] == [close, close, close, close, 0]
    for count in (1, 3, 8, 500):
        back = await bars(rig, "1", S0 + 8 * 60, countback=count, from_=S0 + 7 * 60)
        assert back["t"] == found["t"][-count:], "countback wins over from"


async def test_no_more_than_ten_thousand_bars_and_those_are_the_newest(rig: Rig) -> None:
    await apart(rig, 0, 12_000)
    found = await bars(rig, "1S", NOW, countback=10**9)
    assert len(found["t"]) == 10_000 and found["t"][-1] == S0 + 12_000
    assert found["t"] == list(range(found["t"][0], S0 + 12_001))
    assert (await bars(rig, "1S", NOW, from_=0))["t"] == found["t"]


async def test_days_weeks_and_months_begin_at_midnight_and_nothing_lies_ahead(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await told(rig, tape(random.Random(5)))
        for resolution, tf in (("1D", "1d"), ("3D", "3d"), ("1W", "1w"), ("1M", "1M"), ("60", "1h")):
            found = await bars(rig, resolution, 2 * NOW, countback=10_000)
            times = found["t"]
            assert times[-1] <= (START + SPAN) // SECOND < NOW, "no bar in the future"
            frame = parse(tf)
            if frame.length >= DAY:
                days = [dt.datetime.fromtimestamp(at, dt.UTC) for at in times]
                assert {(day.hour, day.minute, day.second) for day in days} == {(0, 0, 0)}
                assert tf != "1w" or {day.weekday() for day in days} == {0}
                assert tf != "1M" or {day.day for day in days} == {1}
            if tf in ("1w", "1M"):
                assert all(next_open(frame, a * SECOND) == b * SECOND for a, b in zip(times, times[1:], strict=False))


@pytest.mark.parametrize("resolution", ["1", "60", "1D"])
async def test_marks_stand_on_bars_and_are_few(tmp_path: Path, resolution: str) -> None:
    async with running(tmp_path) as rig:
        await told(rig, tape(random.Random(6)))
        span = f"from={START // SECOND}&to={NOW}"
        marks = await rig.get(f"/udf/marks?symbol={BTC}&resolution={resolution}&{span}")
        assert marks["time"], "what is incomplete or revised is marked"
        for at in marks["time"][:: max(1, len(marks["time"]) // 10)]:
            assert (await bars(rig, resolution, at + 1, from_=at))["t"] == [at], "each on a bar"
        assert max(Counter(marks["time"]).values()) <= 10
        assert {len(marks[name]) for name in ("id", "time", "color", "text", "label", "labelFontColor", "minSize")} == {
            len(marks["time"])
        }
        assert len(set(marks["id"])) == len(marks["id"])
        on_axis = await rig.get(f"/udf/timescale_marks?symbol={BTC}&resolution={resolution}&{span}")
        assert on_axis and {one.keys() >= {"id", "color", "label", "time", "tooltip"} for one in on_axis} == {True}
