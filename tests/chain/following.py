"""Chains in memory for a scanner to follow, and whether it took all of one in."""

from __future__ import annotations

from typing import Any

from tests.chain.encoding import CONTRACT
from tests.chain.fake_node import CHAIN, FakeChain, created, executed
from tests.chain.memory import MemoryScans
from tests.chain.scanning import Run

__all__ = ["at_head", "busy_chain", "complete", "forked", "how"]


def how(**more: Any) -> dict[str, Any]:
    return {"chain_id": CHAIN, "contract": CONTRACT, "confirmations": 2} | more


def busy_chain(blocks: int, *, final: int | None) -> FakeChain:
    """An order in every third block; the first ones are executed later."""
    chain = FakeChain()
    for number in range(1, blocks + 1):
        told = [created(number)] if number % 3 == 0 else []
        chain.grow(*told, *([executed(number - 5)] if number % 6 == 2 and number > 6 else []), noise=number % 2)
    chain.final = final
    return chain


async def at_head(run: Run, store: MemoryScans, chain: FakeChain) -> None:
    await run.until(lambda: store.state is not None and store.state.cursor_hash == chain.blocks[-1]["hash"])


def complete(store: MemoryScans, chain: FakeChain) -> None:
    """Every log of the canonical chain was taken in, once."""
    hashes = [block["hash"] for block in chain.blocks]
    logs = [(log["blockHash"], log["transactionHash"]) for hash in hashes for log in chain.logs[hash]]
    ours = [
        pair
        for pair, log in zip(logs, (log for hash in hashes for log in chain.logs[hash]), strict=True)
        if log["address"] == CONTRACT
    ]
    assert [(event.block_hash, event.tx_hash) for event in store.canonical] == ours
    numbers = [one.seq for one in store.log]
    assert numbers == list(range(1, len(numbers) + 1))


def forked(chain: FakeChain, depth: int, more: int) -> FakeChain:
    """Another chain of the same id, which left ``chain`` so many blocks below its head and has ``more`` since."""
    other = FakeChain()
    other.blocks, other.known, other.logs = chain.blocks[:-depth], dict(chain.known), dict(chain.logs)
    other.final, other._fork, other._transactions = chain.final, 1000, 1000
    for _ in range(more):
        other.grow()
    return other
