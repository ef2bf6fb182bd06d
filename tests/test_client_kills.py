"""kill -9 of the server under a notebook's stream and live table: exact across every restart."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

import tapewick
from tapewick.client import Candle, Notice, Rows, StreamGap, Trade
from tapewick.notebook import Connection, Feed, LiveTable
from tests.e2e.server import Server
from tests.fault.rig import seed

BTC = "sim:BTCUSDT"
TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
KILLS = max(int(os.environ.get("TAPEWICK_KILLS", "10")) // 4, 2)


def count(server: Server) -> int:
    return int(server.get(f"/v1/coverage/{BTC}")["trades"])


class Reader(threading.Thread):
    """A script's own loop over a stream."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(daemon=True)
        self.feed = feed
        self.seqs: list[int] = []
        self.versions: list[tuple[int, int]] = []
        self.others: list[object] = []
        self.error: BaseException | None = None

    def has(self, rows: int) -> bool:
        """Whether there are so many trades, or never will be."""
        return len(self.seqs) > rows or self.error is not None

    def run(self) -> None:
        try:
            for item in self.feed:
                if not isinstance(item, Rows):
                    self.others.append(item)
                    continue
                for row in item:
                    if isinstance(row, Trade):
                        self.seqs.append(row.seq)
                    elif isinstance(row, Candle) and item.kind == "event":
                        self.versions.append((row.open_time, row.pos))
        except BaseException as error:  # told in the test's own thread
            self.error = error


def closed(table: Iterable[Candle]) -> dict[int, Candle]:
    return {row.open_time: row for row in table if row.state != "open"}


def settle(server: Server, tape: Connection, reader: Reader, live: LiveTable) -> None:
    """Wait until both have everything the server has; its candles go on to be closed and settled meanwhile."""
    total = count(server)
    server.wait_for(lambda: reader.seqs[-1] >= total)
    server.wait_for(lambda: closed(tape.candles(BTC, "1m", limit=1000)) == closed(live.table()))


@pytest.mark.timeout(900)
def test_a_script_reads_on_through_kills_of_the_server(tmp_path: Path) -> None:
    rng = random.Random(seed())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = ("demo", "--port", port, "--no-open", "--rate", "200", "--symbols", "BTCUSDT", "--data", tmp_path / "D")
    with ExitStack() as stack:
        for kill in range(KILLS + 1):
            with Server(*words) as server:
                server.ready()
                server.wait_for(partial(count, server))
                if not kill:
                    tape = stack.enter_context(tapewick.connect(server.url))
                    reader = Reader(tape.stream(TRADES, CANDLES, snapshot=1))
                    live = tape.live(CANDLES, rows=1000)
                    reader.start()
                server.wait_for(partial(reader.has, len(reader.seqs) + 300 + rng.randrange(100)))
                assert reader.error is None, reader.error
                if kill < KILLS:
                    server.process.kill()
                else:
                    settle(server, tape, reader, live)
    reader.join(20)
    assert not reader.is_alive() and reader.error is None
    assert reader.seqs == list(range(reader.seqs[0], reader.seqs[-1] + 1)), "a trade was missed or came twice"
    assert len(reader.versions) == len(set(reader.versions)) > 0
    assert not [item for item in reader.others if isinstance(item, StreamGap)] and live.gaps == []
    assert [item.code for item in reader.others if isinstance(item, Notice)].count("connected") == KILLS
