"""kill -9 of a serving process while a client records every frame: no position ever names two trades.

``TAPEWICK_KILLS`` sets the number of cycles (default 10, of which a third are run here). The seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tapewick.client import Client
from tests.e2e.server import Server

BTC = "sim:BTCUSDT"


class Recorder:
    """Follows one instrument's trades and 1m candles through kills, as a resuming client would."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.trades: dict[tuple[str, int], int] = {}
        self.order: list[int] = []
        self.candles: dict[tuple[str, int, int], bytes] = {}
        self.count = 0

    async def follow_trades(self) -> None:
        async with Client(self._url) as client, aclosing(client.tail(f"trade@{BTC}", snapshot=1)) as frames:  # type: ignore[type-var]
            async for frame in frames:
                epoch = frame.position.partition(":")[0]
                for raw in frame.rows:
                    row: dict[str, Any] = msgspec.json.decode(raw)
                    known = self.trades.setdefault((epoch, row["seq"]), row["trade_id"])
                    assert known == row["trade_id"], f"seq {row['seq']} named {known} and {row['trade_id']}"
                    self.order.append(row["seq"])
                    self.count += 1

    async def follow_candles(self) -> None:
        async with Client(self._url) as client, aclosing(client.tail(f"candle@{BTC}@1m", snapshot=1)) as frames:  # type: ignore[type-var]
            async for frame in frames:
                if frame.kind != "event":
                    continue
                for raw in frame.rows:
                    row: dict[str, Any] = msgspec.json.decode(raw)
                    key = (frame.position.partition(":")[0], row["open_time"], row["pos"])
                    assert self.candles.setdefault(key, bytes(raw)) == bytes(raw), f"one pos, two candles: {key}"


def has_trades(server: Server) -> bool:
    return bool(server.get(f"/v1/coverage/{BTC}")["trades"])


@pytest.mark.timeout(1800)
async def test_no_position_shown_to_a_client_names_two_trades(tmp_path: Path) -> None:
    seed = int(os.environ.get("TAPEWICK_SEED", random.randrange(2**31)))
    print(f"seed {seed}")  # noqa: T201  # shown by pytest when the test fails
    rng = random.Random(seed)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    recorder = Recorder(f"http://127.0.0.1:{port}")
    followers: list[asyncio.Task[None]] = []
    for _ in range(max(int(os.environ.get("TAPEWICK_KILLS", "10")) // 3, 1)):
        with Server("demo", "--port", port, "--no-open", "--rate", "300", "--data", tmp_path / "D") as server:
            await asyncio.to_thread(server.ready)
            await asyncio.to_thread(server.wait_for, partial(has_trades, server))
            if not followers:
                followers = [asyncio.create_task(w()) for w in (recorder.follow_trades, recorder.follow_candles)]
            seen = recorder.count
            while recorder.count < seen + 500:
                assert not any(f.done() for f in followers), [f.result() for f in followers if f.done()]
                await asyncio.sleep(0.02)
            await asyncio.sleep(rng.uniform(0, 0.5))
            server.process.kill()
    for follower in followers:
        follower.cancel()
    for outcome in await asyncio.gather(*followers, return_exceptions=True):
        assert isinstance(outcome, asyncio.CancelledError), outcome
    assert recorder.order == list(range(recorder.order[0], recorder.order[-1] + 1)), "an event was missed or came twice"
    assert len({epoch for epoch, _ in recorder.trades}) == 1
