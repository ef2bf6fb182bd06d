"""``coverage``, ``repair`` and ``backfill`` as processes: in a folder nobody owns, and through a server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock, RealClock
from tapewick.commands.mending import FolderMender, missing, until
from tapewick.engine.tape import Engine
from tapewick.model import Instrument, TradeBatch
from tapewick.roles import EngineRole
from tapewick.settings import Binance, Data, Repair, Settings
from tapewick.sim.market import Market
from tapewick.sim.venue import SimVenue
from tapewick.stores.duckdb import DuckDBStore
from tests.e2e.server import Server

pytestmark = pytest.mark.timeout(180)

BTC = "binance:BTCUSDT"
ORIGIN = 1_767_225_600_000
NOW = ORIGIN + 3_600_000


def batch(market: Market, low: int, high: int) -> TradeBatch:
    rows = market.trades(low, high)
    id = np.arange(low, high + 1, dtype=np.int64)
    time = np.array([row.time for row in rows], np.int64) * 1_000_000
    return TradeBatch(
        instrument=BTC,
        trade_id=id,
        first_id=id,
        count=np.ones(len(id), np.int32),
        ts_event=time,
        ts_recv=time,
        price=np.array([int(row.price.replace(".", "")) for row in rows], np.int64),
        size=np.array([int(row.size.replace(".", "")) for row in rows], np.int64),
        side=np.array([-1 if row.buyer_is_maker else 1 for row in rows], np.int8),
        price_scale=2,
        size_scale=5,
    )


async def fill(folder: Path, *batches: TradeBatch) -> None:
    """A folder that holds these trades and no others."""
    async with MemoryBus() as bus, DuckDBStore(folder) as store, EngineRole(bus, store, Engine(), RealClock()):
        own = Instrument(id=BTC, venue="binance", symbol="BTCUSDT", price_scale=2, size_scale=5)
        await bus.publish("trades", own)
        for each in batches:
            await bus.publish("trades", each)
        await bus.settled("trades")


def still() -> SimVenue:
    return SimVenue(["BTCUSDT"], rate=5.0, origin=ORIGIN, clock=ManualClock(NOW * 1_000_000))


async def run(venue: SimVenue, *args: str | Path, code: int = 0) -> tuple[list[Any], str]:
    """JSON lines and stderr of a command pointed at ``venue``."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TAPEWICK_")}
    env |= {"TAPEWICK_BINANCE__REST_URL": venue.rest_url, "TAPEWICK_REPAIR__WEIGHT_LIMIT": "1000000000"}
    command = [sys.executable, "-m", "tapewick", *map(str, args), "--no-config"]
    done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


async def test_repair_closes_every_hole_of_a_folder(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        await fill(tmp_path, batch(market, 1, 500), batch(market, 700, 900), batch(market, 3000, 3100))
        [before], _ = await run(venue, "coverage", BTC, "--data", tmp_path, "--json")
        assert before["complete"] is False and len(before["gaps"]) == 2
        [told], _ = await run(venue, "repair", "--data", tmp_path, "--json")
        assert (told["instrument"], told["ids"], told["missing"], told["gaps"]) == (BTC, 2298, 0, [])
        [after], _ = await run(venue, "coverage", BTC, "--data", tmp_path, "--json")
        assert after["complete"] is True and after["ranges"] == [[1, 3100]] and after["trades"] == 3100
        _, said = await run(venue, "repair", BTC, "--data", tmp_path)
        assert "0 ids repaired" in said


async def test_what_the_venue_refuses_ends_with_4_and_can_be_tried_again(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        await fill(tmp_path, batch(market, 1, 50), batch(market, 70, 90))
        venue.refuse(400, on="rest")
        [told], _ = await run(venue, "repair", BTC, "--data", tmp_path, "--json", code=4)
        assert told["missing"] == 19 and told["gaps"][0]["state"] == "unrepairable"
        venue.refuse(None, on="rest")
        [told], _ = await run(venue, "repair", BTC, "--data", tmp_path, "--json")
        assert (told["ids"], told["gaps"]) == (19, [])


async def test_backfill_goes_back_in_time_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        await fill(tmp_path, batch(market, 10_000, 10_100), batch(market, 10_200, 10_300))
        half, start = market.time_of(5_000), market.time_of(1_000)
        first = market.first_id_at(half)
        [told], _ = await run(venue, "backfill", BTC, "--from", str(half), "--data", tmp_path, "--json")
        assert (told["first_id"], told["last_id"]) == (first, 10_300)
        asked = len(venue.requests)
        [told], _ = await run(venue, "backfill", BTC, "--from", str(start), "--data", tmp_path, "--json")
        assert told["ids"] == first - market.first_id_at(start)  # only what was not there
        assert len(venue.requests) - asked <= 8
        [ledger], _ = await run(venue, "coverage", BTC, "--data", tmp_path, "--json")
        assert ledger["ranges"] == [[market.first_id_at(start), 10_300]] and ledger["gaps"] == []


async def test_a_backfill_the_venue_refuses_ends_with_3_and_goes_on_later(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        await fill(tmp_path, batch(market, 5_000, 5_100))
        start = str(market.time_of(4_000))
        task = asyncio.create_task(run(venue, "backfill", BTC, "--from", start, "--data", tmp_path, code=3))
        while "/api/v3/aggTrades" not in venue.requests:  # which turns the time into an id  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        venue.refuse(400, on="rest")
        _, said = await task
        assert "run the same command again" in said or "HTTP 400" in said
        venue.refuse(None, on="rest")
        [told], _ = await run(venue, "backfill", BTC, "--from", start, "--data", tmp_path, "--json")
        assert told["ids"] == 5_000 - market.first_id_at(market.time_of(4_000))


async def test_an_interrupted_first_backfill_is_brought_to_its_end_by_the_next(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        folder = tmp_path / "new"
        settings = Settings(
            data=Data(dir=str(folder)),
            binance=Binance(rest_url=venue.rest_url),
            repair=Repair(weight_limit=100),  # enough for the first pages only
        )
        async with FolderMender(settings, [BTC]) as tape:
            await tape.announce(Instrument(id=BTC, venue="binance", symbol="BTCUSDT", price_scale=2, size_scale=5))
            await tape.ask(BTC, (1_000, 9_000))
            cut = await until(tape, BTC, lambda ledger: bool(ledger["ranges"]), lambda _: None)
        gap = cut["gaps"][-1]
        assert (gap["right_id"], gap["right_ts"]) == (9_001, None)
        start = str(market.time_of(500))
        await run(venue, "backfill", BTC, "--from", start, "--data", folder)
        [ledger], _ = await run(venue, "coverage", BTC, "--data", folder, "--json")
        assert ledger["ranges"] == [[market.first_id_at(int(start)), 9_000]] and ledger["complete"] is True


async def test_backfill_begins_a_tape_where_there_is_none(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        start, end = market.time_of(2_000), market.time_of(3_500)
        folder = tmp_path / "new"
        span = ("--from", str(start), "--to", str(end))
        await run(venue, "backfill", BTC, *span, "--data", folder)
        [ledger], _ = await run(venue, "coverage", BTC, "--data", folder, "--json")
        assert ledger["ranges"] == [[market.first_id_at(start), market.first_id_at(end) - 1]]
        assert ledger["complete"] is True


async def test_a_symbol_the_venue_does_not_list_leaves_nothing_behind(tmp_path: Path) -> None:
    async with still() as venue:
        _, said = await run(venue, "backfill", "binance:NOPE", "--from", "2026-01-01", "--data", tmp_path / "d", code=2)
        assert "does not list" in said
        assert not (tmp_path / "d").exists()


async def test_mistakes_are_one_line_with_the_remedy(tmp_path: Path) -> None:
    async with still() as venue:
        await fill(tmp_path, batch(venue.markets()["BTCUSDT"], 1, 5))
        for args, code, words in (
            (("backfill", BTC), 2, "--from"),
            (("backfill", BTC, "--from", "2026-01-02", "--to", "2026-01-01"), 2, "--to must be after"),
            (("backfill", "kraken:XBTUSDT", "--from", "2026-01-01"), 2, "kraken cannot be asked"),
            (("backfill", "BTCUSDT", "--from", "2026-01-01"), 2, "venue:SYMBOL"),
            (("backfill", "binance:NOPE", "--from", "2026-01-01"), 2, "does not list"),
            (("repair", "binance:BTCUSDC"), 2, "did you mean binance:BTCUSDT?"),
            (("repair", BTC, "--url", "http://127.0.0.1:9"), 3, "127.0.0.1:9"),
        ):
            where = () if "--url" in args else ("--data", str(tmp_path))
            _, said = await run(venue, *args, *where, code=code)
            assert words in said and len(said.splitlines()) == 1, said
        _, said = await run(venue, "repair", "--data", tmp_path / "absent", code=1)
        assert "--data" in said


async def test_a_running_server_repairs_and_backfills_for_us(tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    async with SimVenue(["BTCUSDT"], rate=50.0, origin=now - 120_000) as venue:
        urls = {"TAPEWICK_BINANCE__REST_URL": venue.rest_url, "TAPEWICK_BINANCE__WS_URL": venue.ws_url}
        urls["TAPEWICK_SERVER__LOCAL_ADMIN"] = "true"
        folder = tmp_path / "D"
        with Server("serve", "--source", BTC, "--port", "0", "--data", folder, **urls) as server:
            url = await asyncio.to_thread(server.ready)
            ledger: dict[str, Any] = await asyncio.to_thread(
                server.wait_for, lambda: (c := server.get(f"/v1/coverage/{BTC}"))["ranges"] and c
            )
            first = ledger["ranges"][0][0]
            assert first > 100
            _, said = await run(venue, "backfill", BTC, "--from", str(now - 120_000), "--data", folder, code=1)
            assert "--url" in said  # the server owns the folder
            await run(venue, "backfill", BTC, "--from", str(now - 120_000), "--url", url)
            await run(venue, "repair", "--url", url)
            ledger = await asyncio.to_thread(server.get, f"/v1/coverage/{BTC}")
            assert ledger["ranges"][0][0] == 1 and ledger["complete"] is True and len(ledger["ranges"]) == 1
            assert await asyncio.to_thread(server.stop) == 143


def test_missing_ids_are_what_no_range_covers() -> None:
    ledger = {"ranges": [[5, 9], [20, 29]]}
    assert missing(ledger, 1, 40) == [(1, 4), (10, 19), (30, 40)]
    assert missing(ledger, 6, 8) == [] and missing(ledger, 8, 12) == [(10, 12)]
    assert missing({"ranges": []}, 3, 3) == [(3, 3)]
