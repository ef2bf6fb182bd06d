"""Both codecs, invented frames, and what a decode call gave in a form that can be compared."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from tapewick.engine import _codec

NATIVE = "tapewick.engine._native"
COLUMNS = {
    "trade_id": np.int64,
    "first_id": np.int64,
    "count": np.int32,
    "ts_event": np.int64,
    "ts_recv": np.int64,
    "price": np.int64,
    "size": np.int64,
    "side": np.int8,
    "voids": np.int64,
}
T = 1_700_000_000_123  # ms, 2023-11-14


def codec(name: str) -> Any:
    """The ``python`` or the ``native`` codec; skips where none was built."""
    if name == "python":
        return _codec
    if find_spec(NATIVE) is None:
        pytest.skip("the native engine is not built")
    return import_module(NATIVE)


def flat(decoded: Any) -> tuple[Any, ...]:
    """Everything a ``Decoded`` holds as plain values; column dtypes and lengths are asserted."""
    groups = []
    for group in decoded.groups:
        columns = {name: getattr(group, name) for name in COLUMNS}
        for name, dtype in COLUMNS.items():
            assert columns[name].dtype == dtype, name
            assert name == "voids" or len(columns[name]) == len(group), name
        head = (group.symbol, group.kind, group.futures, group.price_scale, group.size_scale)
        groups.append((head, {name: column.tolist() for name, column in columns.items()}))
    return groups, dict(decoded.others), dict(decoded.rejects), decoded.last_recv


def trade(**fields: Any) -> dict[str, Any]:
    """A spot trade in the venue's key order; ``fields`` replace values, ``None`` keys are added last."""
    base = {"e": "trade", "E": T + 1, "s": "ABCUSDT", "t": 1000, "p": "61.25000000", "q": "0.50000000", "T": T}
    return base | {"m": True, "M": True} | fields


def futures(**fields: Any) -> dict[str, Any]:
    """A futures trade in the venue's key order."""
    base = {
        "e": "trade",
        "E": T + 1,
        "T": T,
        "s": "ABCUSDT",
        "t": 1000,
        "p": "61.2",
        "q": "7",
        "X": "MARKET",
        "m": False,
    }
    return base | fields


def agg(**fields: Any) -> dict[str, Any]:
    """A spot aggregate of ids 1000..1002."""
    base = {"e": "aggTrade", "E": T + 1, "s": "ABCUSDT", "a": 5, "p": "61.25", "q": "1.5", "f": 1000, "l": 1002}
    return base | {"T": T, "m": False, "M": True} | fields


def without(body: dict[str, Any], *keys: str) -> dict[str, Any]:
    """``body`` less some keys."""
    return {key: value for key, value in body.items() if key not in keys}


def raw(body: Any) -> bytes:
    """A frame of a raw stream, compact as the venue writes it."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def combined(body: Any, stream: str | None = None) -> bytes:
    """A frame of a combined stream."""
    name = stream if stream is not None else f"{body['s'].lower()}@{body['e']}"
    return raw({"stream": name, "data": body})
