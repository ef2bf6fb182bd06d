"""The scan role: one scanner per contract, each active in one process at a time, and what it makes known on the bus.

A scanner's steps are announced by the store's log, not by what the scanner remembers: whoever scans next goes on from
what the store knows the bus has taken, and first says again the last that some receiver may have missed. So receivers
hear everything at least once, in order, and tell what they know by its number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import structlog

from tapewick import metrics
from tapewick.clock import Clock
from tapewick.errors import BusError, ChainError, Fenced, StoreError
from tapewick.protocols import Bus, ScanStore
from tapewick.scans import Announcement, lease_name

if TYPE_CHECKING:
    from tapewick.leases import Leases

__all__ = ["TOPIC", "ScanRole", "Scanning"]

log = structlog.get_logger()

TOPIC = "orders"
AGAIN = 1000  # announcements that are said again by who takes over
PAGE = 500
LOOK = 5.0  # seconds after which the log is looked at without a call: a commit may succeed whose answer is lost
PAUSE = 1.0  # seconds until a failure is tried again


class Scanning(Protocol):
    """A scanner: ``run`` until cancelled; ``trouble`` tells why it does not come on, None while it does."""

    async def run(self) -> None: ...

    @property
    def trouble(self) -> str | None: ...


Make: TypeAlias = Callable[[str, Callable[[Sequence[Announcement]], None]], Scanning]
"""A scanner of a component, to be told whom to call after each commit."""


class ScanRole:
    """The scanner of ``component`` while this process holds its lease.

    ``last``: a chain that contradicts what is stored of it ends ``run`` with that error; else it is told as trouble,
    for a process that has other work.
    """

    def __init__(
        self,
        component: str,
        make: Make,
        *,
        bus: Bus,
        store: ScanStore,
        leases: Leases,
        clock: Clock,
        last: bool,
    ) -> None:
        self.component = component
        self._make, self._bus, self._store, self._leases, self._clock = make, bus, store, leases, clock
        self._last = last
        self._ended: str | None = None
        self._refused: str | None = None
        self._scanner: Scanning | None = None
        self._announced = asyncio.Event()
        self._said: int | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing comes of this contract; None while it does, or another process scans it."""
        if self._ended is not None:
            return self._ended
        told = self._refused or (self._scanner.trouble if self._scanner is not None else None)
        return None if told is None else f"{self.component}: {told}"

    async def run(self) -> None:
        """Scan whenever the lease is ours. Ends only by ``ChainError``, and only where that is ``last``."""
        try:
            await self._leases.guarded(lease_name(self.component), self._hold)
        except ChainError as error:
            if self._last:
                raise
            self._ended = f"{self.component}: {error}"
            log.error("scanning has ended", component=self.component, cause=str(error))
            await asyncio.Event().wait()

    async def _hold(self) -> None:
        """Scan, from what the store holds again whenever it fails: whether a step that failed is in it is not known.

        A step refused because another scanner has taken over is tried again only while the lease is ours.
        """
        while True:
            try:
                await self._scan()
            except StoreError as error:
                if isinstance(error, Fenced):
                    metrics.scan_fenced.labels(self.component).inc()
                log.warning("a step failed", component=self.component, cause=str(error))
                self._refused = str(error)
            await self._leases.renewed()  # ends this where the lease is another's by now
            await self._clock.sleep(PAUSE)

    async def _scan(self) -> None:
        self._scanner = self._make(self.component, self._wake)
        tasks = [
            asyncio.create_task(self._scanner.run(), name=f"scan {self.component}"),
            asyncio.create_task(self._announce(), name=f"announce {self.component}"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._scanner = None
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _wake(self, _: Sequence[Announcement]) -> None:
        self._announced.set()

    # -- the log, onto the bus -----------------------------------------------------------------

    async def _announce(self) -> None:
        self._said = None
        while True:
            self._announced.clear()
            try:
                if self._said is None:
                    state = await self._store.scanned(self.component)
                    self._said = 0 if state is None else max(0, min(state.said, state.seq - AGAIN))
                await self._say(self._said)
                self._refused = None
            except (StoreError, BusError) as error:
                log.warning("orders are not announced; trying on", component=self.component, cause=str(error))
                await self._clock.sleep(PAUSE)
                continue
            try:
                async with asyncio.timeout(LOOK):
                    await self._announced.wait()
            except TimeoutError:
                continue

    async def _say(self, said: int) -> None:
        """Publish what the log holds after number ``said``, and have the store know of it."""
        while page := await self._store.order_log(self.component, said, PAGE):
            for one in page:
                await self._bus.publish(TOPIC, one)
                self._said = said = one.seq
            await self._store.said(self.component, said)
