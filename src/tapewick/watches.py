"""What is collected at run time, as a gateway sees it: a list in the store, and a word to every collector.

Only collectors know what a venue lists. So a new wish waits a moment for the first sign: a tape of its own, or a
refusal, which takes the wish back, also where it comes later than the answer. A refusal that comes when nobody waits
for it any more, as after a restart, is shown in the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import structlog

from tapewick.errors import BadRequest, StoreError, Unavailable
from tapewick.model import Health, Watch
from tapewick.protocols import Bus, Store

__all__ = ["MOST", "Standing", "State", "Watches", "spelled"]

log = structlog.get_logger()

LOOK = 0.05  # seconds between two looks for a sign
LATE = 0.5  # the same after the answer
MOST = 1000
"""Instruments that may be watched at once."""
LONGEST = 100  # characters of an instrument id
SPELT_LARGE = ("binance", "sim")

State: TypeAlias = Literal["collected", "pending", "refused"]
"""Whether there is a tape, nobody has answered yet, or a collector cannot collect it."""


class Standing(NamedTuple):
    """How a wish stands; ``detail``: why it is refused."""

    state: State
    detail: str = ""


def spelled(text: str) -> str:
    """An instrument id as its tape is called. Raises ``BadRequest`` for what cannot be one."""
    venue, colon, symbol = text.partition(":")
    good = venue.replace("-", "").isalnum() and venue.isascii() and 0 < len(symbol) and len(text) <= LONGEST
    if not colon or not good or not symbol.isprintable() or " " in symbol or symbol != symbol.strip():
        raise BadRequest(
            f"{text[:40]!r} is no instrument: write venue:SYMBOL, for example binance:SOLUSDT", field="instrument"
        )
    if venue == "hook":
        raise BadRequest("hook:… is not collected: its trades are sent to POST /v1/ingest/trades", field="instrument")
    return f"{venue}:{symbol.upper() if venue.partition('-')[0] in SPELT_LARGE else symbol}"


class Watches:
    """The list in ``store``, announced on ``bus``; ``health`` is what sources say, by source and instrument.

    ``patience``: seconds to wait for a sign, where any collector has been heard of.
    """

    def __init__(
        self, bus: Bus, store: Store, health: Callable[[], Mapping[tuple[str, str], Health]], patience: float = 3.0
    ) -> None:
        self._bus, self._store, self._health, self._patience = bus, store, health, patience
        self._waiting: dict[str, set[Health]] = {}  # for a sign after the answer, and refusals from before the wish

    async def follow(self) -> None:
        """Take back wishes that are refused after they were answered; until cancelled."""
        while True:
            await asyncio.sleep(LATE)
            for id, before in list(self._waiting.items()):
                if refusals := self._refusals(id) - before:
                    with contextlib.suppress(StoreError, Unavailable):  # again at the next look
                        await self._take_back(id, next(iter(refusals)).detail)

    async def _take_back(self, id: str, cause: str) -> None:
        if any(one.id == id for one in await self._store.instruments()):
            self._waiting.pop(id, None)
            return
        await self.end(id)
        log.warning("a wish is taken back: it cannot be collected", instrument=id, cause=cause)

    async def listed(self) -> dict[str, Standing]:
        """Everything watched, by id."""
        known = {instrument.id for instrument in await self._store.instruments()}
        return {id: self._standing(id, known) for id in sorted(await self._store.watched())}

    def _standing(self, id: str, known: set[str]) -> Standing:
        if id in known:
            return Standing("collected")
        refusal = next(iter(self._refusals(id)), None)
        return Standing("pending") if refusal is None else Standing("refused", refusal.detail)

    async def add(self, text: str) -> tuple[str, State]:
        """Have an instrument collected from now on; its id. Raises ``BadRequest`` where a collector refuses it or too
        many are watched, ``Unavailable`` where the bus is full."""
        id = spelled(text)
        watched = await self._store.watched()
        if id not in watched and len(watched) >= MOST:
            raise BadRequest(f"{MOST} instruments are watched, and no more may be: end some first", field="instrument")
        before = self._refusals(id)
        await self._store.watch(id, True)
        self._announce(Watch(instrument=id, wanted=True))
        deadline = time.monotonic() + self._patience
        while True:
            if any(one.id == id for one in await self._store.instruments()):
                return id, "collected"
            if fresh := self._refusals(id) - before:
                await self.end(id)
                raise BadRequest(f"{id} cannot be collected: {next(iter(fresh)).detail}", field="instrument")
            if time.monotonic() > deadline or not self._health():
                self._waiting[id] = before
                return id, "pending"
            await asyncio.sleep(LOOK)

    async def end(self, text: str) -> bool:
        """Have it collected no longer, unless settings name it; whether it was watched. Raises as ``add``."""
        id = spelled(text)
        known = id in await self._store.watched()
        await self._store.watch(id, False)
        self._waiting.pop(id, None)
        self._announce(Watch(instrument=id, wanted=False))
        return known

    def _announce(self, message: Watch) -> None:
        """Collectors read the list again within half a minute: a word that is lost is only late."""
        if not self._bus.offer("control", message):
            raise Unavailable("the bus takes no more messages now; try again", retry_after=2)

    def _refusals(self, id: str) -> set[Health]:
        said = self._health().items()
        return {word for (_, instrument), word in said if instrument == id and word.state == "refused"}
