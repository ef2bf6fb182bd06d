"""Load from the simulated venue while a server is away, and what must hold afterwards, whichever server it was.

``TAPEWICK_OUTAGE_S`` sets how long (default 5).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tapewick.protocols import Store
from tapewick.sim.venue import SimVenue
from tests.buses.rig import BusRig
from tests.fault.chain import Chain, counted, running
from tests.fault.pacing import PacedClock
from tests.fault.truth import assert_tape_is_the_truth

__all__ = ["AWAY", "LATER", "MEMORY", "endured", "kept", "live", "positions", "proven"]

AWAY = float(os.environ.get("TAPEWICK_OUTAGE_S", "5"))
SYMBOLS = ("BTCUSDT", "ETHUSDT")
LATER = "SOLUSDT"  # nobody collects it at first
RATE = 40.0  # trades a second of the venue
SPEED = 5.0  # times real time
MEMORY = 64 << 10  # bytes a topic may hold, and the engine before the store has them: less than comes in AWAY
START = int(dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp()) * 10**9


@asynccontextmanager
async def live(
    store: Store,
    bus: BusRig | None = None,
    *,
    engine: BusRig | None = None,
    gateway: BusRig | None = None,
    max_bytes: int = MEMORY,
    max_pending: int = MEMORY,
    leased: bool = False,
    **options: Any,
) -> AsyncIterator[Chain]:
    """The chain with load on it. ``engine`` and ``gateway``: ways of their own to the bus; ``options`` of every bus."""
    bus = bus or BusRig("memory")
    clock = PacedClock(SPEED, START)
    venue = SimVenue((*SYMBOLS, LATER), seed=7, rate=RATE, catch_up=10.0, clock=clock)
    async with (
        clock.running(),
        venue,
        running(
            venue,
            SYMBOLS,
            buses=[bus, engine or bus, gateway or bus],
            store=store,
            options={"max_bytes": max_bytes, **options},
            max_pending=max_pending,
            leased=leased,
        ) as chain,
    ):
        await chain.until_grown()
        yield chain


async def endured(chain: Chain, seconds: float = AWAY) -> None:
    """Let load come for so long; what waits for the store is bounded, the rest is dropped and counted."""
    loop = asyncio.get_running_loop()
    dropped, began, most = counted("dropped_batches", source="sim"), loop.time(), 0
    while loop.time() - began < seconds or counted("dropped_batches", source="sim") == dropped:
        assert loop.time() - began < seconds + 60, "nothing is dropped: what waits is not bounded"
        chain.alive()
        most = max(most, chain.engine.pending_bytes)
        await asyncio.sleep(0.02)
    assert most < 2 * MEMORY, f"{most} bytes wait for the store"


async def positions(chain: Chain) -> dict[str, tuple[str, int]]:
    """Epoch and seq that are acknowledged, by instrument."""
    return {state.instrument.id: (state.epoch, state.seq) for state in await chain.states() or ()}


async def kept(chain: Chain, before: dict[str, tuple[str, int]]) -> None:
    """No tape was begun anew, and none is shorter."""
    after = await positions(chain)
    assert {id: epoch for id, (epoch, _) in after.items()} == {id: epoch for id, (epoch, _) in before.items()}
    assert all(after[id][1] > seq for id, (_, seq) in before.items())


async def proven(chain: Chain) -> None:
    """What must hold after any outage: readiness back, every trade of the venue once, the client exact."""
    assert await chain.until_ready() == '{"status":"ready"}'
    await chain.until_grown()
    await chain.settle()
    assert await assert_tape_is_the_truth(chain) > 200
