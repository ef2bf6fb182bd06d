"""Channels over gRPC that only know how things stand: tickers and health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tapewick.model import Health
from tests.gateways.grpc_rig import GrpcRig, serving
from tests.gateways.rig import BTC


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[GrpcRig]:
    async with serving(tmp_path / "data") as made:
        yield made


async def test_a_ticker_and_health_are_told_as_they_are_and_then_as_they_change(rig: GrpcRig) -> None:
    await rig.tell(1, 700)
    ticker = f"ticker@{BTC}"
    async with rig.client() as c:
        await c.subscribe(ticker, "health")
        (first,) = await c.got("SNAPSHOT", channel=ticker)
        assert first.ticker.instrument == BTC and first.ticker.trades_24h == 700 and first.ticker.last
        assert not (await c.got("SNAPSHOT", channel="health"))[0].conditions
        await rig.tell(701, 5)
        await c.until(lambda c: (u := c.of("UPDATE", ticker)) and u[-1].ticker.trades_24h == 705)
        rig.bus.offer("health", Health(source="sim", state="stale", detail="silent", ts=7_000_000))
        (event,) = await c.got("EVENT", channel="health")
        (row,) = event.conditions
        assert event.kind == row.kind == "stream_health" and (row.source, row.state) == ("sim", "stale")
    async with rig.client() as late:
        await late.subscribe("health")
        (told,) = await late.got("SNAPSHOT", channel="health")
        assert [one.detail for one in told.conditions] == ["silent"]
