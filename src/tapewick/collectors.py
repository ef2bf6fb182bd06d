"""The collectors of one process: its sources, what is watched at run time, and their word on how they stand.

What the settings name is collected always; what somebody asked for at run time is in the store (``watched``), and
topic ``control`` tells of changes at once. Gateways come and go, so each source's last word is said again from time to
time, with the name of who says it: of redundant collectors one may be down. So is each instrument: a bus may lose what
nobody has read yet, and without it the engine knows nothing of the trades that follow.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Protocol, TypeAlias

import msgspec
import structlog

from tapewick.clock import Clock
from tapewick.errors import BusError, ConfigError, StoreError, TapewickError
from tapewick.model import Event, Health, Instrument, Watch
from tapewick.protocols import Bus, Source, Store, Subscription, Watching
from tapewick.roles import collect

__all__ = ["AGAIN", "Collectors", "Maker"]

log = structlog.get_logger()

AGAIN = 10.0
"""Seconds after which a source's last word is said again."""
REREAD = 30.0  # seconds between two looks at what the store says is watched
ENDED = "it is no longer collected: somebody ended the watch"
STOPPED = "its collector was stopped"

Word: TypeAlias = tuple[str, str]  # of which source, of which instrument ("": all of it)


class Maker(Protocol):
    """Makes the source of a venue. Raises ``ConfigError`` for a venue there is not, or a symbol that cannot be."""

    def __call__(self, venue: str, symbols: Sequence[str], *, wished: Sequence[str] = ()) -> Source: ...


class Collectors:
    """Publishes what ``sources`` yield while ``run`` runs, and what is watched besides.

    ``fixed``: the instruments they collect by the settings, whatever is watched. ``make`` makes a source for a venue
    that has none; ``owns`` tells which instruments are this process's, ``holder`` is its name. ``joined`` is awaited
    with each venue that is new.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        clock: Clock,
        sources: Iterable[Source],
        *,
        make: Maker,
        fixed: Iterable[str] = (),
        holder: str = "",
        owns: Callable[[str], bool] = lambda id: True,
        joined: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._bus, self._store, self._clock = bus, store, clock
        self._make, self._holder, self._owns, self._joined = make, holder, owns, joined
        self._configured, self._fixed = list(sources), {id.upper() for id in fixed}
        self._sources: dict[str, Source] = {}  # by venue, or by instrument where a source cannot take more
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: asyncio.Future[None] | None = None
        self._asked: set[str] = set()
        self._announced: set[str] = set()  # since the store was last asked
        self._words: dict[Word, Health] = {}
        self._instruments: dict[str, Instrument] = {}
        self._control: Subscription = bus.subscribe(["control"])

    @property
    def trouble(self) -> str | None:
        """Why nothing is collected; None while any source is connected, and where there is none."""
        whole = {source: health for (source, instrument), health in self._words.items() if not instrument}
        names = {source.name for source in self._sources.values()} or {source.name for source in self._configured}
        if not names or any(whole[name].state == "connected" for name in names & whole.keys()):
            return None
        for name in sorted(names & whole.keys()):
            return f"{name} is {whole[name].state}: {whole[name].detail}"
        return f"{' '.join(sorted(names))}: the venue has not answered yet"

    async def run(self) -> None:
        """Collect until cancelled; raises what ends a source of the settings."""
        self._failed = asyncio.get_running_loop().create_future()
        for source in self._configured:
            self._start(source.name, source)
        beside = [asyncio.create_task(work) for work in (self._follow(), self._reread(), self._say_again())]
        try:
            done, _ = await asyncio.wait({self._failed, *beside}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for task in (*beside, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(*beside, *self._tasks.values(), return_exceptions=True)
            self._say_farewell()

    # -- sources -------------------------------------------------------------------------------

    def _start(self, key: str, source: Source, *, asked: str = "") -> None:
        """Collect from ``source``; its end is the process's unless it was ``asked`` for at run time."""
        self._sources[key] = source
        task = self._tasks[key] = asyncio.create_task(
            collect(_Heard(source, self._heard, self._instruments), self._bus), name=source.name
        )

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() or (error := task.exception()) is None:
                return
            if asked and isinstance(error, Exception):
                if not isinstance(error, TapewickError):
                    log.error("a watched source failed", instrument=asked, exc_info=error)
                self._sources.pop(key, None)
                self._refuse(asked, str(error))
            elif self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)

        task.add_done_callback(ended)

    async def _stop(self, key: str) -> None:
        self._sources.pop(key, None)
        if (task := self._tasks.pop(key, None)) is not None:
            task.cancel()
            await asyncio.wait([task])

    # -- what is watched -----------------------------------------------------------------------

    async def _follow(self) -> None:
        """Changes as they are announced; a second announcement has a refused symbol tried again."""
        async for delivery in self._control:
            message = delivery.message
            delivery.ack()
            if isinstance(message, Watch) and self._owns(message.instrument):
                self._announced.add(message.instrument)
                await (self._begin if message.wanted else self._end)(message.instrument)
        raise BusError("the bus ended while collectors were running")

    async def _reread(self) -> None:
        """What the store says, for announcements that were missed."""
        while True:
            self._announced.clear()
            try:
                wanted = {id for id in await self._store.watched() if self._owns(id)}
            except StoreError as error:
                log.warning("what is watched could not be read; trying again", cause=str(error))
            else:
                for id in sorted(wanted - self._asked - self._announced):
                    await self._begin(id)
                for id in sorted(self._asked - wanted - self._announced):
                    await self._end(id)
            await self._clock.sleep(REREAD)

    async def _begin(self, id: str) -> None:
        venue, _, symbol = id.partition(":")
        self._asked.add(id)
        source = self._sources.get(venue)
        try:
            if source is None:
                await self._open(venue, symbol)
            elif isinstance(source, Watching):
                source.watch([symbol])
            elif id not in self._sources and id.upper() not in self._fixed:
                self._start(id, self._make(venue, [symbol]), asked=id)
        except ConfigError as error:
            self._refuse(id, str(error))
        except Exception as error:  # a wish is no reason to end: it would be there again at the next start
            log.error("a watched source cannot be made", instrument=id, exc_info=error)
            self._refuse(id, f"its source cannot be made: {error}")
        else:
            log.info("watching", instrument=id)

    async def _open(self, venue: str, symbol: str) -> None:
        """The first source of a venue."""
        id = f"{venue}:{symbol}"
        if id in self._sources:
            return
        made = self._make(venue, (), wished=[symbol])
        if self._joined is not None:
            await self._joined(venue)
        self._start(venue if isinstance(made, Watching) else id, made, asked=id)

    async def _end(self, id: str) -> None:
        """Collect ``id`` no longer, unless the settings name it."""
        venue, _, symbol = id.partition(":")
        self._asked.discard(id)
        source = self._sources.get(venue)
        if id.upper() in self._fixed:
            return
        if id in self._sources:
            await self._stop(id)
        elif isinstance(source, Watching):
            source.unwatch([symbol])
            if source not in self._configured and not source.symbols:
                await self._stop(venue)
        else:
            return
        self._words = {word: health for word, health in self._words.items() if word[1] != id}
        self._instruments.pop(id, None)
        self._say(Health(source=venue, state="disconnected", ts=self._clock.now(), detail=ENDED, instrument=id))
        log.info("no longer watching", instrument=id)

    # -- how sources stand ---------------------------------------------------------------------

    def _heard(self, health: Health) -> Health:
        """Note a source's word, and put our name to it."""
        named = msgspec.structs.replace(health, collector=self._holder)
        key = named.source, named.instrument
        before = self._words.get(key)
        self._words[key] = named
        if before is None or (before.state, before.detail) != (named.state, named.detail):
            report = log.info if named.state == "connected" else log.warning
            about = {"instrument": named.instrument} if named.instrument else {}
            report(named.state, source=named.source, detail=named.detail, **about)
        return named

    def _refuse(self, id: str, cause: str) -> None:
        venue = id.partition(":")[0]
        self._say(self._heard(Health(source=venue, state="refused", ts=self._clock.now(), detail=cause, instrument=id)))

    def _say(self, health: Health) -> None:
        self._bus.offer("health", msgspec.structs.replace(health, collector=self._holder))

    async def _say_again(self) -> None:
        while True:
            await self._clock.sleep(AGAIN)
            for health in tuple(self._words.values()):
                self._say(health)
            for instrument in tuple(self._instruments.values()):
                self._bus.offer("trades", instrument)

    def _say_farewell(self) -> None:
        """So that nobody waits for our next word."""
        for health in self._words.values():
            gone = msgspec.structs.replace(health, state="disconnected", ts=self._clock.now(), detail=STOPPED)
            self._say(gone)


class _Heard:
    """``source``, with each of its words on how it stands passed through ``heard``, and its ``instruments`` noted."""

    def __init__(self, source: Source, heard: Callable[[Health], Health], instruments: dict[str, Instrument]) -> None:
        self._source, self._heard, self._instruments = source, heard, instruments
        self.name, self.pull = source.name, source.pull

    @property
    def rejects(self) -> Counter[str]:
        """What the source refused, by reason."""
        found: Counter[str] | None = getattr(self._source, "rejects", None)
        return found or Counter()

    async def events(self) -> AsyncGenerator[Event, None]:
        async with aclosing(self._source.events()) as events:
            async for event in events:
                self.pull = self._source.pull  # who tells the past first is a pull source only until then
                if isinstance(event, Instrument):
                    self._instruments[event.id] = event
                yield self._heard(event) if isinstance(event, Health) else event
