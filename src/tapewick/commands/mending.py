"""Having a tape's missing trades fetched: by the server that owns it, or here in a folder nobody owns."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

from tapewick.commands.from_folder import coverage_object
from tapewick.commands.from_server import ServerReader
from tapewick.commands.options import access
from tapewick.config import closest
from tapewick.errors import ConfigError, NotFound, StoreError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from tapewick.model import Instrument

__all__ = ["FolderMender", "Mender", "ServerMender", "mender", "missing", "reopened", "until", "venue_of"]

POLL = 0.05  # seconds between two looks at the ledger
LOOKS = 100  # at gaps that were given up, for them to be opened again
ATTEMPTS = 6  # a person waits: sooner given up than by a server


class Mender(Protocol):
    """A tape's ledger, and whoever fills it."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def instruments(self) -> list[str]: ...
    async def coverage(self, instrument: str) -> dict[str, Any]:
        """What the tape holds, as ``GET /v1/coverage`` tells it. Raises ``NotFound``."""
        ...

    async def ask(self, instrument: str, ids: tuple[int, int] | None = None) -> None:
        """Have these ids fetched, or all that is missing."""
        ...


def mender(settings: Settings, args: argparse.Namespace, instruments: Sequence[str] = ()) -> Mender:
    """The server ``args`` name, or the data folder."""
    return ServerMender(args.url, access(args)) if args.url else FolderMender(settings, instruments)


class ServerMender(ServerReader):
    """A running server, over REST."""

    async def ask(self, instrument: str, ids: tuple[int, int] | None = None) -> None:
        await self._client.repair(instrument, ids)


class FolderMender:
    """Engine and repair lane on the store of ``settings.data.dir``, which nobody else may own.

    ``wanted``: instruments whose venues must be ready to be asked, whether or not there is a tape of them. Gaps
    are given up after few attempts.
    """

    def __init__(self, settings: Settings, wanted: Sequence[str] = ()) -> None:
        from pathlib import Path

        if settings.store.kind == "duckdb" and not Path(settings.data.dir).is_dir() and not wanted:
            raise StoreError(f"there is no data folder {settings.data.dir}: name it with --data, or fill it first")
        own = settings.repair
        self._settings = settings._replace(repair=own._replace(max_attempts=min(own.max_attempts, ATTEMPTS)))
        self._venues = {venue_of(instrument) for instrument in wanted}
        self._stack = AsyncExitStack()
        self._watch: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        from tapewick import pipeline, registry

        settings, enter = self._settings, self._stack.enter_async_context
        async with AsyncExitStack() as opening:
            opening.push_async_exit(self._stack)
            self._store = await enter(registry.store(settings))
            self._bus = await enter(registry.bus(settings))
            tapes = await self._store.instruments()
            kinds = {tape.venue: tape.granularity for tape in tapes}
            kinds |= {
                venue: "agg" if settings.binance.stream == "aggTrade" else "raw"
                for venue in self._venues - kinds.keys()
            }
            self._watch = await enter(pipeline.repairing(settings, self._store, self._bus, kinds))
            opening.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.__aexit__(*exc)  # type: ignore[arg-type]

    async def instruments(self) -> list[str]:
        return [instrument.id for instrument in await self._store.instruments()]

    async def coverage(self, instrument: str) -> dict[str, Any]:
        for task in self._watch:
            if task.done():
                task.result()
        known = await self.instruments()
        if instrument not in known:
            raise NotFound(f"no tape of {instrument!r} in this folder{closest(instrument, known)}; backfill makes one")
        return coverage_object(await self._store.coverage(instrument))

    async def announce(self, instrument: Instrument) -> None:
        """Begin the tape of an instrument the folder does not know yet."""
        await self._bus.publish("trades", instrument)
        await self._bus.settled("trades")

    async def ask(self, instrument: str, ids: tuple[int, int] | None = None) -> None:
        from tapewick.model import Wanted

        await self._bus.publish("repairs", Wanted(instrument=instrument, ranges=() if ids is None else (ids,)))


def missing(ledger: dict[str, Any], low: int, high: int) -> list[tuple[int, int]]:
    """The ids of [``low``, ``high``] that ``ledger`` does not cover, ascending."""
    found = []
    for first, last in ledger["ranges"]:
        if first > high:
            break
        if first > low:
            found.append((low, first - 1))
        low = max(low, last + 1)
    if low <= high:
        found.append((low, high))
    return found


async def until(
    tape: Mender, instrument: str, done: Callable[[dict[str, Any]], bool], show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The ledger once ``done`` holds of it; ``show`` is told each look on the way."""
    while True:
        ledger = await tape.coverage(instrument)
        show(ledger)
        if done(ledger):
            return ledger
        await asyncio.sleep(POLL)


async def reopened(tape: Mender, instrument: str, open: Callable[[dict[str, Any]], bool]) -> None:
    """Return once ``open`` holds of the ledger: what was asked for again is no longer shown as given up.

    Not later than after some looks: attempts that fail at once may have ended between two of them.
    """
    for _ in range(LOOKS):
        if open(await tape.coverage(instrument)):
            return
        await asyncio.sleep(POLL)


def venue_of(instrument: str) -> str:
    """The venue in an instrument's id. Raises ``ConfigError`` for what cannot be one."""
    venue, colon, symbol = instrument.partition(":")
    if not colon or not symbol:
        raise ConfigError(f"{instrument!r} is no instrument: write venue:SYMBOL, for example binance:BTCUSDT")
    return venue
