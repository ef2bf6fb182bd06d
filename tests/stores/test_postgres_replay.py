"""The same capture into every store: identical values, coverage and views; and a server killed under a replay."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapewick.engine import encode_candles
from tapewick.protocols import Store
from tapewick.stores.duckdb import DuckDBStore
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import STORED
from tests.fault.recording import write_recording
from tests.parts.postgres import PostgresServer
from tests.realdata.reading import rows, tapewick, values

BTC = "binance:BTCUSDT"


def settings(dsn: str) -> dict[str, str]:
    return {"TAPEWICK_STORE__KIND": "postgres", "TAPEWICK_STORE__DSN": dsn}


def stored(store: Store) -> tuple[dict[str, list[dict[str, object]]], list[tuple[int, ...]], list[list[int]]]:
    """Value fields of every candle, the trades, and the covered ranges."""

    async def read() -> tuple[dict[str, bytes], list[tuple[int, ...]], list[list[int]]]:
        async with store:
            candles = {}
            for tf in STORED:
                found, head = await store.candles(BTC, tf.index)
                candles[tf.name] = encode_candles(BTC, found, head.price_scale, head.size_scale, lines=True)
            batch, _ = await store.trades(BTC)
            columns = (batch.trade_id, batch.ts_event, batch.ts_recv, batch.price, batch.size, batch.side, batch.count)
            trades = sorted(zip(*(column.tolist() for column in columns), strict=True))
            return candles, trades, (await store.coverage(BTC)).ranges.tolist()

    candles, trades, ranges = asyncio.run(read())
    return values(candles), trades, ranges


@pytest.fixture(params=["postgres", "timescale"])
def dsn(request: pytest.FixtureRequest) -> str:
    server: PostgresServer = request.getfixturevalue(request.param)
    return server.database()


def test_a_replayed_capture_gives_the_same_tape_and_candles_as_the_embedded_store(dsn: str, tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "spot.log", 20_000)
    tapewick("replay", recording, "--speed", "max", "--data", tmp_path / "D")
    tapewick("replay", recording, "--speed", "max", **settings(dsn))
    ours, theirs = stored(PostgresStore(dsn, read_only=True)), stored(DuckDBStore(tmp_path / "D"))
    assert ours == theirs
    assert len(ours[1]) == 20_000 and ours[2][0][:2] == [1000, 20_999]
    tapewick("replay", recording, "--speed", "max", **settings(dsn))  # once more: nothing changes
    assert stored(PostgresStore(dsn, read_only=True)) == theirs


@pytest.mark.realdata
def test_a_real_capture_gives_the_same_in_every_store(dsn: str, testdata: Path, tmp_path: Path) -> None:
    files = [testdata / "binance-ws-2024-08" / f"spot_btcusdt_2024080{day}.gz" for day in (8, 9)]
    tapewick("replay", *files, "--speed", "max", "--data", tmp_path / "D")
    tapewick("replay", *files, "--speed", "max", **settings(dsn))
    ours = stored(PostgresStore(dsn, read_only=True))
    assert ours == stored(DuckDBStore(tmp_path / "D"))
    assert len(ours[1]) == 19_904


def test_reading_commands_answer_from_the_server(postgres: PostgresServer, tmp_path: Path) -> None:
    dsn = postgres.database()
    recording = write_recording(tmp_path / "spot.log", 500)
    for where in ({}, settings(dsn)):
        tapewick("replay", recording, "--speed", "max", "--data", tmp_path / "D", **where)
    for words in (("trades", BTC, "--limit", "0"), ("candles", BTC, "1h"), ("candles", BTC, "1s"), ("coverage", BTC)):
        embedded = rows(tapewick(*words, "--json", "--data", tmp_path / "D"))
        shared = rows(tapewick(*words, "--json", **settings(dsn)))
        for line in (*embedded, *shared):
            line.pop("position", None)
        assert shared == embedded, words
    told = rows(tapewick("migrate", "status", "--json", **settings(dsn)))
    assert told[0]["current"] is True
    found = {line["check"]: line for line in rows(tapewick("doctor", "--json", **settings(dsn)))}
    assert (found["store"]["state"], found["store"]["detail"]) == ("ok", "plain PostgreSQL, 1 tape")
    shown = {line["key"]: line["value"] for line in rows(tapewick("config", "show", "--json", **settings(dsn)))}
    assert shown["store.dsn"] == f"postgresql://***@127.0.0.1:{postgres.port}/***"


def test_durable_a_server_killed_under_a_replay_loses_and_doubles_nothing(
    durable_postgres: PostgresServer, tmp_path: Path
) -> None:
    dsn = durable_postgres.database()
    recording = write_recording(tmp_path / "spot.log", 20_000)
    tapewick("replay", recording, "--speed", "max", "--data", tmp_path / "D")
    replay = subprocess.Popen(
        [sys.executable, "-m", "tapewick", "replay", str(recording), "--speed", "20000"],
        env=os.environ | settings(dsn), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    asyncio.run(some(dsn))
    for _ in range(2):
        durable_postgres.kill()
        durable_postgres.start()
    out, _ = replay.communicate(timeout=200)
    assert replay.returncode == 0, out
    assert stored(PostgresStore(dsn, read_only=True)) == stored(DuckDBStore(tmp_path / "D"))


async def some(dsn: str) -> None:
    """Wait until the tape has begun."""
    async with PostgresStore(dsn) as store:
        while BTC not in [one.id for one in await store.instruments()]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while not (await store.head(BTC)).seq:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_replay_beside_a_running_engine_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    dsn = postgres.database()
    recording = write_recording(tmp_path / "spot.log", 50)
    tapewick("replay", recording, "--speed", "max", **settings(dsn))

    async def refused() -> str:
        async with PostgresStore(dsn) as store:
            await store.lease("engine-here", ["engine/member/engine-here"], 60.0)
            done = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tapewick", "replay", recording, "--speed", "max"),
                env=os.environ | settings(dsn),
                stderr=subprocess.PIPE,
            )
            _, error = await done.communicate()
            assert done.returncode == 1
            [state] = await store.claim([BTC])
            assert state.owner == 2, "the replay has taken the tape"
            return error.decode()

    assert "engine-here" in asyncio.run(refused())
