"""Channel ``candle@…@1s``: its rows are folded from trades when they are asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tapewick.model import TradeBatch
from tapewick.timeframe import SECOND
from tests.gateways.rig import BTC, T0, Peer, Rig, batch

SECONDS = f"candle@{BTC}@1s"


def quiet(count: int, step: int) -> TradeBatch:
    """One trade every ``step`` seconds."""
    made = batch(1, count)
    times = T0 + np.arange(count, dtype=np.int64) * step * SECOND
    return replace(made, ts_event=times, ts_recv=times)


def reached(last: int, peer: Peer) -> list[dict[str, Any]]:
    """The rows so far, once the one that opens at ``last`` is there."""
    rows = peer.rows(SECONDS, "snapshot")
    return rows if rows and rows[-1]["open_time"] == last else []


async def test_seconds_since_a_time_have_none_left_out_of_a_quiet_tape(rig: Rig) -> None:
    made = quiet(400, 170)
    await rig.bus.publish("trades", made)
    await rig.bus.settled("trades")
    for start in (T0, T0 + 30 * SECOND):  # the second begins behind the last trade of its minute
        wanted = [time // 1_000_000 for time in made.ts_event.tolist() if time >= start]
        async with rig.ws() as peer:
            peer.subscribe({"ch": SECONDS, "since": {"ts": start // 1_000_000}})
            rows = await peer.until(partial(reached, wanted[-1]))
            assert [row["open_time"] for row in rows] == wanted
