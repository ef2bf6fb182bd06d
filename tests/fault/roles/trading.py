"""Orders on a real node that never stop coming while scanners die, and what must be known of them in the end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from tapewick.protocols import Bus
from tapewick.scans import Announcement, lease_name
from tests.chain.orders_contract import OrdersContract
from tests.fault.roles.rig import Cluster, Role

__all__ = ["Trading", "trading"]

PACE = 0.02  # seconds between two acts at most
PAGE = 1000


class Trading:
    """Users of one contract, and somebody who listens to what is announced of it.

    ``acts``: hash of each transaction to the kind of its event; ``status``: of each order by its id.
    """

    def __init__(self, own: Cluster, contract: OrdersContract, bus: Bus, seed: int, pace: float) -> None:
        self.cluster, self.contract = own, contract
        self.component = f"{contract.node.chain_id}/{contract.address}"
        self.acts: dict[str, str] = {}
        self.status: dict[str, str] = {}
        self.heard: dict[int, Announcement] = {}
        self.messages, self.lost = 0, False
        self._pace = pace
        self._rng, self._subscription = random.Random(seed), bus.subscribe(["orders"])
        self._trading: asyncio.Task[None] | None = None

    @property
    def env(self) -> dict[str, str]:
        """What a scanner is told beside what every role is."""
        return {
            "TAPEWICK_CHAIN__ID": str(self.contract.node.chain_id),
            "TAPEWICK_CHAIN__RPC_URLS": self.contract.node.url,
            "TAPEWICK_CHAIN__CONTRACTS": self.contract.address,
            "TAPEWICK_CHAIN__START_BLOCK": "0",
            "TAPEWICK_CHAIN__CONFIRMATIONS": "2",
            "TAPEWICK_CHAIN__POLL_S": "0.05",
        }

    async def trade(self) -> None:
        """Create orders and do something to them, for ever."""
        while True:
            await asyncio.to_thread(self._act)
            await asyncio.sleep(self._rng.uniform(0, self._pace))

    def _act(self) -> None:
        own, rng = self.contract, self._rng
        pending = [id for id, status in self.status.items() if status == "PENDING"]
        what = rng.choice(("created", "modified", "executed", "cancelled")) if len(pending) > 3 else "created"
        old = rng.random() < 0.5
        if what == "created":
            id, status = len(self.status) + 1, "PENDING"
            tx = own.create(id, old=old)
        else:
            id = int(rng.choice(pending))
            status = {"modified": "PENDING"}.get(what, what.upper())
            if what == "modified":
                tx = own.modify(id, rng.randrange(10**18), 5, old=old)
            else:
                tx = own.execute(id, 7, old=old) if what == "executed" else own.cancel(id, old=old)
        self.acts[tx], self.status[str(id)] = what, status

    async def listen(self) -> None:
        """Take down what is announced. Raises ``AssertionError`` when a number means two things."""
        async for delivery in self._subscription:
            self.lost |= delivery.lost
            one: Any = delivery.message
            assert isinstance(one, Announcement) and one.component == self.component, one
            self.messages += 1
            known = self.heard.setdefault(one.seq, one)
            assert known == one, f"number {one.seq} was said of {known} and of {one}"

    async def stored(self, more: int = 1, seconds: float = 120.0) -> None:
        """Wait until ``more`` of the acts that come after this call are stored."""
        wanted = len(self.acts) + more

        async def so() -> bool:
            return len(self.acts) >= wanted and await self.count() >= wanted

        await self.cluster.until(so, f"{wanted} events are stored", seconds)

    async def count(self) -> int:
        """How many events are stored."""
        return int((await self._ask("SELECT count(*) FROM order_events"))[0][0])

    async def _ask(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self.cluster.dsn)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    async def active(self, roles: list[Role]) -> Role:
        """Wait until one of ``roles`` holds the lease; that one."""
        name = lease_name(self.component)

        async def so() -> Role | None:
            holder = (await self.cluster.leases(name)).get(name, "")
            return next((role for role in roles if role.alive and f"-{role.pid}-" in holder), None)

        found: Role = await self.cluster.until(so, "a scanner has the lease")
        return found

    def begin(self, group: asyncio.TaskGroup) -> None:
        self._trading = group.create_task(self.trade(), name="trading")

    async def finish(self) -> None:
        """End trading; then everything that happened is stored once, and announced."""
        assert self._trading is not None
        self._trading.cancel()
        await asyncio.wait({self._trading})
        self.contract.node.mine(12)  # everything becomes final
        store: Any = self.cluster.store

        async def caught_up() -> bool:
            state = await store.scanned(self.component)
            return state is not None and state.cursor >= self.contract.node.head and state.finalized >= state.cursor - 9

        await self.cluster.until(caught_up, "the scanner is at the head")
        rows = await self._ask("SELECT tx_hash, kind, canonical FROM order_events")
        assert {row["tx_hash"]: row["kind"] for row in rows} == self.acts, "every act is an event"
        assert len(rows) == len(self.acts) and all(row["canonical"] for row in rows), "once"
        orders = await self._ask("SELECT order_id, status FROM orders")
        assert sorted(map(tuple, orders)) == sorted(self.status.items()), "orders are what happened to them"
        log = await self._log()
        assert [one.seq for one in log] == list(range(1, len(log) + 1)), "announcements have no hole"
        told = Counter((one.event.tx_hash, one.kind) for one in log if one.event and one.kind != "order.finality")
        assert told == Counter({(tx, f"order.{kind}"): 1 for tx, kind in self.acts.items()}), "each announced once"
        rises = Counter((one.event.tx_hash, one.finality) for one in log if one.event and one.kind == "order.finality")
        assert all(count == 1 for count in rises.values()), "no finality is announced twice"
        await self._all_heard(log)
        print(  # noqa: T201  # with the seed
            f"{self.cluster.bus.kind}: {len(self.acts)} events of {len(self.status)} orders, {len(log)} announcements, "
            f"{self.messages} messages of them"
        )

    async def _all_heard(self, log: list[Announcement]) -> None:
        """What came by the bus, each number once, is the log; where the bus lost something, the log fills it."""

        async def so() -> bool:
            return len(self.heard) == len(log) or (self.lost and len(log) in self.heard)

        await self.cluster.until(so, "the bus has carried every announcement")
        assert all(log[seq - 1] == one for seq, one in self.heard.items())

    async def _log(self) -> list[Announcement]:
        store: Any = self.cluster.store
        found: list[Announcement] = []
        while page := await store.order_log(self.component, len(found), PAGE):
            found += page
        return found

    async def close(self) -> None:
        await self._subscription.close()


@asynccontextmanager
async def trading(own: Cluster, contract: OrdersContract, seed: int, *, pace: float = PACE) -> AsyncIterator[Trading]:
    """Orders are created until the end of the block, which ends with ``finish``. ``pace``: seconds between two acts."""
    async with own.bus.make() as bus, asyncio.TaskGroup() as group:
        made = Trading(own, contract, bus, seed, pace)
        listening = group.create_task(made.listen(), name="listening")
        made.begin(group)
        yield made
        await made.finish()
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await made.close()
