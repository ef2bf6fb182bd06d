"""kill -9 of a serving process under its push clients: positions restore trades and candles at the next process.

``TAPEWICK_KILLS`` sets the number of cycles (default 10, of which a third are run here). The seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server import Server
from tests.fault.rig import seed
from tests.gateways.held import Follower, Held, event_source, grpc_stream, web_socket
from tests.gateways.relay import until
from tests.gateways.test_stream import reduced

BTC = "sim:BTCUSDT"
TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
KILLS = max(int(os.environ.get("TAPEWICK_KILLS", "10")) // 3, 2)
WORDS = ("demo", "--port", "0", "--grpc", "true", "--grpc-port", "0", "--no-open", "--rate", "300")


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Server]:
    """A running demo that has trades."""
    with Server(*WORDS, "--data", folder) as server:
        await asyncio.to_thread(server.ready)
        await asyncio.to_thread(server.wait_for, partial(has_trades, server))
        yield server


def has_trades(server: Server) -> bool:
    return bool(server.get(f"/v1/coverage/{BTC}")["trades"])


@asynccontextmanager
async def following(transport: str, server: Server, held: Held) -> AsyncIterator[Follower]:
    if transport == "grpc":
        address = re.search(r"gRPC (127\.0\.0\.1:\d+)", server.lines[0])
        assert address, server.lines
        async with grpc_stream(address[1], held) as follower:
            yield follower
    else:
        async with (web_socket if transport == "web socket" else event_source)(server.url, held) as follower:
            yield follower


async def tape(server: Server, after: int, upto: int) -> list[dict[str, Any]]:
    """The stored trades with ``after`` < seq ≤ ``upto``."""
    rows: list[dict[str, Any]] = []
    while after < upto:
        path = f"/v1/trades?instrument={BTC}&since={after}&limit=1000"
        part = (await asyncio.to_thread(server.get, path))["trades"]
        rows += part
        after = part[-1]["seq"]
    return [row for row in rows if row["seq"] <= upto]


async def settled(server: Server, start: int) -> dict[int, tuple[Any, ...]]:
    """The stored candles from ``start`` on that no longer are open."""
    told = await asyncio.to_thread(server.get, f"/v1/candles?instrument={BTC}&tf=1m&start={start}&limit=10000")
    return reduced([row for row in told["candles"] if row["state"] != "open"])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("transport", ["web socket", "event source", "grpc"])
async def test_what_a_client_holds_through_kills_is_the_tape(tmp_path: Path, transport: str) -> None:
    rng, held = random.Random(seed()), Held((TRADES, CANDLES))
    for _ in range(KILLS):
        async with served(tmp_path / "D") as server, following(transport, server, held) as follower:
            seen = len(held.trades[TRADES])
            await follower.until(lambda held, seen=seen: held.begun and len(held.trades[TRADES]) > seen + 300)  # type: ignore[misc]
            await asyncio.sleep(rng.uniform(0, 0.5))
            server.process.kill()
            await follower.end()
    async with served(tmp_path / "D") as server, following(transport, server, held) as follower:
        seen, start = len(held.trades[TRADES]), held.rows[CANDLES][0]["open_time"]  # the snapshot's
        await follower.until(lambda held: len(held.trades[TRADES]) > seen + 300)

        async def same() -> bool:  # a candle may close between the two looks
            stored = await settled(server, start)
            follower.take()
            return stored == {at: row for at, row in held.candles(CANDLES).items() if at >= start}

        await until(same, 120)
        trades = held.trades[TRADES]
        first, last = trades[0]["seq"], trades[-1]["seq"]
        assert [row["seq"] for row in trades] == list(range(first, last + 1)), "missed, or came twice"
        assert trades == await tape(server, first - 1, last), "event for event"
        by_pos: dict[tuple[int, int], Any] = {}
        for row in held.rows[CANDLES]:
            if row["state"] != "open":
                key = row["open_time"], row["pos"]
                assert by_pos.setdefault(key, row) == row, "one pos, two candles"
