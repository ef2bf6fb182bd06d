"""Leases in a process: waiting for a name, losing it, fair shares, a store that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick._shares import fair_share
from tapewick.clock import ManualClock
from tapewick.errors import LeaseLost, StoreError
from tapewick.leases import Leases
from tapewick.model import Lease
from tapewick.stores.duckdb import DuckDBStore
from tapewick.stores.postgres import PostgresStore
from tests.parts.postgres import PostgresServer

PATIENCE = 60


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110  # there is no event for every state
            await asyncio.sleep(0.005)


class Moody(DuckDBStore):
    """A store that answers leases only while ``answers`` is set, and refuses them while ``refuses`` says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.answers = asyncio.Event()
        self.answers.set()
        self.refuses = ""
        self.asked = 0

    async def lease(self, holder: str, take: Collection[str], ttl: float) -> dict[str, Lease]:
        self.asked += 1
        if self.refuses:
            raise StoreError(self.refuses)
        found = await super().lease(holder, take, ttl)
        await self.answers.wait()  # the answer is late, not the lease
        return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Moody]:
    async with Moody(tmp_path) as opened:
        yield opened


async def test_a_name_is_held_by_one_at_a_time_and_handed_over(store: Moody) -> None:
    inside: list[str] = []
    async with Leases(store, ttl=5) as one, Leases(store, ttl=5) as two:
        assert one.holder != two.holder and len(one.holder) <= 64

        async def enter(leases: Leases, name: str) -> None:
            async with leases.sole("x"):
                assert not inside
                inside.append(name)
                for _ in range(3):
                    await asyncio.sleep(0.01)
                assert await leases.renewed() and leases.holds("x")
                inside.remove(name)

        await asyncio.wait_for(asyncio.gather(*(enter(own, n) for own in (one, two) for n in "abc")), PATIENCE)
        assert not one.holds("x")


async def test_everything_is_given_back_at_the_end(store: Moody) -> None:
    async with Leases(store, holder="me", ttl=PATIENCE) as leases, leases.sole("x"):
        assert (await store.lease("looks on", [], 1))["x"].holder == "me"
    assert await store.lease("looks on", [], 1) == {}


async def test_what_is_given_back_is_had_by_who_waits(store: Moody) -> None:
    async with Leases(store, ttl=PATIENCE) as one, Leases(store, ttl=PATIENCE) as two:
        async with AsyncExitStack() as stack:
            async with one.sole("x"):
                waiting = asyncio.create_task(stack.enter_async_context(two.sole("x")))
                await until(lambda: "x" in two._wanted)
            await asyncio.wait_for(waiting, PATIENCE)
            assert two.holds("x") and not one.holds("x")


async def test_a_dead_holders_name_is_had_when_it_has_run_out(store: Moody) -> None:
    await store.lease("dead", ["x"], 0.5)
    async with Leases(store, ttl=PATIENCE) as leases, asyncio.timeout(PATIENCE), leases.sole("x"):
        assert leases.holds("x")


async def test_a_store_that_is_late_ends_what_is_done_under_the_lease(store: Moody) -> None:
    """The seconds count from before the question was sent, by our own clock, though the store has granted them."""
    clock = ManualClock()
    async with Leases(store, ttl=10, clock=clock) as leases:
        inside = asyncio.Event()

        async def work() -> None:
            async with leases.sole("x"):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.wait_for(inside.wait(), PATIENCE)
        store.answers.clear()
        asked = store.asked
        clock.advance(1)
        await until(lambda: store.asked > asked)
        clock.advance(8.9)
        await settled()
        assert leases.holds("x") and not task.done()
        clock.advance(0.2)
        assert not leases.holds("x")
        with pytest.raises(LeaseLost, match="'x' was lost"):
            await asyncio.wait_for(task, PATIENCE)
        # The late answer tells of a lease that has run out by then.
        clock.advance(0.95)
        store.answers.set()
        await settled()
        assert not leases.holds("x")


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_guarded_work_stops_and_begins_again(store: Moody) -> None:
    clock = ManualClock()
    begun, ended = 0, 0

    async def work() -> None:
        nonlocal begun, ended
        begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    async with Leases(store, ttl=10, clock=clock) as leases:
        guarding = asyncio.create_task(leases.guarded("x", work))
        await until(lambda: begun == 1)
        store.refuses = "the disk is full; free some"
        for _ in range(12):
            clock.advance(1)
            await settled()
        await until(lambda: ended == 1)
        assert leases.trouble is not None and "the disk is full" in leases.trouble and begun == 1
        store.refuses = ""
        clock.advance(1)
        await until(lambda: begun == 2)
        assert leases.trouble is None
        guarding.cancel()
        await asyncio.wait({guarding})
        assert ended == 2


async def test_what_guarded_work_raises_is_raised(store: Moody) -> None:
    async def work() -> None:
        raise ValueError("broken")

    async with Leases(store, ttl=10) as leases:
        with pytest.raises(ValueError, match="broken"):
            await asyncio.wait_for(leases.guarded("x", work), PATIENCE)


@given(data=st.data(), count=st.integers(1, 32), members=st.integers(1, 40))
def test_shares_differ_by_one_and_stand(data: st.DataObject, count: int, members: int) -> None:
    """From any distribution, all acting one after the other on what they see: all is had, evenly, and stays."""
    owner = {at: data.draw(st.one_of(st.none(), st.integers(0, members - 1))) for at in range(count)}
    for turn in range(4):
        before = dict(owner)
        for rank in range(members):
            mine = {at for at, who in owner.items() if who == rank}
            free = {at for at, who in owner.items() if who is None}
            keep, take = fair_share(count, members, rank, mine=mine, free=free)
            assert keep <= mine and take <= free
            owner |= dict.fromkeys(mine - keep, None) | dict.fromkeys(take, rank)
        if turn > 1:
            assert owner == before
    sizes = [list(owner.values()).count(rank) for rank in range(members)]
    assert None not in owner.values() and max(sizes) - min(sizes) <= 1


class Member:
    """Takes part in group ``engine`` of 8, noting what it has."""

    def __init__(self, leases: Leases) -> None:
        self.leases, self.has = leases, frozenset[int]()
        self.values: list[frozenset[int]] = []
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        async for has in self.leases.share("engine", 8):
            if not has >= self.has:
                await self.may_close.wait()
            self.has = has
            self.values.append(has)


@asynccontextmanager
async def member(store: DuckDBStore | PostgresStore, ttl: float = 5, **more: object) -> AsyncIterator[Member]:
    async with Leases(store, ttl=ttl, **more) as leases:  # type: ignore[arg-type]
        made = Member(leases)
        try:
            yield made
        finally:
            made.task.cancel()
            await asyncio.wait({made.task})


def shared(*members: Member) -> bool:
    """Whether each partition has an owner and shares are fair."""
    sizes = sorted(len(one.has) for one in members)
    return frozenset().union(*(one.has for one in members)) == frozenset(range(8)) and sizes[-1] - sizes[0] <= 1


async def test_members_come_and_go_and_share(store: Moody) -> None:
    async with member(store) as one:
        await until(lambda: shared(one))
        assert one.values == [frozenset(range(8))]
        async with member(store) as two:
            await until(lambda: shared(one, two))
            async with member(store) as three:
                await until(lambda: shared(one, two, three))
            await until(lambda: shared(one, two))
        await until(lambda: shared(one))


async def test_a_surplus_is_given_back_only_once_it_is_closed(store: Moody) -> None:
    async with member(store) as one:
        await until(lambda: shared(one))
        one.may_close.clear()
        async with member(store) as two:
            await until(lambda: two.leases.holds(f"engine/member/{two.leases.holder}"))
            await until(lambda: "engine/member/" + two.leases.holder in one.leases._standing)
            for _ in range(3):
                await one.leases.renewed()
                assert not two.has and len(one.leases._held) == 9
            one.may_close.set()
            await until(lambda: shared(one, two))


async def test_a_lost_share_is_missing_from_one_value_at_least(store: Moody) -> None:
    clock = ManualClock()
    async with member(store, clock=clock, ttl=10) as one:
        await until(lambda: shared(one))
        store.answers.clear()
        asked = store.asked
        clock.advance(1)
        await until(lambda: store.asked > asked)
        clock.advance(11)
        await until(lambda: one.values[-1] == frozenset())
        store.answers.set()
        for _ in range(3):
            clock.advance(1)
            await settled()
        await until(lambda: shared(one))


async def test_more_members_than_shares(store: Moody) -> None:
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(member(store)) for _ in range(10)]
        await until(lambda: shared(*members))
        assert sorted(len(one.has) for one in members) == [0, 0, *[1] * 8]


async def test_no_number_has_two_owners_while_members_churn(postgres: PostgresServer) -> None:
    """Each member believes to have what it has: over real connections, with members that come, go and die."""
    dsn = postgres.database()
    alive: list[Member] = []

    def check() -> None:
        owned = [at for one in alive for at in one.has if one.leases.holds(f"engine/{at}")]
        assert len(owned) == len(set(owned))

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(PostgresStore(dsn)) for _ in range(3)]
        for turn in range(4):
            made = [member(store, ttl=1.5) for store in stores]
            alive[:] = [await one.__aenter__() for one in made]
            async with asyncio.timeout(PATIENCE):
                while not shared(*alive):
                    check()
                    await asyncio.sleep(0.01)
            dead = alive.pop(turn % 3)
            dead.task.cancel()
            dead.leases._task.cancel()  # type: ignore[union-attr]  # killed: nothing is given back
            async with asyncio.timeout(PATIENCE):
                while not shared(*alive):
                    check()
                    await asyncio.sleep(0.01)
            for one in made:
                await one.__aexit__(None, None, None)
