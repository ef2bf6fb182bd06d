"""The provisional lane out of the engine."""

from __future__ import annotations

import asyncio

import numpy as np

from tapewick.buses.memory import MemoryBus
from tapewick.engine.tape import Engine
from tapewick.model import CandleBatch, Instrument, TapeState, TradeBatch
from tapewick.provisional import Provisional
from tapewick.timeframe import SECOND

T0 = 1_723_161_240 * SECOND
IDS = ("sim:A", "sim:B")


def owning() -> Engine:
    engine = Engine()
    for number, id in enumerate(IDS):
        own = Instrument(id=id, venue="sim", symbol=id[4:], price_scale=2, size_scale=5)
        engine.add([TapeState(instrument=own, number=number, epoch="E", owner=1)])
    return engine


def trade(instrument: str, id: int) -> TradeBatch:
    ids, one = np.array([id], np.int64), np.ones(1, np.int64)
    return TradeBatch(
        instrument=instrument, trade_id=ids, first_id=ids, count=np.ones(1, np.int32), ts_event=T0 + ids, ts_recv=ids,
        price=one, size=one, side=np.ones(1, np.int8), price_scale=2, size_scale=5,
    )  # fmt: skip


async def test_what_one_turn_brought_a_tape_is_announced_once_and_with_all_of_it() -> None:
    engine = owning()
    async with MemoryBus() as bus:
        reader, lane = bus.subscribe(["candles"]), Provisional(bus, engine.tapes)
        for turn in range(1, 4):
            for id in range(10):
                for instrument in IDS:
                    engine.ingest(trade(instrument, 10 * turn + id), T0)
                    lane.changed(instrument)
            for instrument in IDS:
                message = (await anext(reader)).message
                assert isinstance(message, CandleBatch) and message.provisional
                assert (message.instrument, set(message.rows["trades"].tolist())) == (instrument, {10 * turn})
        lane.changed("sim:A")
        assert (await anext(reader)).message.rows["trades"][0] == 30  # type: ignore[union-attr]


async def test_a_tape_that_was_given_up_meanwhile_is_not_announced() -> None:
    engine = owning()
    async with MemoryBus() as bus:
        reader, lane = bus.subscribe(["candles"]), Provisional(bus, engine.tapes)
        for instrument in IDS:
            engine.ingest(trade(instrument, 1), T0)
            lane.changed(instrument)
        engine.drop(["sim:A"])
        assert (await anext(reader)).message.instrument == "sim:B"  # type: ignore[union-attr]
        for _ in range(3):
            await asyncio.sleep(0)
        waiting = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
