"""Ingest while the store is away: ``queued`` on disk, stored once it is back, refused where there is no room."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.errors import Unavailable
from tapewick.gateways._auth import Guard
from tapewick.gateways._ingest_backlog import Backlog
from tapewick.gateways._ingest_records import MOST, joined, packed, unpacked
from tapewick.gateways.ingest import Options
from tapewick.intake import Intake
from tapewick.keys import KeyFile
from tapewick.model import TradeBatch
from tapewick.roles import EngineRole
from tapewick.spool import Spool, parse
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND
from tests.gateways.rig import T0, batch, instrument, running
from tests.gateways.test_ingest import Door, body, trade

ROOM = 1 << 20
X, Y = "hook:XYZ", "hook:Y"


class Outage:
    """Why the store is away, told by the process; None while it is not."""

    def __init__(self) -> None:
        self.cause: str | None = None

    def __call__(self) -> str | None:
        return self.cause


@asynccontextmanager
async def opened(folder: Path, outage: Outage, **options: Any) -> AsyncIterator[Door]:
    keys = KeyFile(folder)
    ingest = Options(folder, **{"spool_bytes": ROOM, **options})
    async with running(folder / "data", guard=Guard(keys=keys), ingest=ingest, readiness=outage) as rig:
        yield Door(rig, keys)


@pytest.fixture
async def outage() -> Outage:
    return Outage()


async def ready(door: Door) -> httpx2.Response:
    async with door.rig.http as client:
        return await client.get("/health/ready")


async def until_ready(door: Door) -> None:
    async with asyncio.timeout(60):
        while (await ready(door)).status_code != 200:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)


def spooled(folder: Path) -> list[Path]:
    return sorted((folder / "spool").glob("*.seg*"))


@pytest.mark.parametrize("kind", ["contiguous", "unique"])
async def test_what_comes_in_an_outage_is_queued_and_stored_after_it(tmp_path: Path, outage: Outage, kind: str) -> None:
    ids = [1, 2, 3, 4, 5] if kind == "contiguous" else list("abcde")
    async with opened(tmp_path, outage) as door:
        assert await door.verdicts(body(trade(ids[0]), id_kind=kind)) == ["accepted"]
        outage.cause = "PostgreSQL is away"
        assert await door.verdicts(body(trade(ids[0]), trade(ids[1]), trade(9.5), id_kind=kind)) == [
            "queued", "queued", "rejected",
        ]  # fmt: skip
        assert await door.verdicts(body(*map(trade, ids[1:4]), id_kind=kind)) == ["queued"] * 3
        unready = await ready(door)
        assert unready.status_code == 503 and "PostgreSQL is away" in unready.text
        assert len(spooled(tmp_path)) >= 1 and len(await door.stored()) == 1
        outage.cause = None
        await until_ready(door)
        assert spooled(tmp_path) == []
        assert await door.verdicts(body(*map(trade, ids), id_kind=kind)) == ["duplicate"] * 4 + ["accepted"]
        assert len(await door.stored()) == 5


async def test_the_cause_stands_in_readiness_until_the_last_is_stored(tmp_path: Path, outage: Outage) -> None:
    async with opened(tmp_path, outage) as door:
        assert await door.verdicts(body(trade(1))) == ["accepted"]
        outage.cause = "the disk is full"
        await door.verdicts(body(trade(2)))
        assert door.rig.gateway._ingest is not None
        told = door.rig.gateway._ingest.trouble
        assert told is not None and "wait on disk" in told and "the disk is full" in told
        outage.cause = None
        await until_ready(door)
        assert [row["trade_id"] for row in await door.stored()] == [1, 2]


async def test_what_waits_at_a_stop_is_stored_after_the_next_start(tmp_path: Path, outage: Outage) -> None:
    async with opened(tmp_path, outage) as door:
        await door.verdicts(body(trade(1)))
        outage.cause = "away"
        await door.verdicts(body(*(trade(n) for n in range(2, 200))))
    assert len(spooled(tmp_path)) == 1
    outage.cause = None
    async with opened(tmp_path, outage) as door:
        await until_ready(door)
        assert [row["trade_id"] for row in await door.stored()] == list(range(1, 200))
    assert spooled(tmp_path) == []


async def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path, outage: Outage) -> None:
    async with opened(tmp_path, outage, spool_bytes=4000) as door:
        await door.verdicts(body(trade(1)))
        outage.cause = "away"
        taken, refused = [1], None
        for n in range(2, 200):
            answer = await door.post(body(trade(n)))
            if answer.status_code == 503:
                refused = answer
                break
            assert answer.status_code == 202
            taken.append(n)
        assert refused is not None and "full" in refused.json()["detail"] and int(refused.headers["retry-after"]) > 0
        outage.cause = None
        await until_ready(door)
        assert [row["trade_id"] for row in await door.stored()] == taken


async def test_an_unknown_instrument_cannot_be_queued(tmp_path: Path, outage: Outage) -> None:
    """What it is, and whether there is one already, is not known: the sender keeps its trades."""
    async with opened(tmp_path, outage) as door:
        outage.cause = "away"
        answer = await door.post(body(trade(1)), idempotency_key="k")
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0 and spooled(tmp_path) == []
        outage.cause = None
        assert await door.verdicts(body(trade(1)), idempotency_key="k") == ["accepted"]


async def test_a_disk_that_takes_nothing_is_told(tmp_path: Path, outage: Outage) -> None:
    async with opened(tmp_path, outage) as door:
        await door.verdicts(body(trade(1)))
        (tmp_path / "spool").write_text("a file where the folder should be")
        outage.cause = "the disk is full"
        answer = await door.post(body(trade(2)))
        assert answer.status_code == 503 and "spool" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0


async def test_many_at_once_share_the_disk(tmp_path: Path, outage: Outage) -> None:
    async with opened(tmp_path, outage) as door:
        await door.verdicts(body(*(trade(1, instrument=f"hook:N{n}") for n in range(5))))
        outage.cause = "away"
        batches = [body(*(trade(k, instrument=f"hook:N{n % 5}") for k in range(n, n + 20))) for n in range(2, 42)]
        answers = await asyncio.gather(*(door.verdicts(one) for one in batches))
        assert {verdict for told in answers for verdict in told} == {"queued"}
        outage.cause = None
        await until_ready(door)
        for n in range(5):
            wanted = {1} | {k for first in range(2, 42) if first % 5 == n for k in range(first, first + 20)}
            assert {row["trade_id"] for row in await door.stored(f"hook:N{n}")} == wanted


async def test_damage_on_disk_is_told_and_the_sound_trades_are_stored(tmp_path: Path, outage: Outage) -> None:
    async with opened(tmp_path, outage) as door:
        await door.verdicts(body(trade(1)))
        outage.cause = "away"
        answers = await asyncio.gather(*(door.verdicts(body(trade(n))) for n in (2, 3, 4)))
        assert answers == [["queued"]] * 3
    path = spooled(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    outage.cause = None
    async with opened(tmp_path, outage) as door:
        await until_ready(door)
        assert len(await door.stored()) == 3
    [kept] = spooled(tmp_path)
    assert kept.suffix == ".damaged" and kept.read_bytes() == data


@given(st.lists(st.tuples(st.sampled_from(["hook:A", "hook:B"]), st.integers(1, 30), st.integers(1, 9)), max_size=12))
def test_joined_batches_hold_every_trade_once_and_in_order(parts: list[tuple[str, int, int]]) -> None:
    records = [(instrument(id), batch(first, count, id)) for id, first, count in parts]
    read = [unpacked(packed(*one)) for one in records]
    for own, batches in joined(read):
        ids = [id for one in batches for id in one.trade_id.tolist()]
        wanted = dict.fromkeys(id for name, first, n in parts if name == own.id for id in range(first, first + n))
        assert ids == list(wanted)
        assert all(len(one) <= MOST and len(np.unique(one.trade_id)) == len(one) for one in batches)
    assert {own.id for own, _ in joined(read)} == {id for id, _, _ in parts}


async def test_an_engine_that_is_gone_makes_no_flood_and_gets_it_when_it_is_back(tmp_path: Path) -> None:
    """The bus takes everything and nobody stores it: what waits is not put there with every attempt."""
    clock, own = ManualClock(T0 + 86_400 * SECOND), instrument("hook:XYZ")
    async with DuckDBStore(tmp_path / "data") as store, MemoryBus() as bus:
        await store.put_instrument(own)
        seen, way_in, waited = bus.subscribe(["trades"]), Intake(bus, store, 0.01), asyncio.Semaphore(0)
        bring = way_in.store

        async def counted(trades: TradeBatch, *, sent: bool = False) -> Any:
            if sent:
                waited.release()
            return await bring(trades, sent=sent)

        way_in.store = counted  # type: ignore[assignment,method-assign]
        backlog = Backlog(Spool(tmp_path / "spool", ROOM), way_in, lambda: None)
        await backlog.start()
        await backlog.keep(own, batch(1, 3, own.id), "nobody stores it")
        async with asyncio.timeout(60):
            for _ in range(4):
                await waited.acquire()
            assert len((await anext(seen)).message) == 3  # type: ignore[arg-type]
        await bus.publish("trades", batch(9, 1, own.id))
        assert len((await anext(seen)).message) == 1, "it was sent more than once"  # type: ignore[arg-type]
        assert "not confirmed" in (backlog.stuck(own.id) or "")
        assert backlog.trouble is None, "what other instruments bring can be stored"
        await backlog.close()
        await seen.close()
        again = Backlog(Spool(tmp_path / "spool", ROOM), Intake(bus, store, 10), lambda: None)
        async with EngineRole(bus, store, Engine(), clock, interval=0.001), asyncio.timeout(60):
            await again.start()
            while again.trouble is not None:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
        await again.close()
        trades, _ = await store.trades(own.id)
        assert sorted(trades.trade_id.tolist()) == [1, 2, 3]


class Engines:
    """The engines of a gateway's instruments; those of ``gone`` store nothing."""

    def __init__(self, door: Door, *gone: str) -> None:
        assert door.rig.gateway._ingest is not None
        self.gone, self.stored = set(gone), []  # type: tuple[set[str], list[tuple[str, list[int]]]]
        self.tried: Counter[str] = Counter()
        self._intake = door.rig.gateway._ingest._intake
        self._bring = self._intake.store
        self._intake.store = self._sharded  # type: ignore[assignment,method-assign]

    async def until(self, instrument: str, times: int) -> None:
        """Wait until trades of ``instrument`` were tried so often."""
        async with asyncio.timeout(60):
            while self.tried[instrument] < times:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)

    async def _sharded(self, trades: TradeBatch, *, sent: bool = False) -> Any:
        self.tried[trades.instrument] += 1
        if trades.instrument in self.gone:
            raise Unavailable("its engine is gone", retry_after=1)
        outcome = await self._bring(trades, sent=sent)
        self.stored.append((trades.instrument, trades.trade_id.tolist()))
        return outcome


async def until_empty(folder: Path) -> None:
    async with asyncio.timeout(60):
        while spooled(folder):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)


async def until_left(folder: Path, *instruments: str) -> None:
    """Wait until the trades of ``instruments`` lie in the spool and no others."""
    async with asyncio.timeout(60):
        while waiting(folder) != set(instruments):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)


def waiting(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in spooled(folder):
        with suppress(FileNotFoundError):  # removed meanwhile
            found |= {unpacked(record).instrument.id for record in parse(path.read_bytes()).records}
    return found


@asynccontextmanager
async def shared(folder: Path, outage: Outage) -> AsyncIterator[tuple[Door, Engines]]:
    """A gateway whose spool holds trades 2 of X and Y in one segment; Y has no engine."""
    async with opened(folder, outage) as door:
        await door.verdicts(body(trade(1), trade(1, instrument=Y)))
    spool = Spool(folder / "spool", ROOM)
    assert spool.append([packed(instrument(id), batch(2, 1, id)) for id in (Y, X)]) == 2
    spool.close()
    outage.cause = "PostgreSQL is away for a moment"
    async with opened(folder, outage) as door:
        yield door, Engines(door, Y)


async def test_an_instrument_without_an_engine_keeps_only_its_own_trades_waiting(
    tmp_path: Path, outage: Outage
) -> None:
    async with opened(tmp_path, outage) as door:
        engines = Engines(door, Y)
        for id in (1, 2):
            assert await door.verdicts(body(trade(id, instrument=Y), trade(id))) == ["queued", "accepted"]
        assert (await ready(door)).status_code == 200
        engines.gone.clear()
        await until_empty(tmp_path)
        assert [row["trade_id"] for row in await door.stored(Y)] == [1, 2]
        assert await door.verdicts(body(trade(3, instrument=Y))) == ["accepted"]


async def test_trades_that_can_be_stored_do_not_wait_behind_those_that_cannot(tmp_path: Path, outage: Outage) -> None:
    """Y has no engine; then a short outage of the whole store brings X to the disk too."""
    async with opened(tmp_path, outage) as door:
        await door.verdicts(body(trade(1), trade(1, instrument=Y)))
        engines = Engines(door, Y)
        assert await door.verdicts(body(trade(2, instrument=Y))) == ["queued"]
        await engines.until(Y, 3)
        outage.cause = "PostgreSQL is away for a moment"
        assert await door.verdicts(body(trade(2), trade(3, instrument=Y))) == ["queued", "queued"]
        assert (await ready(door)).status_code == 503
        outage.cause = None
        await until_ready(door)
        await until_left(tmp_path, Y)
        assert await door.verdicts(body(trade(3), trade(4, instrument=Y))) == ["accepted", "queued"]
        assert (await ready(door)).status_code == 200
        assert engines.stored == [(X, [2]), (X, [3])]
    async with opened(tmp_path, outage) as door:
        await until_empty(tmp_path)
        assert [row["trade_id"] for row in await door.stored(Y)] == [1, 2, 3, 4]
        assert [row["trade_id"] for row in await door.stored()] == [1, 2, 3]


async def test_what_waits_on_keeps_its_place_and_what_is_stored_takes_no_room(tmp_path: Path, outage: Outage) -> None:
    async with shared(tmp_path, outage) as (door, engines):
        assert await door.verdicts(body(trade(3, instrument=Y))) == ["queued"]
        [first, _] = before = spooled(tmp_path)
        outage.cause = None
        await until_ready(door)
        await until_left(tmp_path, Y)
        assert spooled(tmp_path)[0] == first and len(before) == 2
        await engines.until(Y, 3)
        assert engines.stored == [(X, [2])]
        engines.gone.clear()
        await until_empty(tmp_path)
        assert [id for of, ids in engines.stored for id in ids if of == Y] == [2, 3], "in order"


async def test_an_instrument_that_was_late_once_is_stored_directly_again(tmp_path: Path, outage: Outage) -> None:
    """Though another one stays stuck, and the spool is never empty."""
    async with opened(tmp_path, outage) as door:
        await door.verdicts(body(trade(1), trade(1, instrument=Y)))
        engines = Engines(door, Y, X)
        assert await door.verdicts(body(trade(2, instrument=Y), trade(2))) == ["queued"] * 2
        engines.gone = {Y}
        await until_left(tmp_path, Y)
        assert await door.verdicts(body(trade(3))) == ["accepted"]
        assert [row["trade_id"] for row in await door.stored()] == [1, 2, 3]


async def test_a_full_disk_that_cannot_be_tidied_holds_nothing_up(
    tmp_path: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shared(tmp_path, outage) as (door, engines):
        with monkeypatch.context() as full:

            def put(*args: Any) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            full.setattr(Spool, "_put", put)
            outage.cause = None
            await until_ready(door)
            await engines.until(Y, 4)
            assert waiting(tmp_path) == {X, Y}
            assert engines.stored == [(X, [2])], "once is enough"
            assert await door.verdicts(body(trade(3))) == ["accepted"]
        await until_left(tmp_path, Y)
        engines.gone.clear()
        await until_empty(tmp_path)
        assert [row["trade_id"] for row in await door.stored(Y)] == [1, 2]


async def test_a_disk_that_fails_does_not_keep_the_gateway_from_a_store_that_is_back(
    tmp_path: Path, outage: Outage
) -> None:
    async with opened(tmp_path, outage) as door:
        await door.verdicts(body(trade(1)))
        (tmp_path / "spool").write_text("a file where the folder should be")
        outage.cause = "away"
        assert (await door.post(body(trade(2)))).status_code == 503
        outage.cause = None
        async with asyncio.timeout(60):
            while (await door.post(body(trade(2)))).status_code != 202:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)
