"""Opening tapes: what venues announce is entered in the store, and trades of new instruments wait for their tapes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tapewick._engine_announcer import Announcer
from tapewick._engine_patience import Patience
from tapewick.engine.tape import Engine
from tapewick.model import Instrument, TradeBatch
from tapewick.protocols import Delivery, Store

__all__ = ["Opener"]


class Opener:
    """``owns`` tells whose tapes this engine opens, ``holds`` whether it still may at the moment of the claim;
    ``quiet`` is held meanwhile. ``take`` is given each delivery that waited for its tape, ``done`` announcements."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        patience: Patience,
        *,
        out: Announcer,
        owns: Callable[[str], bool],
        holds: Callable[[str], bool],
        quiet: asyncio.Lock,
        take: Callable[[Delivery], Awaitable[None]],
        done: Callable[[Delivery], None],
    ) -> None:
        self._store, self._engine, self._patience = store, engine, patience
        self._out, self._owns, self._holds, self._quiet = out, owns, holds, quiet
        self._take, self._done = take, done
        self._announced: list[tuple[Delivery, Instrument]] = []
        self._held: dict[str, list[Delivery]] = {}  # by instruments whose tapes are being opened
        self._arrived = asyncio.Event()
        self.held_bytes = 0

    def put_off(self, delivery: Delivery) -> bool:
        """Keep an announcement, and trades that wait for one, until ``run`` has opened the tapes."""
        message = delivery.message
        if isinstance(message, Instrument):
            tape = self._engine.tapes.get(message.id)
            if tape is not None and tape.instrument.status == message.status or not self._owns(message.id):
                return False
            self._announced.append((delivery, message))
            if tape is None:
                self._held.setdefault(message.id, [])
            self._arrived.set()
            return True
        if isinstance(message, TradeBatch) and message.instrument in self._held:
            self._held[message.instrument].append(delivery)
            self.held_bytes += message.nbytes
            return True
        return False

    def forget(self) -> None:
        """Let go of what waits for tapes that are not ours any more."""
        self._announced = [one for one in self._announced if self._owns(one[1].id)]
        for id in [id for id in self._held if not self._owns(id)]:
            del self._held[id]
        waiting = [one.message for held in self._held.values() for one in held]
        self.held_bytes = sum(message.nbytes for message in waiting if isinstance(message, TradeBatch))

    def wake(self) -> None:
        self._arrived.set()

    async def run(self) -> None:
        """Enter what was announced, and open new tapes: all that wait in one claim; until ``stopping``.

        A venue announces its instruments one by one, and a claim costs as much for one as for a hundred.
        """
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self._patience.insist(self._try)
            if self._patience.stopping and not self._announced:
                return

    async def _try(self) -> None:
        """Enter what waits; all of it waits on where the store refuses, and partitions may change hands meanwhile.

        What this engine may not open any more is neither taken in nor acknowledged: whoever may gets it again.
        """
        async with self._quiet:
            announced = tuple(self._announced)
            lost = await self._enter({instrument.id: instrument for _, instrument in announced})
            del self._announced[: len(announced)]
            for delivery, instrument in announced:
                if instrument.id not in lost:
                    self._done(delivery)

    async def _enter(self, announced: dict[str, Instrument]) -> set[str]:
        """Store what was announced and open what has no tape yet; the ids of those that may not be opened."""
        stored = [await self._store.put_instrument(one) for one in announced.values()]
        fresh = [id for id in announced if id not in self._engine.tapes]
        lost = {id for id in fresh if not self._holds(id)}  # their trades stay where they are, until ``forget``
        if fresh:
            states = await self._store.claim([id for id in fresh if id not in lost])
            self._engine.add(states)
            self._out.opened(state.instrument.id for state in states)
        for instrument in stored:
            tape = self._engine.tapes.get(instrument.id)
            if tape is not None:
                tape.describe(instrument)
            self._out.instrument(instrument if tape is None else tape.instrument)
        for id in announced:
            if id in self._held and id not in lost:
                await self._release(id)
        return lost

    async def _release(self, id: str) -> None:
        """Take in the trades that waited for their tape."""
        while waiting := self._held.get(id):
            delivery = waiting.pop(0)
            assert isinstance(delivery.message, TradeBatch)
            self.held_bytes -= delivery.message.nbytes
            await self._take(delivery)
        self._held.pop(id, None)
