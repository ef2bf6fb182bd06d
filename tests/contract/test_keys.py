"""What every place for API keys promises, tried on the file of a data folder and on the table gateways share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from tapewick.clock import ManualClock
from tapewick.errors import ConfigError, StoreError
from tapewick.gateways._auth import Guard
from tapewick.keys import KeyFile
from tapewick.stores._postgres_keys import KeyTable
from tapewick.stores.postgres import migrate
from tests.parts.postgres import PostgresServer

T = TypeVar("T")
Place: TypeAlias = "Callable[[], Awaitable[Any]]"
SECOND = 10**9


async def had(value: T | Awaitable[T]) -> T:
    """What a file answers at once and a table after a while."""
    return await value if isinstance(value, Awaitable) else value


async def until(holds: Callable[[], bool]) -> None:
    """A change made elsewhere is seen within a bound: wait for it, no longer than a test may last."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000 * SECOND)


@pytest.fixture(params=["file", "table"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Place]:
    """Opens the same keys again, as another host does."""
    dsn = ""
    if request.param == "table":
        server: PostgresServer = request.getfixturevalue("postgres")
        dsn = server.database()
        await migrate(dsn)
    async with AsyncExitStack() as stack:

        async def opened() -> Any:
            made = KeyTable(dsn, clock=clock, refresh=0.05) if dsn else KeyFile(tmp_path, clock)
            await made.start()
            stack.push_async_callback(made.stop)
            return made

        yield opened


async def test_a_key_made_elsewhere_is_known_and_one_revoked_elsewhere_is_not(place: Place) -> None:
    here, there = await place(), await place()
    key, token = await had(here.create(["ingest"], instruments="hook:*", note="mine"))
    await until(lambda: there.grant(token) is not None)
    grant = there.grant(token)
    assert grant == here.grant(token) and grant.id == key.id
    assert grant.scopes == {"ingest"} and grant.covers("hook:A") and not grant.covers("sim:A")
    revoked = await had(there.revoke(key.id))
    assert revoked.revoked and there.grant(token) is None
    await until(lambda: here.grant(token) is None)
    assert (await had((await place()).keys())) == (revoked,)


async def test_who_sends_is_the_key_itself_or_who_was_named(place: Place) -> None:
    here = await place()
    for source in (None, "desk", ""):
        key, token = await had(here.create(["ingest"], source=source))
        grant = (await place()).grant(token)
        assert grant is not None and grant.source == key.source == (key.id if source is None else source)
        assert grant.sender == (key.source or key.id)
    with pytest.raises(ConfigError, match="--source"):
        await had(here.create(["ingest"], source="a\0b"))


async def test_only_the_whole_key_opens(place: Place) -> None:
    keys = await place()
    key, token = await had(keys.create(["read"]))
    other = (await had(keys.create(["read"])))[1]
    strangers = ("", key.id, token[:-1], token + "x", key.id + other[11:], "tw_", "x" * 500, token.upper())
    assert keys.grant(token) is not None
    assert [one for one in strangers if keys.grant(one) is not None] == []


async def test_what_is_kept_is_hashed_and_in_the_order_of_making(place: Place, clock: ManualClock) -> None:
    keys, made = await place(), []
    for scopes in (["read"], ["ingest", "read"], ["admin"]):
        made.append(await had(keys.create(scopes)))
        clock.advance(1)
    stored = await had((await place()).keys())
    assert list(stored) == [key for key, _ in made]
    assert not any(token in repr(stored) or token[12:] in repr(stored) for _, token in made)
    assert stored[1].scopes == ("read", "ingest")


async def test_a_key_expires(place: Place, clock: ManualClock) -> None:
    keys = await place()
    _, token = await had(keys.create(["read"], days=1))
    clock.advance(86_399)
    assert keys.grant(token) is not None
    clock.advance(2)
    assert keys.grant(token) is None


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "Admin"]])
async def test_unknown_scopes_and_keys_are_refused(place: Place, scopes: list[str]) -> None:
    keys = await place()
    with pytest.raises(ConfigError, match="scope"):
        await had(keys.create(scopes))
    with pytest.raises(ConfigError, match="no key"):
        await had(keys.revoke("tw_nobody"))


async def test_revoking_twice_keeps_the_first_time(place: Place, clock: ManualClock) -> None:
    keys = await place()
    key, _ = await had(keys.create(["read"]))
    first = await had(keys.revoke(key.id))
    clock.advance(60)
    assert await had(keys.revoke(key.id)) == first


async def test_a_guard_asks_it_without_waiting(place: Place) -> None:
    keys = await place()
    guard = Guard(keys=keys, required=True)
    key, token = await had(keys.create(["ingest"]))
    assert guard.check(token, "ingest").id == key.id


async def test_durable_keys_go_on_counting_while_the_database_is_away(durable_postgres: PostgresServer) -> None:
    dsn = durable_postgres.database()
    await migrate(dsn)
    table = KeyTable(dsn, refresh=0.02)
    await table.start()
    try:
        key, token = await table.create(["ingest"])
        durable_postgres.stop()
        with pytest.raises(StoreError, match="PostgreSQL"):
            await table.keys()
        assert table.grant(token) is not None
        durable_postgres.start()
        other = KeyTable(dsn)
        await other.start()
        await other.revoke(key.id)
        await other.stop()
        await until(lambda: table.grant(token) is None)
    finally:
        await table.stop()
