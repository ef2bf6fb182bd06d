"""Recorded markets under the watchdog: what really trades is never called stale, what is cut off is."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from tapewick.sim.capture import read_capture
from tapewick.watchdog import FACTOR, FLOOR, PATIENCE, StreamHealth, Watchdog

pytestmark = pytest.mark.realdata

SECOND = 10**9
CAPTURES = (
    "spot_btcusdt_20240808",
    "spot_btcusdt_20240809",
    "usdm_btcusdt_20240808",
    "cm_btcusd_perp_20240808",
    "cm_btcusd_perp_20240809",
)


class _Trade(msgspec.Struct):
    timestamp: int


def found(arrivals: Iterable[tuple[int, str, str]], *, without: str = "", after: float = 1e9) -> list[StreamHealth]:
    """Late and stale streams, checked each second; ``without`` a channel from ``after`` seconds on."""
    dog = Watchdog("venue")
    start = now = 0
    bad: list[StreamHealth] = []
    for ts, instrument, channel in arrivals:
        start = start or ts
        now = now or ts
        while now + SECOND <= ts:
            now += SECOND
            bad += [change for change in dog.check(now).changes if change.state in ("late", "stale")]
        if channel != without or ts - start < after * SECOND:
            dog.saw(instrument, channel, ts)
    return bad


def captured(path: Path) -> list[tuple[int, str, str]]:
    arrivals = []
    for frame in read_capture(path):
        symbol, _, channel = frame.stream.partition("@")
        if channel:
            arrivals.append((frame.recv, symbol, channel))
    return sorted(arrivals)


@pytest.mark.parametrize("name", CAPTURES)
def test_live_markets_are_well_and_a_cut_stream_is_found(testdata: Path, name: str) -> None:
    arrivals = captured(testdata / "binance-ws-2024-08" / f"{name}.gz")
    assert found(arrivals) == []
    for cut in {channel for *_, channel in arrivals}:
        (stale,) = [health for health in found(arrivals, without=cut, after=200.0) if health.state == "stale"]
        assert stale.channel == cut
        assert stale.age <= PATIENCE * max(FLOOR / SECOND, FACTOR * stale.usual) + 1


def test_a_quiet_pair_is_not_reported_in_sixty_hours(testdata: Path) -> None:
    text = gzip.decompress((testdata / "trades-binance" / "XRPETH-aggTrades-2019-10-11_13.json.gz").read_bytes())
    trades = msgspec.json.decode(text, type=list[_Trade])
    assert found((trade.timestamp * 1_000_000, "XRPETH", "trade") for trade in trades) == []
