"""A venue's REST trades have the time unit that its streams have: the same trade is the same, whoever brings it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tapewick.config import load
from tapewick.errors import SourceError
from tapewick.model import TradeBatch, Wanted
from tapewick.sources import _binance_silences
from tapewick.sources._binance_repair import BinanceRepairer
from tapewick.sources.binance import BinanceSource
from tapewick.venue_edge import repairer as repairer_of
from tests.gateways.relay import Server, server
from tests.gateways.rig import batch, instrument
from tests.net.test_venue_client import response
from tests.sources.test_binance import reading

ID = "binance:BTCUSDT"
COUNT = 20
DAY = 86_400 * 10**9

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def fine(folder: Path) -> AsyncIterator[tuple[Server, TradeBatch]]:
    """A venue whose trades lie microseconds apart: some share their millisecond. Nothing happens there any more."""
    whole = batch(1, COUNT, ID)
    trades = replace(whole, ts_event=whole.ts_event[0] + whole.trade_id * 417_000)
    async with server(folder, "binance") as one:
        await one.bus.publish("trades", instrument(ID))
        await one.bus.publish("trades", trades)
        await one.bus.settled("trades")
        yield one, trades


@pytest.mark.parametrize("granularity", ["raw", "agg"])
@pytest.mark.parametrize("microseconds", [True, False])
async def test_repaired_trades_have_the_unit_of_live_ones(tmp_path: Path, microseconds: bool, granularity: str) -> None:
    assert granularity in ("raw", "agg")
    async with fine(tmp_path) as (venue, trades):
        wanted = Wanted(instrument=ID, ranges=((1, COUNT),))
        async with BinanceRepairer(
            rest_url=venue.rest_url,
            granularity="raw" if granularity == "raw" else "agg",
            microseconds=microseconds,
            limit=10**6,
        ) as repairer:
            found = [page async for page in repairer.fetch(wanted)]
            [first] = [time for page in found for time in page.ts_event[:1].tolist()]
            times = dict(zip(trades.trade_id.tolist(), trades.ts_event.tolist(), strict=True))
            told = times[int(found[0].first_id[0])]
            assert first == (told if microseconds else told // 10**6 * 10**6)
            if granularity == "raw":
                unit = 1 if microseconds else 10**6
                assert found[0].ts_event.tolist() == [time // unit * unit for time in times.values()]
            assert await repairer.first_id_at(ID, times[COUNT] // 10**6 * 10**6) is not None


async def test_the_newest_trade_of_a_silent_market_has_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_binance_silences, "SILENCE", 0.1)
    async with fine(tmp_path) as (venue, trades):
        source = BinanceSource(
            ["BTCUSDT"], rest_url=venue.rest_url, ws_url=venue.ws_url, microseconds=True, retry_cap=0.05
        )
        async with reading(source) as reader:
            await reader.until(lambda: COUNT in reader.ids(ID))
            newest = next(one for one in reader.batches(ID) if COUNT in one.trade_id)
            assert newest.ts_event.tolist() == trades.ts_event[-1:].tolist()
        assert abs(source.clock_offset) < DAY and not source.rejects["time"], "the venue's clock is told in µs too"


@pytest.mark.parametrize(("venue", "asked"), [("binance", True), ("binance-usdm", False), ("binance-coinm", False)])
async def test_only_spot_is_asked_for_it(venue: str, asked: bool) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(response(b"{}", "400 Bad Request"))
        writer.close()

    host = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{host.sockets[0].getsockname()[1]}"
    names = {"TAPEWICK_BINANCE__REST_URL": url, "TAPEWICK_BINANCE__MICROSECONDS": "true"}
    made = repairer_of(load(environ=names).settings, venue)
    assert made is not None
    async with host, made as repairer:
        with pytest.raises(SourceError):
            await repairer.newest_id(f"{venue}:BTCUSDT")
    assert len(heads) == 1 and (b"x-mbx-time-unit: microsecond" in heads[0]) == asked
