"""Logs and answers of the order contracts, word for word: both generations of events, told apart by their first topic.

All that is in them is static, so each value is one word of 32 bytes. What does not fit exactly (the number of
indexed values, the length, the unused bits of a word) is not guessed: the log is kept raw.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from tapewick.chain.node import Log
from tapewick.scans import OrderEvent

__all__ = ["EVENTS", "Misfit", "Shape", "decoded", "order_of", "word_of"]

Kind: TypeAlias = Literal["created", "modified", "executed", "cancelled"]
Field: TypeAlias = tuple[str, str]  # name and type


class Misfit(ValueError):
    """Bytes that are not what their signature promises."""


class Shape(NamedTuple):
    """One event: what it is, and the name and type of its indexed values after the order's id, and of its data."""

    kind: Kind
    indexed: tuple[Field, ...]
    data: tuple[Field, ...]


_USER = (("user", "address"),)
_EXECUTOR = (("executor", "address"),)
_PLACED = (("token_in", "address"), ("token_out", "address"), ("amount_in", "uint256"))
_TARGET = (("target_price", "uint256"), ("min_amount_out", "uint256"))
EVENTS: dict[str, Shape] = {
    "0xdcb4282d27c4f0f72b550268698af955cf8c6bd36efec7b9a243e500452f86e2": Shape("created", _USER, _PLACED),
    "0x9b32d7714729bdcd899b9c5460b1ec55a813e10e7a51271f146949e4e19f7b99": Shape(
        "executed", _EXECUTOR, (("amount_out", "uint256"),)
    ),
    "0xc0362da6f2ff36b382b34aec0814f6b3cdf89f5ef282a1d1f114d0c0b036d596": Shape("cancelled", _USER, ()),
    "0x5f26042ebf1dad031a5d68482c9ed2dd6e4ead6ef1d61d3fe2bde495965228ce": Shape("modified", (), _TARGET),
    "0xdb6e9fc55394692e094b7e1c60353f91a6c6c3ca7260c94c88f19a0fa303a15f": Shape(
        "created", _USER, (*_PLACED, ("target_price", "uint256"), ("order_type", "uint8"))
    ),
    "0x09e1c5fec99e06c6e15702e0f28c6a8403668b59ce8ad1f6fb60e04e7a27753c": Shape(
        "executed", _EXECUTOR, (("amount_out", "uint256"), ("self_execution", "bool"))
    ),
    "0xc4058ebc534b64ecb27b2d4eaa1904f98997ec18ebe6ada4117593dde89478cc": Shape(
        "cancelled", _USER, (("timestamp", "uint256"),)
    ),
    "0x49b6b108bc69a6a0d88cbb15883256e8569a3b6791cc38d4497dd6e8877a8138": Shape(
        "modified", (), (("old_target_price", "uint256"), *_TARGET)
    ),
}
"""First topic → event; the last four are the older generation."""

_ORDER: tuple[Field, ...] = (
    ("id", "uint256"),
    *_USER,
    *_PLACED,
    *_TARGET,
    ("order_type", "uint8"),
    ("is_long", "bool"),
    ("executed", "bool"),
    ("created_at", "uint256"),
    ("self_executable", "bool"),
)
"""What ``getOrder`` answers."""
_word = re.compile(r"[0-9a-f]{64}")
_LIMITS = {"uint256": 1 << 256, "address": 1 << 160, "uint8": 1 << 8, "bool": 2}


def word_of(text: str, type: str) -> str:
    """One word (64 hex digits) as decimal text, an address as ``0x…``. Raises ``Misfit`` for bits the type lacks."""
    if _word.fullmatch(text) is None:
        raise Misfit(f"{text[:80]!a} is no word of 64 hexadecimal digits")
    value = int(text, 16)
    if value >= _LIMITS[type]:
        raise Misfit(f"{text[:80]!a} is no {type}")
    return f"0x{value:040x}" if type == "address" else str(value)


def decoded(log: Log, ts: int) -> OrderEvent:
    """The event of a log whose block has the time ``ts`` (ns)."""
    shape = EVENTS[log.topics[0]]
    try:
        if len(log.topics) != 2 + len(shape.indexed):
            raise Misfit(f"{len(log.topics)} topics")
        order_id = word_of(log.topics[1][2:], "uint256")
        indexed = zip(log.topics[2:], shape.indexed, strict=True)
        fields = {name: word_of(topic[2:], type) for topic, (name, type) in indexed}
        fields |= _words(log.data, shape.data)
    except Misfit:
        return _event(log, ts, "raw", "", {"topics": ",".join(log.topics), "data": log.data})
    return _event(log, ts, shape.kind, order_id, fields)


def order_of(answer: str) -> dict[str, str]:
    """The values of ``getOrder``'s answer (``0x…``) by name. Raises ``Misfit``."""
    return _words(answer, _ORDER)


def _words(data: str, fields: tuple[Field, ...]) -> dict[str, str]:
    digits = data.removeprefix("0x")
    if len(digits) != 64 * len(fields):
        raise Misfit(f"{len(digits) // 2} bytes for {len(fields)} words")
    return {name: word_of(digits[64 * i : 64 * i + 64], type) for i, (name, type) in enumerate(fields)}


def _event(log: Log, ts: int, kind: Kind | Literal["raw"], order_id: str, fields: dict[str, str]) -> OrderEvent:
    return OrderEvent(log.address, log.block, log.block_hash, log.tx_hash, log.log_index, ts, kind, order_id, fields)
