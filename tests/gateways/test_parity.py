"""Every surface tells the same candle: REST, export, UDF, Binance's klines, the SQL view, the trades, and what clients
of WebSocket, server-sent events and gRPC were told, as snapshots and as what they gathered while it happened.

On a tape with quiet times, a hole that was closed late, and one that still is open; all timeframes, random windows.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from tapewick.engine.candles import fold
from tapewick.gateways._sse_token import Vector
from tapewick.gateways._udf_symbols import RESOLUTIONS
from tapewick.gateways.grpc import GrpcGateway
from tapewick.model import TradeBatch
from tapewick.stores.duckdb import FILE
from tapewick.timeframe import DAY, NAMES, SECOND, STORED, parse
from tapewick.v1 import service_pb2 as pb
from tapewick.v1 import service_pb2_grpc as rpc
from tests.gateways.event_source import opened
from tests.gateways.grpc_rig import channel, subscribed
from tests.gateways.held import Follower, Held, event_source, grpc_stream, web_socket
from tests.gateways.held import told as as_json
from tests.gateways.rig import BTC, T0, Rig, batch, running

SPAN = 75 * DAY
START = T0 - SPAN  # it ends before the rig's present: trades of the future are refused
COUNT = 4000
LATE, LOST = range(1200, 1300), range(2500, 2510)
VALUES = ("open", "high", "low", "close", "volume", "quote_volume", "trades", "taker_buy_volume")
KLINE = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "quote_volume": 7, "trades": 8, "taker_buy_volume": 9}
NOT_BINANCE = ("45m", "3h")

Row = dict[str, Any]


def tape(chance: random.Random) -> TradeBatch:
    """Trades in bursts over 75 days, across two ends of months."""
    made = batch(1, COUNT)
    bursts = np.sort(np.array([chance.randrange(SPAN) for _ in range(COUNT // 40)]))
    within = np.array([chance.randrange(0, 400 * SECOND) for _ in range(COUNT)])
    made.ts_event = START + np.sort(np.repeat(bursts, 40) + within)
    made.ts_recv = made.ts_event + 1
    made.price = np.array([chance.randrange(1, 10**9) for _ in range(COUNT)])
    made.size = np.array([chance.randrange(1, 10**7) for _ in range(COUNT)])
    return made


def part(whole: TradeBatch, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> TradeBatch:
    return whole.select(np.flatnonzero(keep))


async def told(rig: Rig, whole: TradeBatch) -> None:
    """Put the tape there: first with holes, then one of them late."""
    late = np.isin(whole.trade_id, LATE)
    first = ~late & ~np.isin(whole.trade_id, LOST)
    for some in np.array_split(np.flatnonzero(first), 8):
        await rig.bus.publish("trades", whole.select(some))
        await rig.bus.settled("trades")
    repaired = part(whole, late)
    repaired.late = True
    await rig.bus.publish("trades", repaired)
    await rig.bus.settled("trades")


def values(row: Row) -> list[Decimal | int]:
    return [row[name] if name == "trades" else Decimal(row[name]) for name in VALUES]


async def compare_window(rig: Rig, tf: str, start: int, end: int) -> list[Row]:
    """Ask every surface on HTTP for the candles in [start, end) ms; REST's rows."""
    window = f"start={start}&end={end}"
    told = await rig.get(f"/v1/candles?instrument={BTC}&tf={tf}&limit=10000&{window}")
    assert told["next"] is None
    rows: list[Row] = told["candles"]
    async with rig.http as client:
        exported = await client.get(f"/v1/export/candles?instrument={BTC}&tf={tf}&{window}")
    assert [json.loads(line) for line in exported.text.splitlines()] == rows
    resolution = next(name for name, frame in RESOLUTIONS.items() if frame == tf)
    opens = {row["open_time"] // 1000: row for row in rows}
    bounds = f"from={-(-start // 1000)}&to={-(-end // 1000)}"
    bars = await rig.get(f"/udf/history?symbol={BTC}&resolution={resolution}&{bounds}")
    found = zip(*(bars.get(name, ()) for name in "tohlcv"), strict=True)
    real = {at: tuple(bar) for at, *bar in found if at in opens}
    assert real == {
        at: tuple(float(row[name]) for name in ("open", "high", "low", "close", "volume"))
        for at, row in list(opens.items())[-len(real) :]
    }
    assert len(real) == len(opens) or len(bars["t"]) == 10_000
    if tf not in NOT_BINANCE:
        klines = await rig.get(
            f"/api/v3/klines?symbol=BTCUSDT&interval={tf}&startTime={start}&endTime={end - 1}&limit=1000"
        )
        known = {row["open_time"]: row for row in rows}
        for kline in klines:
            if kline[8]:
                got = [kline[at] if name == "trades" else Decimal(kline[at]) for name, at in KLINE.items()]
                assert got == values(known[kline[0]])
        if len(klines) < 1000:
            assert [kline[0] for kline in klines if kline[8]] == list(known)
    return rows


def candles_of(tf: str) -> str:
    return f"candle@{BTC}@{tf}"


async def pushed(rig: Rig, address: str, tf: str) -> list[list[Row]]:
    """The newest candles as snapshots tell them on each transport."""
    name = candles_of(tf)
    async with rig.ws() as peer:
        peer.subscribe({"ch": name, "snapshot": 1000})
        await peer.got("snapshot")
        rows: list[list[Row]] = [peer.rows(name, "snapshot")]
    async with opened(rig.gateway.url, name, snapshot=1000) as source:
        await source.got("snapshot")
        rows.append(source.rows(name, "snapshot"))
    async with channel(address) as made, subscribed(made) as client:
        await client.subscribe({"channel": name, "snapshot": 1000, "include_open": True})
        rows += [as_json(frame)["data"] for frame in await client.got("SNAPSHOT")]
    return rows


async def asked(address: str, tf: str, start: int, end: int) -> list[Row]:
    """The candles in [start, end) ms as a unary call tells them."""
    wish: dict[str, Any] = {"start": start * 10**6, "end": end * 10**6, "limit": 10_000, "include_open": True}
    async with channel(address) as made:
        stub = rpc.MarketDataStub(made)  # type: ignore[no-untyped-call]
        told = await stub.GetCandles(pb.GetCandlesRequest(instrument=BTC, timeframe=tf, **wish), timeout=60)
    return list(as_json(pb.Frame(type=pb.Frame.SNAPSHOT, candles=told.candles))["data"])


@asynccontextmanager
async def gathering(rig: Rig, address: str) -> AsyncIterator[list[Follower]]:
    """Clients that follow the candles of all stored frames from the beginning, one on each transport."""
    epoch = (await rig.store.head(BTC)).epoch
    since = {candles_of(tf.name): f"{epoch}:0" for tf in STORED}
    url, held = rig.gateway.url, [Held(since, since) for _ in range(3)]
    vector = Vector(list(since))
    for name, position in since.items():
        vector.move(name, position.encode())
    held[1].token = vector.token().decode()
    async with web_socket(url, held[0]) as a, event_source(url, held[1]) as b, grpc_stream(address, held[2]) as c:
        yield [a, b, c]


def newest(rows: list[Row]) -> dict[int, Row]:
    """By the rule for clients: of each settled candle the version with the highest pos."""
    found: dict[int, Row] = {}
    for row in rows:
        if row["state"] != "open" and row["pos"] >= found.get(row["open_time"], row)["pos"]:
            found[row["open_time"]] = row
    return found


async def test_all_surfaces_tell_the_same_candles(tmp_path: Path) -> None:
    chance = random.Random(20)
    whole, seen = tape(chance), dict[str, dict[int, Row]]()
    async with (
        running(tmp_path) as rig,
        GrpcGateway(rig.market, port=0) as grpc,
        gathering(rig, grpc.address) as followers,
    ):
        await told(rig, whole)
        low, high = START // 10**6, (START + SPAN) // 10**6
        for tf in NAMES:
            rows = (await rig.get(f"/v1/candles?instrument={BTC}&tf={tf}&limit=1000"))["candles"]
            for snapshot in await pushed(rig, grpc.address, tf):
                assert snapshot == rows
            found = {row["open_time"]: row for row in rows}
            for _ in range(2):
                start = chance.randrange(low, high)
                reach = min(high - low, max(parse(tf).length // 10**6 * 900, 60_000))
                end = start + chance.randrange(1, reach)
                window = await compare_window(rig, tf, start, end)
                assert await asked(grpc.address, tf, start, end) == window
                for row in window:
                    found[row["open_time"]] = row
            seen[tf] = found
        revised = [row for rows in seen.values() for row in rows.values() if row["rev"]]
        assert (await rig.get(f"/v1/coverage/{BTC}"))["trades"] == COUNT - len(LOST)
        assert {row["tf"] for row in revised} >= {"1m", "1h", "1d"}
        await check_gathered(rig, followers)
    check_sql(tmp_path / FILE, seen)
    check_fold(whole, seen)


async def check_gathered(rig: Rig, followers: list[Follower]) -> None:
    """What was pushed while it happened, reduced to the newest version of each, is what is stored now."""
    for tf in STORED:
        name = candles_of(tf.name)
        rows = (await rig.get(f"/v1/candles?instrument={BTC}&tf={tf.name}&limit=10000"))["candles"]
        truth = newest(rows)
        for follower in followers:
            await follower.until(lambda held, name=name, truth=truth: newest(held.rows[name]) == truth)  # type: ignore[misc]
        if tf.name in ("1m", "1h", "1d"):
            assert len(followers[0].held.rows[name]) > len(truth) > 0, "revisions came too"


def check_sql(file: Path, seen: dict[str, dict[int, Row]]) -> None:
    """What REST told is what the view shows to any SQL client."""
    with duckdb.connect(str(file), read_only=True) as connection:
        for tf, rows in seen.items():
            if tf == "1s":
                continue
            found = connection.execute(
                f"SELECT epoch_ms(open_time), {', '.join(VALUES)}, vwap, state, rev, complete, pos FROM v_candles "
                f"WHERE instrument = '{BTC}' AND tf = '{tf}'"
            ).fetchall()
            shown = {line[0]: line[1:] for line in found}
            for at, row in rows.items():
                *sums, vwap, state, rev, complete, pos = shown[at]
                assert sums == values(row)
                assert vwap == Decimal(row["vwap"])
                assert (state, rev, complete, pos) == tuple(row[k] for k in ("state", "rev", "complete", "pos"))


def check_fold(whole: TradeBatch, seen: dict[str, dict[int, Row]]) -> None:
    """And what the trades add up to."""
    there = part(whole, ~np.isin(whole.trade_id, LOST))
    for tf, rows in seen.items():
        for made in fold(there, parse(tf)):
            row = rows.get(int(made["open_time"]) // 10**6)
            if row is not None:
                prices = [Decimal(int(made[name])).scaleb(-2) for name in ("open", "high", "low", "close")]
                assert [*prices, int(made["trades"])] == [*values(row)[:4], row["trades"]]
