"""A running system with its witnesses, and what must be true of it in the end whatever was done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.buses.rig import BusRig
from tests.fault.roles.rig import Cluster, Role, cluster
from tests.fault.roles.witness import Names, Poster, Witness
from tests.fault.truth import assert_tape_is_the_truth
from tests.parts.postgres import PostgresServer

__all__ = ["Scene", "scene"]


class Scene:
    """Roles by kind, one witness per gateway, and a poster at the first gateway."""

    def __init__(self, own: Cluster, seed: int, group: asyncio.TaskGroup) -> None:
        self.cluster, self.seed, self.names = own, seed, Names()
        self._group, self._following = group, list[asyncio.Task[None]]()
        self.collectors: list[Role] = []
        self.engines: list[Role] = []
        self.gateways: list[Role] = []
        self.scanners: list[Role] = []
        self.witnesses: list[Witness] = []
        self.posters: list[Poster] = []
        self._posting: list[asyncio.Task[None]] = []
        self.finished = False

    @property
    def roles(self) -> list[Role]:
        return [*self.collectors, *self.engines, *self.gateways, *self.scanners]

    async def begin(self, *, collectors: int, engines: int, gateways: int, **env: str) -> None:
        """Start that many of each, and wait until every symbol has a tape. 0 collectors: two, of half the symbols."""
        own = self.cluster
        self.engines = [own.add("engine", **env) for _ in range(engines)]
        self.gateways = [own.add("gateway", **env) for _ in range(gateways)]
        words = [()] * collectors if collectors else [("--shard", "0/2"), ("--shard", "1/2")]
        self.collectors = [own.add("collect", *shard, **env) for shard in words]
        for role in self.gateways:
            await own.ready(role)
        await own.grown()

    def watch(self, url: str) -> Witness:
        """One more witness, at ``url``; what it finds wrong ends the scene."""
        self.witnesses.append(Witness(url, self.cluster.ids, self.names))
        self._following.append(self._group.create_task(self.witnesses[-1].follow(), name=f"witness at {url}"))
        return self.witnesses[-1]

    def post(self, url: str, *, senders: int = 4, rate: int = 100) -> None:
        """Have trades sent to ``url`` from now on; each sender waits for an answer before it sends more."""
        for number in range(senders):
            poster = Poster(url, self.cluster.key, f"FEED{len(self.posters)}", seed=self.seed + number)
            self.posters.append(poster)
            self._posting.append(self._group.create_task(poster.post(rate), name=f"poster {number}"))

    async def acknowledged(self, more: int = 1) -> None:
        """Wait until ``more`` trades of each sender have been acknowledged."""
        wanted = [(poster, len(poster.feeder.acknowledged) + more) for poster in self.posters]

        async def enough() -> bool:
            return all(len(poster.feeder.acknowledged) >= least for poster, least in wanted)

        await self.cluster.until(enough, "more webhook trades are acknowledged")

    async def shown(self, more: int = 1, witnesses: Sequence[Witness] = ()) -> None:
        """Wait until each of ``witnesses`` (none: all) was shown ``more`` trades."""
        wanted = [(witness, witness.seen + more) for witness in witnesses or self.witnesses]

        async def enough() -> bool:
            return all(witness.seen >= least for witness, least in wanted)

        await self.cluster.until(enough, "the witnesses are shown more")

    async def finish(self) -> None:
        """End all activity, then compare what is stored and what was shown with what happened. Once."""
        if self.finished:
            return
        own, self.finished = self.cluster, True
        for task in self._posting:
            task.cancel()
        if self._posting:
            await asyncio.wait(self._posting)
        await own.halt()
        trades = await assert_tape_is_the_truth(own)
        acknowledged = sum([await poster.assert_once(own) for poster in self.posters])
        for witness in self.witnesses:
            await witness.assert_exact(own)
        shown = sum(witness.seen for witness in self.witnesses)
        told = f"{trades} trades, {acknowledged} webhook trades acknowledged, {shown} shown to {len(self.witnesses)}"
        print(f"{own.bus.kind}: {told}")  # noqa: T201  # with the seed

    def close(self) -> None:
        for task in self._following:
            task.cancel()


@asynccontextmanager
async def scene(
    bus: BusRig,
    postgres: PostgresServer,
    seed: int,
    *,
    collectors: int = 1,
    engines: int = 1,
    gateways: int = 1,
    post: bool = True,
    **env: str,
) -> AsyncIterator[Scene]:
    """Everything runs: that many roles, a witness at each gateway, senders at the first. Ends with ``finish``.

    0 ``collectors``: two that share the symbols, statically.
    """
    async with cluster(bus, postgres, seed=seed) as own, asyncio.TaskGroup() as group:
        made = Scene(own, seed, group)
        await made.begin(collectors=collectors, engines=engines, gateways=gateways, **env)
        for role in made.gateways:
            made.watch(role.url)
        await made.shown()
        if post:
            made.post(made.gateways[0].url)
            await made.acknowledged()
        yield made
        await made.finish()
        made.close()
