"""A scanner that runs beside a test, and what it told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from tapewick.chain.scanner import Scanner
from tapewick.clock import RealClock
from tapewick.net.backoff import Backoff
from tapewick.net.jsonrpc import JsonRpc
from tapewick.scans import Announcement

if TYPE_CHECKING:
    from tapewick.protocols import ScanStore

__all__ = ["Run", "scanning"]


class Run:
    """``told``: everything that was announced, in order."""

    def __init__(self, scanner: Scanner, rpc: JsonRpc, task: asyncio.Task[None], told: list[Announcement]) -> None:
        self.scanner = scanner
        self.rpc = rpc
        self.task = task
        self.told = told

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for ``holds()``; what ends the scanner ends the wait."""
        while not holds():
            if self.task.done():
                await self.task
            await asyncio.sleep(0.01)


@asynccontextmanager
async def scanning(
    urls: Sequence[str], store: ScanStore, *, chain_id: int, contract: str, pace: Backoff | None = None, **how: Any
) -> AsyncIterator[Run]:
    """A scanner on ``urls``, polling fast, until the end of the block. ``pace``: how long a node that failed rests."""
    told: list[Announcement] = []

    async def announce(news: Sequence[Announcement]) -> None:
        told.extend(news)

    clock = RealClock()
    how = {"poll": 0.02, "start": 0, "holder": "me", **how}
    async with JsonRpc(urls, chain_id=chain_id, timeout=10, backoff=pace or Backoff(base=0.01, cap=0.1)) as rpc:
        scanner = Scanner(rpc, store, chain_id=chain_id, contract=contract, clock=clock, announce=announce, **how)
        scanner._backoff = Backoff(base=0.01, cap=0.1)
        task = asyncio.create_task(scanner.run())
        try:
            yield Run(scanner, rpc, task, told)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
