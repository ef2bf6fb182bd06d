"""One look at the chain after the other: which blocks come next, and which of those taken in are canonical no more."""

from __future__ import annotations

from collections.abc import Iterable

from tapewick.chain.decoding import decoded
from tapewick.chain.node import ChainNode, Header, Log
from tapewick.chain.steps import Found
from tapewick.chain.window import Window
from tapewick.errors import BadPayload, CursorAhead, ReorgTooDeep, SourceError, TooWide
from tapewick.net.jsonrpc import JsonRpc
from tapewick.scans import Block, OrderEvent

__all__ = ["Passes"]

LARGEST = 10_000  # blocks of a range
CATCH_UP = 32  # blocks of a step at the tip
PATIENCE = 3  # looks at each address before a head below all that is held is believed
LATE = 3  # looks in a row at a head below the cursor before it is told
STILL = 10  # looks in a row at the same head before another address is asked


class Passes:
    """Finds what follows upon a window. ``head``: the newest block seen; ``behind``: why a look brought nothing."""

    def __init__(self, rpc: JsonRpc, node: ChainNode, *, confirmations: int, depth: int, span: int) -> None:
        self._rpc = rpc
        self._node = node
        self._confirmations = confirmations
        self._depth = depth
        self._span = span
        self._tagged = False
        self._below = self._late = self._still = 0
        self._stood = (0, 0)
        self._ranged = False
        self._again: set[int] = set()
        self._range_from: int | None = None
        self.head = 0
        self.behind: str | None = None

    def look_again(self, numbers: Iterable[int]) -> None:
        """Read the logs of these blocks once more in the next look that commits."""
        self._again |= set(numbers)

    def committed(self) -> None:
        """What was found last is stored."""
        self._again.clear()
        if self._ranged:
            self._span = min(LARGEST, self._span + max(1, self._span // 20))
        else:
            self._range_from = None

    def too_much(self) -> None:
        """What was found last could not be completed: a range is asked for smaller."""
        if self._ranged:
            self._narrow(None)

    async def next(self, window: Window) -> tuple[Found | None, bool]:
        """What to commit next, None for nothing; and whether more is known to follow.

        Raises ``ReorgTooDeep``, ``CursorAhead``, and ``SourceError`` where nodes gave no usable answer.
        """
        self._ranged = False
        head = await self._newest(window)
        if head.number < window.cursor:
            await self._lower(window, head)
            return None, False
        self._below = self._late = 0
        self.behind, self.head = None, max(self.head, head.number)
        final = await self._final(head)
        if window.cursor < final:
            turn = self._rpc.turn
            begin = await self._node.present(window.cursor + 1)
            # What was replaced while nobody looked, before it was final, is walked back from as at the tip.
            if begin.block.parent == window.cursor_hash or window.cursor <= window.finalized:
                return await self._range(window, begin, final, turn), True
        return await self._tip(window, head, final)

    async def _newest(self, window: Window) -> Block:
        """The newest block. An address that tells of no other one for long may stand still: the next one is asked."""
        if self._still >= STILL:
            self._still = 0
            self._rpc.next()
        head = await self._node.head()
        # Others who ask the same addresses may have left this one already: then the looks count anew.
        stands = (self._rpc.turn, head.number)
        self._still = self._still + 1 if stands == self._stood and head.number == window.cursor else 0
        self._stood = stands
        return head

    async def _final(self, head: Block) -> int:
        told = await self._node.finalized()
        if told is not None:
            self._tagged = True
            return min(head.number, told)
        # A node that knew once which block is final, and does not now, makes none final by counting.
        return -1 if self._tagged else head.number - self._depth

    # final blocks, by ranges

    async def _range(self, window: Window, begin: Header, final: int, turn: int) -> Found | None:
        """The next range, from ``begin`` on, which was asked for at ``turn``; None where the range has to be asked for
        again, smaller or of another address."""
        first, last = window.cursor + 1, min(window.cursor + self._span, final)
        if self._range_from is None:
            self._range_from = first
        if window.cursor_hash and begin.block.parent != window.cursor_hash:
            await self._contradicted(window.cursor, window.cursor_hash)
        edge = begin
        if first != last:
            turn = self._rpc.turn
            edge = await self._node.present(last)
        try:
            logs = await self._node.logs_between(first, last)
        except TooWide as error:
            if first == last:
                raise
            self._narrow(error.span)
            return None
        except SourceError:
            self._narrow(None)
            raise
        if self._rpc.turn != turn:  # another node gave the logs than the one that has the last block
            return None
        self._ranged = True
        try:
            events = await self._dated(logs, edge)
        except SourceError:
            self._narrow(None)
            raise
        found = self._found(window, edge.block, final, blocks=[edge.block], events=events)
        await self._look_twice(window, found, set())
        return found

    def _narrow(self, hint: int | None) -> None:
        half = max(1, self._span // 2)
        self._span = hint if hint is not None and hint < self._span else half

    async def _dated(self, logs: list[Log], edge: Header) -> list[OrderEvent]:
        """The events of these logs; their blocks are asked for their times, once each."""
        blocks = {edge.block.hash: edge.block}
        heights = {edge.block.number: edge.block.hash}
        for log in logs:
            if log.block_hash not in blocks:
                blocks[log.block_hash] = (await self._node.named(log.block_hash)).block
            number = blocks[log.block_hash].number
            if number != log.block or heights.setdefault(number, log.block_hash) != log.block_hash:
                raise self._distrusted(f"{self._rpc.name} gave logs of two blocks at height {log.block}")
        return [decoded(log, blocks[log.block_hash].ts) for log in logs]

    # the newest blocks, one by one

    async def _tip(self, window: Window, head: Block, final: int) -> tuple[Found | None, bool]:
        headers: list[Header] = []
        orphaned: list[Block] = []
        if head.number > window.cursor:
            headers = await self._branch(window, await self._node.present(window.cursor + 1))
            orphaned = window.above(headers[0].block.number - 1)
            while len(headers) < CATCH_UP and headers[-1].block.number < head.number:
                after = await self._node.at(headers[-1].block.number + 1)
                if after is None or after.block.parent != headers[-1].block.hash:
                    break  # this node is behind, or was replaced meanwhile: the next look sees to it
                headers.append(after)
        elif head.hash != window.cursor_hash and window.cursor_hash:
            return None, False  # another block of the same height may be this node's alone; the next one tells
        events = [decoded(log, each.block.ts) for each in headers for log in await self._node.logs_in(each)]
        last = headers[-1].block if headers else None
        found = self._found(
            window, last, final, blocks=[each.block for each in headers], orphaned=orphaned, events=events
        )
        if headers or found.confirmed > window.confirmed or found.finalized > window.finalized or self._again:
            await self._look_twice(window, found, self._overlap(window))
            return found, found.cursor < head.number
        return None, False

    async def _branch(self, window: Window, first: Header) -> list[Header]:
        """The headers from the last block in common up to ``first``, ascending, without the common one."""
        headers = [first]
        lowest = window.lowest
        while True:
            number, parent = headers[-1].block.number - 1, headers[-1].block.parent
            held = window.blocks.get(number)
            if not window.cursor_hash or (held is not None and held.hash == parent):
                return headers[::-1]
            if lowest is None or number < lowest.number:
                return headers[::-1]  # nothing of what was scanned is left, and none of it was final
            if number <= window.finalized:
                await self._contradicted(number, window.blocks[number].hash)
            headers.append(await self._node.named(parent))

    def _overlap(self, window: Window) -> set[int]:
        """The last blocks of ranges that the first look at the tip after them reads again."""
        if self._range_from is None:
            return set()
        return set(range(max(self._range_from, window.cursor - self._confirmations + 1), window.cursor + 1))

    async def _look_twice(self, window: Window, found: Found, more: set[int]) -> None:
        """Read the logs of the blocks that become confirmed, and of ``more``, again; what was missed is added."""
        gone = {block.number for block in found.orphaned}
        wanted = more | self._again | {n for n in window.blocks if window.confirmed < n <= found.confirmed}
        seen = []
        for number in sorted(wanted - gone):
            held = window.blocks.get(number)
            header = await (self._node.present(number) if held is None else self._node.named(held.hash))
            logs = await self._node.logs_in(header)
            self._compare(window, header, logs)
            found.events += [decoded(log, header.block.ts) for log in logs]
            seen.append(header.block.hash)
        found.again = frozenset(seen)

    def _compare(self, window: Window, header: Header, logs: list[Log]) -> None:
        """What the first look brought must be there again."""
        names = {(log.tx_hash, log.log_index) for log in logs}
        hash = header.block.hash
        if any((e.tx_hash, e.log_index) not in names for e in window.events if e.block_hash == hash):
            raise self._distrusted(f"{self._rpc.name} lacks logs of block {header.block.number} that were seen before")

    # heads that do not follow

    async def _lower(self, window: Window, head: Block) -> None:
        """A head below the cursor: a node that lags behind, unless it never had what was scanned."""
        self._late += 1  # behind a balancer some answers are older than others
        if self._late >= LATE:
            self.behind = f"{self._rpc.name} is at block {head.number}, scanned up to {window.cursor}: waiting for it"
        held, anchor = window.blocks.get(head.number), window.lowest
        if not window.cursor_hash:
            return  # nothing was scanned: the first block is yet to come
        if (held is not None and held.hash == head.hash) or await self._node.syncing():
            self._rpc.next()
        elif anchor is not None and head.number >= anchor.number:
            turn = self._rpc.turn
            if await self._disproved(anchor.number, anchor.hash):
                raise self._ahead(window, head)
            if self._rpc.turn == turn:
                self._rpc.next()
        else:
            self._below += 1
            if self._below >= PATIENCE * self._rpc.width:
                raise self._ahead(window, head)
            self._rpc.next()

    def _ahead(self, window: Window, head: Block) -> CursorAhead:
        return CursorAhead(
            f"the chain ends at block {head.number}, but block {window.cursor} was scanned already: the node was "
            "switched or its chain reset. Correct the node's URL, or order a RESET if that chain is gone"
        )

    async def _contradicted(self, number: int, hash: str) -> None:
        """A final block is not the one that was scanned: raises what that means."""
        turn, name = self._rpc.turn, self._rpc.name
        if not await self._disproved(number, hash):
            error = BadPayload(f"{name} follows another chain than was scanned below block {number}")
            if self._rpc.turn == turn:  # else another address is in use already, and must not pay for this one
                self._rpc.distrust(error)
            raise error
        raise ReorgTooDeep(
            f"block {number} was final when it was scanned, and is another one now: no stored data were changed. "
            "Correct the node's URL if it serves another chain, or order a RESET to scan anew"
        )

    async def _disproved(self, number: int, hash: str) -> bool:
        """Whether each address knows another block than this as the canonical one of its height. The address in use
        afterwards is one that does not."""
        against = set()
        for _ in range(self._rpc.width):
            turn = self._rpc.turn
            header = await self._node.at(number)
            if header is None or header.block.hash == hash:
                return False
            if self._rpc.turn == turn:  # else it is not known who answered
                against.add(self._rpc.name)
                self._rpc.next()
        return len(against) == self._rpc.width

    def _distrusted(self, text: str) -> BadPayload:
        error = BadPayload(text)
        self._rpc.distrust(error)
        return error

    def _found(
        self,
        window: Window,
        last: Block | None,
        final: int,
        *,
        blocks: list[Block],
        events: list[OrderEvent],
        orphaned: list[Block] | None = None,
    ) -> Found:
        cursor = window.cursor if last is None else last.number
        replaced = min((block.number for block in orphaned or ()), default=cursor + 1)
        finalized = max(window.finalized, min(final, cursor))
        confirmed = max(min(window.confirmed, replaced - 1), cursor - self._confirmations, finalized)
        return Found(
            cursor=cursor,
            cursor_hash=window.cursor_hash if last is None else last.hash,
            confirmed=confirmed,
            finalized=finalized,
            blocks=blocks,
            orphaned=orphaned or [],
            events=events,
        )
