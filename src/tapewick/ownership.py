"""What the processes on one store must agree on, and whether every partition of instruments has an engine.

Both are read off the leases: each collector and engine holds ``partitions/COUNT/HOLDER`` while it lives, engines hold
``engine/NUMBER``, and one with a fixed part ``shard/I/N/HOLDER``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import structlog

from tapewick import metrics
from tapewick.clock import Clock
from tapewick.errors import ConfigError, StoreError
from tapewick.leases import Leases
from tapewick.model import Health
from tapewick.protocols import Bus, Store

__all__ = ["check_partitions", "declared", "partitions_name", "shard_name", "unowned", "watch_owners"]

LOOK = 5.0
"""Seconds between two looks for partitions without an owner."""
SOURCE = "engines"
LOOKER, ASKING = "looks on", 1.0  # who asks, for how many seconds: holds nothing, so renews nothing, and takes nothing


def partitions_name(count: int, holder: str) -> str:
    """The lease that says with how many partitions ``holder`` runs."""
    return f"partitions/{count}/{holder}"


def shard_name(shard: tuple[int, int], holder: str) -> str:
    """The lease of an engine with a fixed part."""
    return f"shard/{shard[0]}/{shard[1]}/{holder}"


@asynccontextmanager
async def declared(leases: Leases, names: Iterable[str]) -> AsyncIterator[None]:
    """Hold ``names``, which nobody else wants, while the context is open: they tell others how this process runs."""
    tasks = [asyncio.create_task(leases.guarded(name, _nothing), name=name) for name in names]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def check_partitions(store: Store, count: int) -> None:
    """Raises ``ConfigError`` where a process on the same store runs with another number of partitions: what it sends
    would reach nobody."""
    for name in await store.lease(LOOKER, (), ASKING):
        kind, _, rest = name.partition("/")
        number, _, other = rest.partition("/")
        if kind == "partitions" and int(number) != count:
            raise ConfigError(
                f"engine.partitions is {count} here and {number} in {other}: it must be the same in every process on "
                "one store and bus; to change it stop them all first"
            )


def unowned(names: Iterable[str], count: int) -> frozenset[int]:
    """The partitions of ``count`` that no lease of ``names`` gives to an engine."""
    free = set(range(count))
    for name in names:
        kind, *rest = name.split("/")
        if kind == "engine" and len(rest) == 1:
            free.discard(int(rest[0]))
        elif kind == "shard":
            free -= set(range(int(rest[0]), count, int(rest[1])))
    return frozenset(free)


async def watch_owners(store: Store, bus: Bus, clock: Clock, *, count: int) -> None:
    """Tell by metric, log and topic ``health`` of partitions that had no engine at two looks in a row."""
    before: frozenset[int] = frozenset()
    told = False
    while True:
        try:
            now = unowned(await store.lease(LOOKER, (), ASKING), count)
        except StoreError:
            now = before  # that the store is away is told by others
        lasting, before = now & before, now
        metrics.partitions_unowned.set(len(lasting))
        if bool(lasting) != told:
            told = bool(lasting)
            detail = f"{len(lasting)} of {count} partitions have no engine: nothing new of their instruments is stored"
            log = structlog.get_logger()
            (log.error if told else log.info)("engines", state="missing" if told else "there again", partitions=count)
            bus.offer("health", _health(clock.now(), detail if told else ""))
        await clock.sleep(LOOK)


def _health(now: int, detail: str) -> Health:
    return Health(source=SOURCE, state="stale" if detail else "connected", ts=now, detail=detail)


async def _nothing() -> None:
    """A name that is only held needs no work."""
