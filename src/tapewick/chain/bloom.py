"""The 2048-bit filter a block's header carries: what logged nothing in the block is, mostly, not in it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from tapewick.chain.keccak import keccak256

__all__ = ["bloom_of", "may_hold"]


@lru_cache(65536)
def _bits(item: str) -> int:
    """The three bits of an address or topic (``0x…``)."""
    hashed = keccak256(bytes.fromhex(item[2:]))
    bits = 0
    for i in (0, 2, 4):
        bits |= 1 << (int.from_bytes(hashed[i : i + 2], "big") & 2047)
    return bits


def may_hold(bloom: str, address: str, topics: Iterable[str]) -> bool:
    """Whether a block with this ``bloom`` may hold a log of ``address`` with one of ``topics``."""
    bits = int(bloom, 16)
    return _bits(address) & ~bits == 0 and any(_bits(topic) & ~bits == 0 for topic in topics)


def bloom_of(items: Iterable[str]) -> int:
    """The filter over these addresses and topics."""
    bits = 0
    for item in items:
        bits |= _bits(item)
    return bits
