"""A primary and its standby: reads use the standby and tell how far it is behind, the writer follows a promotion, and
what an asynchronous one has lost is found out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.channel import Batch, Channel
from tapewick.clock import RealClock
from tapewick.errors import StoreError
from tapewick.market import Market
from tapewick.model import CandleBatch, Head, TradeBatch
from tapewick.stores.postgres import PostgresStore
from tests.buses.rig import BusRig
from tests.contract.tapes import fresh, part, trades, write
from tests.fault.chain import counted, gauge
from tests.fault.outages import endured, kept, live, positions, proven
from tests.parts.postgres import PostgresServer
from tests.parts.redis import redis_server  # noqa: F401
from tests.parts.told import told
from tests.realdata.reading import rows, tapewick


@pytest.fixture
def standby(durable_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Streams from the server, which acknowledges from then on what both have."""
    primary = durable_postgres
    replica = PostgresServer(durable=True, primary=primary)
    try:
        replica.start()
        told(f"PostgreSQL standby of pid {primary.pid}, pid {replica.pid}, port {replica.port}")
        _synchronous(primary, "'*'")
        yield replica
    finally:
        replica.remove()


def _synchronous(primary: PostgresServer, names: str) -> None:
    primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = {names}")
    primary.sql("SELECT pg_reload_conf()")


def either(dsn: str, primary: PostgresServer, standby: PostgresServer) -> str:
    """The address of whichever of both can be written."""
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    return dsn.replace(f"127.0.0.1:{primary.port}", hosts) + "&target_session_attrs=read-write"


@pytest.mark.timeout(900)
async def test_durable_the_writer_follows_a_promotion_while_reads_go_on(
    durable_postgres: PostgresServer, standby: PostgresServer
) -> None:
    """With synchronous replication: nothing acknowledged is lost, positions stay good."""
    primary, dsn = durable_postgres, durable_postgres.database()
    reads = standby.dsn(schema=primary.schema_of(dsn))
    async with live(PostgresStore(either(dsn, primary, standby), read_dsn=reads)) as chain:
        await chain.until(lambda: (gauge("store_replica_lag_seconds") or 0.0) < 5)
        before = await positions(chain)
        await asyncio.to_thread(primary.kill)
        cause = await chain.until_ready(503)
        assert "PostgreSQL" in cause, cause
        assert (await chain.store.head(chain.reader.id)).seq >= before[chain.reader.id][1], "reads use the replica"
        await endured(chain)
        await asyncio.to_thread(standby.sql, "SELECT pg_promote()")
        await proven(chain)
        await kept(chain, before)


@pytest.mark.timeout(300)
async def test_the_lag_of_a_replica_is_shown(durable_postgres: PostgresServer, standby: PostgresServer) -> None:
    primary, dsn = durable_postgres, durable_postgres.database()
    _synchronous(primary, "''")
    reads = standby.dsn(schema=primary.schema_of(dsn))
    async with PostgresStore(dsn, read_dsn=reads) as store:
        [state] = await fresh(store)
        async with PostgresStore("", read_dsn=reads, read_only=True) as reader:
            standby.sql("SELECT pg_wal_replay_pause()")
            await write(store, state, trades(state, 10))
            await until(lambda lags: min(lags) > 1, store, reader)
            found = await asyncio.to_thread(doctor, dsn, reads)
            assert found["state"] == "ok" and re.search(r"[1-9]\d*\.\d s behind", found["detail"]), found
            standby.sql("SELECT pg_wal_replay_resume()")
            await until(lambda lags: max(lags) == 0, store, reader)
            assert (await reader.head("sim:AAA")).seq == 10
            await asyncio.to_thread(primary.kill)
            await until(lambda lags: lags[0] > 0, reader)  # it has applied all it received, and is behind yet
    async with PostgresStore(standby.dsn(schema=primary.schema_of(dsn)), read_only=True) as alone:
        assert await alone.replica_lag() == 0


async def until(holds: Callable[[list[float]], bool], *stores: PostgresStore) -> None:
    """Wait until ``holds`` is true of the lags."""
    async with asyncio.timeout(60):
        while not holds([await store.replica_lag() for store in stores]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class Heard:
    """A ``Listener`` that keeps the seqs of trades."""

    def __init__(self) -> None:
        self.seqs: list[int] = []

    def durable(self, batch: Batch) -> None:
        assert isinstance(batch, TradeBatch) and batch.seq is not None
        self.seqs += batch.seq.tolist()

    def provisional(self, batch: CandleBatch) -> None:
        return None

    def restarted(self) -> None:
        raise AssertionError("the tape is the same")


@pytest.mark.timeout(300)
async def test_live_data_waits_for_a_replica_that_lags_without_storming_it(
    durable_postgres: PostgresServer, standby: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, dsn = durable_postgres, durable_postgres.database()
    reads = standby.dsn(schema=primary.schema_of(dsn))
    times: list[float] = []
    async with MemoryBus() as bus, PostgresStore(dsn, read_dsn=reads) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 5))
        await until(lambda lags: lags[0] == 0, store)
        read = store.head

        async def head(instrument: str) -> Head:
            times.append(asyncio.get_running_loop().time())
            return await read(instrument)

        async with Market(bus, store, RealClock()) as market:
            heard = Heard()
            await market.attach(Channel.parse("trade@sim:AAA"), heard)
            standby.sql("SELECT pg_wal_replay_pause()")
            await write(store, state, trades(state, 5))
            monkeypatch.setattr(store, "head", head)
            bus.offer("head", msgspec.structs.replace(await read("sim:AAA"), seq=10, pos=2))
            async with asyncio.timeout(60):
                while len(times) < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert min(after - before for before, after in pairwise(times)) > 0.09, "one look after the other"
            standby.sql("SELECT pg_wal_replay_resume()")
            async with asyncio.timeout(60):
                while heard.seqs != [6, 7, 8, 9, 10]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


def doctor(dsn: str, reads: str) -> dict[str, str]:
    """What ``tapewick doctor`` finds about the replica."""
    env = {"TAPEWICK_STORE__KIND": "postgres", "TAPEWICK_STORE__DSN": dsn, "TAPEWICK_STORE__READ_DSN": reads}
    found: dict[str, dict[str, str]] = {line["check"]: line for line in rows(tapewick("doctor", "--json", **env))}
    return found["replica"]


@pytest.mark.timeout(300)
async def test_durable_commits_that_a_promotion_lost_are_found_and_no_position_is_reused(
    durable_postgres: PostgresServer, standby: PostgresServer
) -> None:
    """Without synchronous replication the newest commits may be gone: the tape goes on under a new epoch."""
    primary, dsn = durable_postgres, durable_postgres.database()
    _synchronous(primary, "''")
    async with PostgresStore(either(dsn, primary, standby)) as store:
        states = await fresh(store, "AAA", "BBB")
        for state in states:
            await write(store, state, trades(state, 10))
        reached = primary.sql("SELECT pg_current_wal_lsn()").strip()
        async with asyncio.timeout(60):
            while standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{reached}'").strip() != "t":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.to_thread(standby.stop)
        await write(store, states[0], trades(states[0], 5))
        assert (await store.head("sim:AAA")).seq == 15, "acknowledged, and on one server only"
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.start)
        await asyncio.to_thread(standby.sql, "SELECT pg_promote()")
        rewound = counted("store_rewound")
        group = [part(state, trades(state, 3)) for state in states]
        async with asyncio.timeout(60):
            while True:
                try:
                    refused = await store.commit(group)
                    break
                except StoreError:
                    await asyncio.sleep(0.05)
        assert refused == {"sim:AAA"} and counted("store_rewound") == rewound + 1
        assert await store.commit(group[:1]) == {"sim:AAA"}, "once"
        [again] = await store.claim(["sim:AAA"])
        assert (again.seq, again.epoch != states[0].epoch) == (10, True)
        assert (await store.head("sim:BBB")).epoch == states[1].epoch and (await store.head("sim:BBB")).seq == 13


@pytest.mark.timeout(900)
async def test_durable_engines_go_on_by_themselves_where_a_promotion_lost_commits(
    durable_postgres: PostgresServer,
    standby: PostgresServer,
    redis_server: object,  # noqa: F811
) -> None:
    """What was lost is fetched from the venue; clients are told to begin again, and then have it exactly."""
    primary, dsn = durable_postgres, durable_postgres.database()
    _synchronous(primary, "''")
    rig = BusRig("redis", redis_server)
    async with live(PostgresStore(either(dsn, primary, standby)), rig, leased=True) as chain:
        chain.reader.forgiving = True
        before, rewound = await positions(chain), counted("store_rewound")
        await asyncio.to_thread(standby.stop)
        await chain.until_grown()  # acknowledged, and on one server only
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.start)
        await asyncio.to_thread(standby.sql, "SELECT pg_promote()")
        await chain.until(lambda: counted("store_rewound") >= rewound + len(before))
        await proven(chain)
        after = await positions(chain)
        assert all(after[id][0] != epoch for id, (epoch, _) in before.items())
        assert {gap.channel.split("@")[0] for gap in chain.reader.gaps} == {"trade", "candle"}
