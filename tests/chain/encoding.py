"""Logs as contracts write them: the other direction of decoding."""

from __future__ import annotations

from collections.abc import Mapping

from tapewick.chain.decoding import EVENTS
from tapewick.chain.node import Log

__all__ = ["CREATED", "EXECUTED", "MODIFIED", "CANCELLED", "CONTRACT", "TOKEN", "USER", "encoded", "word"]

CONTRACT = "0x" + "c0" * 20
TOKEN = "0x" + "70" * 20
USER = "0x" + "aa" * 20
CREATED, EXECUTED, CANCELLED, MODIFIED = list(EVENTS)[:4]


def word(value: str) -> str:
    """One word of decimal text, or of an address."""
    return f"{int(value, 0):064x}"


def encoded(topic: str, order_id: str, values: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """Topics and data of an event."""
    shape = EVENTS[topic]
    indexed = tuple("0x" + word(values[name]) for name, _ in shape.indexed)
    data = "".join(word(values[name]) for name, _ in shape.data)
    return (topic, "0x" + word(order_id), *indexed), "0x" + data


def log_of(topics: tuple[str, ...], data: str, *, block: int = 7, index: int = 0, tx: str = "0x" + "11" * 32) -> Log:
    return Log(CONTRACT, topics, data, block, f"0x{block:064x}", tx, index)
