"""PostgreSQL is away, stands still, is full, read-only, slow, or dies for good: nothing acknowledged is lost, readiness
says why, no queue grows without bound, and afterwards the tape is the venue's truth without anybody's help.

``TAPEWICK_OUTAGE_S`` sets how long the server is away.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tapewick.errors import StoreError
from tapewick.stores.postgres import PostgresStore
from tests.buses.rig import BusRig
from tests.fault.outages import LATER, endured, kept, live, positions, proven
from tests.parts.absent import absent
from tests.parts.postgres import PostgresServer
from tests.parts.redis import redis_server  # noqa: F401


@pytest.mark.parametrize("bus", ["memory", "redis"])
@pytest.mark.timeout(900)
async def test_durable_a_server_stopped_under_load(
    bus: str, durable_postgres: PostgresServer, request: pytest.FixtureRequest
) -> None:
    server = durable_postgres
    rig = BusRig(bus, None if bus == "memory" else request.getfixturevalue(f"{bus}_server"))
    store = PostgresStore(server.database())
    async with live(store, rig) as chain:
        before = await positions(chain)
        await asyncio.to_thread(server.stop)
        cause = await chain.until_ready(503)
        assert "PostgreSQL" in cause and f":{server.port}/" in cause, cause
        assert "takes nothing in" in await chain.told("store", "stale"), "clients are told"
        await chain.until(lambda: store.trouble)
        await endured(chain)
        await asyncio.to_thread(server.start)
        await proven(chain)
        await kept(chain, before)
        await chain.told("store", "connected")
        await chain.until(lambda: store.trouble is None)


@pytest.mark.timeout(900)
async def test_durable_a_server_killed_again_and_again_under_load(durable_postgres: PostgresServer) -> None:
    server = durable_postgres
    async with live(PostgresStore(server.database())) as chain:
        before = await positions(chain)
        for _ in range(3):
            await asyncio.to_thread(server.kill)
            await chain.until_ready(503)
            await asyncio.to_thread(server.start)
            await chain.until_ready(200)
            await chain.until_grown(20)
        await proven(chain)
        await kept(chain, before)


@pytest.mark.timeout(900)
async def test_a_server_that_stands_still(durable_postgres: PostgresServer) -> None:
    """It neither answers nor ends a connection: the engine is not ready before any time-out of the driver."""
    server, store = durable_postgres, PostgresStore(durable_postgres.database())
    async with live(store) as chain:
        before = await positions(chain)
        server.pause()
        try:
            assert "has not answered" in await chain.until_ready(503)
            await chain.until(lambda: store.trouble)
            await endured(chain)
        finally:
            server.resume()
        await proven(chain)
        await kept(chain, before)


@pytest.mark.timeout(900)
async def test_instruments_announced_while_the_server_is_away_wait_for_it(durable_postgres: PostgresServer) -> None:
    """A collector that connects anew names its instruments: that must not end an engine whose store is away."""
    server = durable_postgres
    async with live(PostgresStore(server.database())) as chain:
        await asyncio.to_thread(server.stop)
        await chain.until_ready(503)
        chain.venue.drop_connections()
        chain.collect([LATER])
        await endured(chain)
        await asyncio.to_thread(server.start)
        await chain.until_ready(200)
        chain.symbols = (*chain.symbols, LATER)
        await chain.until_grown()
        await proven(chain)


@pytest.mark.timeout(900)
async def test_a_server_that_takes_five_seconds_for_each_commit(postgres: PostgresServer) -> None:
    server, dsn = postgres, postgres.database()
    schema = server.schema_of(dsn)
    async with live(PostgresStore(dsn)) as chain:
        await asyncio.to_thread(  # it waits for the commit under way, which needs this loop
            server.sql,
            f"CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_sleep(5); RETURN NULL; END$$;"
            f"CREATE TRIGGER slow BEFORE UPDATE ON {schema}.tape_head EXECUTE FUNCTION {schema}.wait()",
        )
        assert "has not answered" in await chain.until_ready(503)
        await endured(chain, 12)
        await chain.until_grown(1)  # slow is not away
        await asyncio.to_thread(server.sql, f"DROP TRIGGER slow ON {schema}.tape_head")
        await proven(chain)


@pytest.mark.timeout(900)
async def test_durable_a_server_that_became_read_only(durable_postgres: PostgresServer) -> None:
    server = durable_postgres

    def read_only(state: str) -> None:
        server.sql(f"ALTER SYSTEM SET default_transaction_read_only = {state}")
        server.sql("SELECT pg_reload_conf()")

    async with live(PostgresStore(server.database())) as chain:
        before = await positions(chain)
        read_only("on")
        cause = await chain.until_ready(503)
        assert "is read-only" in cause and "point store.dsn at the primary" in cause, cause
        await endured(chain)
        assert (await chain.store.head(chain.reader.id)).seq >= before[chain.reader.id][1], "it can be read"
        read_only("off")
        await proven(chain)
        await kept(chain, before)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own with room for a server and little more, where its user can get to."""
    folder = Path(tempfile.mkdtemp(prefix="tapewick-disk-"))
    folder.chmod(0o755)
    words = ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(words, capture_output=True).returncode:
        folder.rmdir()
        absent("a file system cannot be mounted: this needs root, with CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@pytest.mark.timeout(900)
async def test_durable_a_disk_that_is_full(small_disk: Path) -> None:
    server = PostgresServer(durable=True, within=small_disk, options=("max_wal_size=32MB", "wal_recycle=off"))
    try:
        await asyncio.to_thread(server.start)
        async with live(PostgresStore(server.database())) as chain:
            before = await positions(chain)
            ballast = small_disk / "ballast"
            _fill(ballast)
            cause = await chain.until_ready(503)
            assert "PostgreSQL" in cause, cause
            _fill(ballast)  # what it gave back meanwhile
            await endured(chain)
            assert (await chain.ready())[0] == 503
            ballast.unlink()
            if not await asyncio.to_thread(server.running):  # it gives up where not even its log can be written
                await asyncio.to_thread(server.start)
            await proven(chain)
            await kept(chain, before)
    finally:
        await asyncio.to_thread(server.remove)


def _fill(path: Path) -> None:
    """Write until nothing more fits."""
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


async def test_why_a_connection_was_lost_is_told(postgres: PostgresServer) -> None:
    async def job(connection: Any) -> None:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with PostgresStore(postgres.database()) as store:
        with pytest.raises(StoreError, match="was lost.*terminating connection"):
            await store._database.write(job)
        await store.instruments()
