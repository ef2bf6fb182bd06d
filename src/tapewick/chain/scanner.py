"""One contract's scanner: its logs from the first block to the newest, each block once, whatever the chain does.

Final blocks are taken in by ranges, the newest ones block by block by their hash. A step (blocks, events, orders,
cursor) is committed as one and told after it. The head is polled; nothing is subscribed to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from tapewick import metrics
from tapewick.chain._passes import Passes
from tapewick.chain.contract import ContractReader
from tapewick.chain.decoding import EVENTS
from tapewick.chain.node import ChainNode
from tapewick.chain.steps import Steps
from tapewick.chain.window import Window
from tapewick.clock import Clock
from tapewick.errors import ChainError, SourceError
from tapewick.net.backoff import Backoff
from tapewick.net.jsonrpc import JsonRpc
from tapewick.scans import Announcement, ScanCommit, Scanned

if TYPE_CHECKING:
    from tapewick.protocols import ScanStore

__all__ = ["Scanner", "depth_of"]

log = structlog.get_logger()
DEPTHS = {1: 65, 137: 200, 42161: 240}
DEVELOPMENT = (1337, 31337)
CONFIRMATIONS = 12
LOOK_BACK = 200  # blocks before the head where a contract without a start is begun
PAGE = 500  # orders let go of in one step of a reset


def depth_of(chain_id: int) -> int:
    """Blocks after which one is taken for final where the node does not say which ones are."""
    return DEPTHS.get(chain_id, 30)


class Scanner:
    """Scans ``contract`` on chain ``chain_id`` from block ``start`` on (None: 200 before the head of then).

    ``confirmations``: blocks on top that make an event ``confirmed`` (None: 12 or the depth; 0 on development
    chains); ``depth``: blocks on top that make it final where the node has no ``finalized`` tag. ``poll``:
    seconds between looks at the head; ``span``: blocks of the first range. ``trouble`` says what is wrong now.
    """

    def __init__(
        self,
        rpc: JsonRpc,
        store: ScanStore,
        *,
        chain_id: int,
        contract: str,
        holder: str,
        clock: Clock,
        announce: Callable[[Sequence[Announcement]], Awaitable[None]],
        start: int | None = None,
        confirmations: int | None = None,
        depth: int | None = None,
        poll: float = 2.0,
        span: int = 500,
    ) -> None:
        contract = contract.lower()
        self.component = f"{chain_id}/{contract}"
        self._trouble: str | None = None
        depth = depth_of(chain_id) if depth is None else depth
        if confirmations is None:
            confirmations = 0 if chain_id in DEVELOPMENT else min(CONFIRMATIONS, depth)
        self._rpc, self._store, self._holder, self._clock, self._announce = rpc, store, holder, clock, announce
        self._start, self._confirmations, self._poll = start, confirmations, poll
        self._node = ChainNode(rpc, contract, EVENTS)
        self._steps = Steps(self.component, store, ContractReader(rpc, contract))
        self._passes = Passes(rpc, self._node, confirmations=confirmations, depth=depth, span=span)
        self._backoff = Backoff(base=0.2, cap=15.0)
        self._window: Window | None = None

    @property
    def cursor(self) -> int:
        """The last block taken in, -1 where nothing is known yet."""
        return -1 if self._window is None else self._window.cursor

    @property
    def trouble(self) -> str | None:
        """Why nothing comes of the chain now; None while it does."""
        return self._trouble or self._rpc.trouble

    async def run(self) -> None:
        """Scan until cancelled. What a node does wrong is waited out.

        Raises ``ReorgTooDeep`` or ``CursorAhead`` once the store holds status ERROR, and what the store raises.
        """
        window = None
        while True:
            try:
                window = window or await self._restored()
                busy = await self._scan(window)
            except SourceError as error:
                await self._wait_out(error)
            except ChainError as error:
                await self._give_up(error)
                raise
            else:
                self._recovered(window)
                if not busy:
                    await self._clock.sleep(self._poll)

    async def _scan(self, window: Window) -> bool:
        """One pass; whether the next one may follow at once."""
        found, busy = await self._passes.next(window)
        metrics.scan_head.labels(self.component).set(self._passes.head)
        if found is None:
            return busy
        try:
            step = await self._steps.made(window, found)
        except SourceError:
            self._passes.too_much()
            raise
        await self._commit(window, step)
        self._passes.committed()
        for kind in {event.kind for event in step.events}:
            count = sum(event.kind == kind for event in step.events)
            metrics.scan_events.labels(self.component, kind).inc(count)
        if step.orphaned:
            metrics.scan_reorgs.labels(self.component).inc(len(step.orphaned))
            log.warning("the chain replaced blocks", component=self.component, blocks=len(step.orphaned))
        self._count_missed(step, found.again)
        return busy

    async def _commit(self, window: Window, step: ScanCommit) -> None:
        last = await self._store.commit_scan(step, holder=self._holder)
        window.apply(step)
        metrics.scan_cursor.labels(self.component).set(step.cursor)
        if step.news:
            first = last - len(step.news) + 1
            await self._announce([msgspec.structs.replace(one, seq=first + i) for i, one in enumerate(step.news)])

    def _count_missed(self, step: ScanCommit, again: frozenset[str]) -> None:
        """Events of blocks that were looked at a second time, and that the first look had not brought."""
        if missed := sum(event.block_hash in again for event in step.events):
            metrics.scan_differences.labels(self.component).inc(missed)
            log.warning("a second look found more logs", component=self.component, count=missed)

    async def _restored(self) -> Window:
        """What the store remembers, after what the operator ordered; a first start where it remembers nothing."""
        stored = await self._store.scanned(self.component)
        if stored is not None and stored.status == "RESET":
            stored = await self._reset(stored)
        if stored is None:
            stored = _before(await self._first_block(None))
        window = Window(stored, self._confirmations)
        if stored.status in ("RECOVERY", "ERROR"):
            self._passes.look_again(block.number for block in window.above(stored.finalized))
        self._window = window
        return window

    async def _reset(self, stored: Scanned) -> Scanned:
        """Let go of all that was found, as the operator ordered: it is another chain's. Scanning begins anew, where no
        start is set at the first one or lower."""
        log.warning("all orders are let go of, scanning begins anew", component=self.component)
        first = _before(await self._first_block(stored))
        window = Window(stored, self._confirmations)
        while orders := await self._store.orders(self.component, limit=PAGE):
            await self._commit(window, await self._steps.let_go(window, [order.order_id for order in orders]))
        rest = await self._steps.let_go(window, [""])
        ended = msgspec.structs.replace(
            rest,
            first_block=first.first_block,
            cursor=first.cursor,
            cursor_hash="",
            confirmed=first.confirmed,
            finalized=first.finalized,
            status="ACTIVE",
            orphaned=(*rest.orphaned, *(block.hash for block in window.blocks.values())),
        )
        await self._commit(window, ended)
        return first

    async def _first_block(self, before: Scanned | None) -> int:
        """Where to begin, after what was scanned ``before``."""
        if self._start is not None:
            return self._start
        recent = max(1, (await self._node.head()).number - LOOK_BACK)
        return recent if before is None else min(before.first_block, recent)

    async def _wait_out(self, error: SourceError) -> None:
        if self._trouble is None:
            log.warning("a chain cannot be read", component=self.component, cause=str(error))
        self._trouble = str(error)
        await self._clock.sleep(self._backoff.delay())

    def _recovered(self, window: Window) -> None:
        if self._trouble is not None and self._passes.behind is None:
            log.info("a chain can be read again", component=self.component, block=window.cursor)
        self._trouble = self._passes.behind
        self._backoff.reset()

    async def _give_up(self, error: ChainError) -> None:
        """Store why the scanner stopped; the cursor stays."""
        self._trouble = str(error)
        window = self._window
        assert window is not None
        log.error("a scanner stopped", component=self.component, cause=str(error))
        step = window.step(self.component, status="ERROR", detail=str(error))
        await self._store.commit_scan(step, holder=self._holder)


def _before(start: int) -> Scanned:
    """Nothing scanned yet, ``start`` being the first block. None below is ever looked at: all count as final."""
    last = start - 1
    return Scanned(cursor=last, cursor_hash="", confirmed=last, finalized=last, status="ACTIVE", first_block=start)
