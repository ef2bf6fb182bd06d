"""Tapes of a simulated venue's past, and the command line beside a venue that runs in this loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tapewick import pipeline
from tapewick.model import Event, Instrument, TradeBatch
from tapewick.settings import Data, Settings
from tapewick.sim.history import WithHistory
from tapewick.sim.venue import SimVenue

__all__ = ["Done", "fill", "tapewick"]

SOURCES = Path(__file__).parent.parent.parent / "src"


class Done(NamedTuple):
    code: int
    out: str
    err: str


async def started(*args: str | Path, cwd: Path) -> asyncio.subprocess.Process:
    """A command running in ``cwd`` with an empty environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TAPEWICK_")}
    env |= {"HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd / "config"), "PYTHONPATH": str(SOURCES)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tapewick", *map(str, args), cwd=cwd, env=env, stdout=-1, stderr=-1
    )


async def tapewick(*args: str | Path, cwd: Path) -> Done:
    """Run a command in ``cwd`` with an empty environment."""
    process = await started(*args, cwd=cwd)
    out, err = await process.communicate()
    return Done(process.returncode or 0, out.decode(), err.decode())


class _Announced:
    """A source that only announces its instruments."""

    name = "sim"
    pull = True

    def __init__(self, venue: SimVenue, instrument_venue: str) -> None:
        self._venue, self._prefix = venue, instrument_venue

    async def events(self) -> AsyncGenerator[Event, None]:
        for symbol, market in self._venue.markets().items():
            listing = market.listing
            yield Instrument(
                id=f"{self._prefix}:{symbol}",
                venue=self._prefix,
                symbol=symbol,
                price_scale=listing.price_scale,
                size_scale=listing.size_scale,
            )


class _Without:
    """A source whose trades with ids in ``lost`` never arrive."""

    name = "sim"
    pull = True

    def __init__(self, source: WithHistory, lost: range) -> None:
        self._source, self._lost = source, lost

    async def events(self) -> AsyncGenerator[Event, None]:
        async for event in self._source.events():
            if isinstance(event, TradeBatch):
                kept = (event.trade_id < self._lost.start) | (event.trade_id >= self._lost.stop)
                event = event.select(np.flatnonzero(kept))
            yield event


async def fill(folder: Path, venue: SimVenue, *, lost: range = range(0), prefix: str = "sim") -> int:
    """Put all trades of ``venue`` up to now into a new data folder, but for the ids in ``lost``; their number."""
    announced = _Announced(venue, prefix)
    source = WithHistory(announced, venue.markets(), start=0, now=venue.now())
    settings = Settings(data=Data(dir=str(folder)))
    return (await pipeline.feed(settings, _Without(source, lost))).trades
