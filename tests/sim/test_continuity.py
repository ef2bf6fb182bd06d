"""A simulated market goes on where its tape ends, and another one is kept off it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tapewick import pipeline, venue_edge
from tapewick.errors import ConfigError
from tapewick.model import Event, Instrument
from tapewick.settings import Data, Settings, Sim
from tapewick.sim.continuity import Made
from tapewick.sim.history import WithHistory
from tapewick.sim.venue import SimVenue
from tapewick.stores.duckdb import DuckDBStore
from tests.commands.tapes import tapewick

MADE = Sim(seed=1, rate=0.2, symbols=("BTCUSDT", "ETHUSDT"))


def settings(folder: Path, **changes: object) -> Settings:
    return Settings(data=Data(dir=str(folder)), sim=MADE._replace(**changes))  # type: ignore[arg-type]


class Listed:
    """A source that lists the symbols of a venue."""

    name = "sim"
    pull = True

    def __init__(self, venue: SimVenue) -> None:
        self._venue = venue

    async def events(self) -> AsyncGenerator[Event, None]:
        for symbol, market in self._venue.markets().items():
            prices, sizes = market.listing.price_scale, market.listing.size_scale
            yield Instrument(id=f"sim:{symbol}", venue="sim", symbol=symbol, price_scale=prices, size_scale=sizes)


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder with the last hour of the demo's own market."""
    own = settings(tmp_path / "d")
    async with venue_edge.venue(own) as venue:
        now = venue.now()
        past = WithHistory(Listed(venue), venue.markets(), start=now - 3_600_000, now=now)
        assert (await pipeline.feed(own, past)).trades > 100
    return tmp_path / "d"


@pytest.mark.parametrize("changes", [{"seed": 7}, {"rate": 40.0}, {"seed": 7, "symbols": ("ETHUSDT", "SOLUSDT")}])
async def test_another_market_is_kept_off_the_tape(folder: Path, changes: dict[str, object]) -> None:
    async with DuckDBStore(folder) as store:
        for same in ({}, {"symbols": ("SOLUSDT",)}, {"symbols": ("ETHUSDT", "SOLUSDT")}):
            own = settings(folder, **same)
            async with venue_edge.venue(own) as venue:
                await venue_edge.continue_market(own, store, venue)
        other = settings(folder, **changes)
        async with venue_edge.venue(other) as venue:
            with pytest.raises(ConfigError, match=r"--seed 1 --rate 0.2.*--data"):
                await venue_edge.continue_market(other, store, venue)
    assert Made.read(folder) == Made(1, 0.2)


async def test_the_demo_refuses_before_it_serves(folder: Path) -> None:
    done = await tapewick("demo", "--seed", "7", "--rate", "0.2", "--data", folder, "--port", "0", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert "another simulated market" in done.err
    assert "--data" in done.err
