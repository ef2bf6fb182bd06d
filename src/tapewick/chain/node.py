"""What a scanner asks a node: heads, blocks and logs, as values, checked for what a node may get wrong.

A block or log that a node should have and does not is ``BadPayload``: the scanner asks again, elsewhere; it never
takes the answer of a node that lags behind for an empty block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec

from tapewick.chain.bloom import bloom_of, may_hold
from tapewick.errors import BadPayload, NodeRefused
from tapewick.net.jsonrpc import JsonRpc
from tapewick.scans import Block

__all__ = ["ChainNode", "Header", "Log"]

ROUNDS = 3  # times something is asked for that a node must have


class _RawHeader(msgspec.Struct, rename="camel"):
    number: str
    hash: str
    parent_hash: str
    timestamp: str
    logs_bloom: str


class _RawLog(msgspec.Struct, rename="camel"):
    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    log_index: str
    removed: bool = False


class Header(NamedTuple):
    """A block and the filter over its logs."""

    block: Block
    bloom: str


class Log(NamedTuple):
    """One log, its hexadecimal text in lower case."""

    address: str
    topics: tuple[str, ...]
    data: str
    block: int
    block_hash: str
    tx_hash: str
    log_index: int


class ChainNode:
    """Reads the logs of ``contract`` that begin with one of ``topics``."""

    def __init__(self, rpc: JsonRpc, contract: str, topics: Collection[str]) -> None:
        self._rpc = rpc
        self._contract = contract
        self._topics = sorted(topics)

    async def syncing(self) -> bool:
        """Whether the node says that it is catching up; no where it does not tell."""
        try:
            progress: object = await self._rpc.call("eth_syncing", [], object)
        except NodeRefused as error:
            if error.code not in (-32600, -32601):
                raise
            return False
        return progress is not False

    async def head(self) -> Block:
        """The newest block."""
        found = await self.at("latest")
        if found is None:
            raise self._unfit(f"{self._rpc.name} knows no newest block")
        return found.block

    async def finalized(self) -> int | None:
        """The height of the newest final block; None where the node has no notion of one."""
        try:
            found = await self.at("finalized")
        except NodeRefused as error:
            if error.final or "final" in str(error).lower() or error.code in (-39001, -32600, -32601):
                return None
            raise
        return None if found is None else found.block.number

    async def at(self, number: int | str) -> Header | None:
        """The canonical block of a height or tag, None where the node has none."""
        wanted = number if isinstance(number, str) else hex(number)
        found = await self._rpc.call("eth_getBlockByNumber", [wanted, False], _RawHeader | None)  # type: ignore[arg-type]
        header = None if found is None else self._header(found)
        if header is not None and isinstance(number, int) and header.block.number != number:
            raise self._unfit(f"{self._rpc.name} answered with block {header.block.number}, asked for {number}")
        return header

    async def present(self, number: int) -> Header:
        """The canonical block of a height some node must know."""
        return await self._insist("eth_getBlockByNumber", hex(number), lambda block: block.number == number)

    async def named(self, hash: str) -> Header:
        """The block of that hash."""
        return await self._insist("eth_getBlockByHash", hash, lambda block: block.hash == hash)

    async def _insist(self, method: str, wanted: str, fits: Callable[[Block], bool]) -> Header:
        """A block that must be there: asked of other nodes too, or once more, until it is."""
        error: BadPayload | None = None
        for _ in range(ROUNDS):
            found = await self._rpc.call(method, [wanted, False], _RawHeader | None)  # type: ignore[arg-type]
            if found is None:
                error = self._unfit(f"{self._rpc.name} does not know block {wanted}")
            elif fits((header := self._header(found)).block):
                return header
            else:
                error = self._unfit(f"{self._rpc.name} answered with another block than {wanted}")
        assert error is not None
        raise error

    async def logs_between(self, first: int, last: int) -> list[Log]:
        """Our logs of a range of final blocks, by block and index. Raises ``TooWide``."""
        found = await self._logs({"fromBlock": hex(first), "toBlock": hex(last)})
        if any(not first <= log.block <= last for log in found):  # a range may not be taken for another one
            raise self._unfit(f"{self._rpc.name} answered with logs outside of blocks {first} to {last}")
        return found

    async def logs_in(self, header: Header) -> list[Log]:
        """Our logs of one block, by index. None are believed only where the block's own filter bears it out."""
        hash = header.block.hash
        found = await self._logs({"blockHash": hash})
        if not found and may_hold(header.bloom, self._contract, self._topics):
            found = await self._proven(header)
        if any(log.block_hash != hash for log in found):
            raise self._unfit(f"{self._rpc.name} answered with logs of another block than {hash}")
        return found

    async def _proven(self, header: Header) -> list[Log]:
        """Our logs among all of the block, which must add up to its filter."""
        all_logs = await self._logs({"blockHash": header.block.hash}, everything=True)
        items = {item for log in all_logs for item in (log.address, *log.topics)}
        # A filter may lack what the chain itself logs beside transactions; it never holds what nobody logged.
        if int(header.bloom, 16) & ~await asyncio.to_thread(bloom_of, items):
            raise self._unfit(
                f"{self._rpc.name} gave fewer logs of block {header.block.number} than its header tells of; "
                "the block is asked for again"
            )
        return [log for log in all_logs if self._ours(log)]

    async def _logs(self, where: dict[str, str], *, everything: bool = False) -> list[Log]:
        query: dict[str, Any] = dict(where)
        if not everything:
            query |= {"address": self._contract, "topics": [self._topics]}
        rounds = 1 if "fromBlock" in where else ROUNDS  # a range that failed is asked for smaller
        raw = await self._rpc.call("eth_getLogs", [query], list[_RawLog], rounds=rounds)
        found = {self._log(one) for one in raw if not one.removed}
        if not everything and not all(self._ours(log) for log in found):
            raise self._unfit(f"{self._rpc.name} answered with logs that were not asked for")
        return sorted(found, key=lambda log: (log.block, log.log_index))

    def _ours(self, log: Log) -> bool:
        return log.address == self._contract and bool(log.topics) and log.topics[0] in self._topics

    def _header(self, raw: _RawHeader) -> Header:
        block = Block(
            self._int(raw.number), raw.hash.lower(), raw.parent_hash.lower(), self._int(raw.timestamp) * 10**9
        )
        self._int(raw.logs_bloom)
        return Header(block, raw.logs_bloom)

    def _log(self, raw: _RawLog) -> Log:
        return Log(
            raw.address.lower(),
            tuple(topic.lower() for topic in raw.topics),
            raw.data.lower(),
            self._int(raw.block_number),
            raw.block_hash.lower(),
            raw.transaction_hash.lower(),
            self._int(raw.log_index),
        )

    def _unfit(self, text: str) -> BadPayload:
        """An answer that cannot be: another address is asked next."""
        error = BadPayload(text)
        self._rpc.distrust(error)
        return error

    def _int(self, text: str) -> int:
        try:
            return int(text, 16)
        except ValueError as error:
            raise self._unfit(f"{self._rpc.name} answered {text[:40]!a} where a number is expected") from error
