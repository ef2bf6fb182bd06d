"""Trades that wait for a tape this engine may not open any more are for whoever may."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tapewick._engine_announcer import Announcer
from tapewick._engine_opener import Opener
from tapewick._engine_patience import Patience
from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.model import Instrument, Message
from tapewick.protocols import Delivery
from tapewick.stores.duckdb import DuckDBStore
from tests.engines import PATIENCE, instruments, trades


@dataclass
class Arrived:
    message: Message
    lost: bool = False

    def ack(self) -> None: ...


class Runs(DuckDBStore):
    """The lease of ``lost`` runs out while an instrument is being put."""

    lost = ""
    out: frozenset[str] = frozenset()

    async def put_instrument(self, instrument: Instrument) -> Instrument:
        self.out = frozenset({self.lost})
        return await super().put_instrument(instrument)


async def test_what_waits_for_a_tape_whose_lease_ran_out_is_neither_taken_in_nor_acknowledged(tmp_path: Path) -> None:
    ours, gone = instruments(2)
    taken: list[Delivery] = []
    done: list[Delivery] = []
    owned = {ours.id, gone.id}

    async def take(delivery: Delivery) -> None:
        taken.append(delivery)

    async with Runs(tmp_path) as store, MemoryBus() as bus:
        store.lost = gone.id
        engine, patience = Engine(), Patience()
        opener = Opener(
            store, engine, patience,
            out=Announcer(bus, engine, RealClock()), owns=owned.__contains__, holds=lambda id: id not in store.out,
            quiet=asyncio.Lock(), take=take, done=done.append,
        )  # fmt: skip
        announced = [Arrived(one) for one in (ours, gone)]
        waiting = [Arrived(trades(one.id, 1, 5)) for one in (ours, gone)]
        assert all(opener.put_off(one) for one in (*announced, *waiting))
        patience.stopping = True
        opener.wake()
        await asyncio.wait_for(opener.run(), PATIENCE)
        assert list(engine.tapes) == [ours.id] and taken == [waiting[0]] and done == [announced[0]]
        assert opener.put_off(late := Arrived(trades(gone.id, 6, 9))) and late not in taken
        assert opener.held_bytes == waiting[1].message.nbytes + late.message.nbytes  # type: ignore[union-attr]
        owned.remove(gone.id)  # the partition has changed hands
        opener.forget()
        assert opener.held_bytes == 0 and not opener.put_off(late)
