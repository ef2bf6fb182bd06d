"""Invented order-book frames, and what a decode call made of them in a form that can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from .codecs import T, flat

DEPTH = ("first_id", "last_id", "prev_id", "ts_event", "ts_recv", "bid_end", "ask_end", "price", "size")
QUOTE = ("update_id", "bid", "bid_size", "ask", "ask_size", "ts_event", "ts_recv")


def depth(**fields: Any) -> dict[str, Any]:
    """A spot depth frame in the venue's key order."""
    base = {"e": "depthUpdate", "E": T, "s": "ABCUSDT", "U": 101, "u": 105}
    levels = {"b": [["61.25000000", "0.50000000"], ["61.20000000", "0.00000000"]], "a": [["61.30000000", "7"]]}
    return base | levels | fields


def futures_depth(**fields: Any) -> dict[str, Any]:
    """A COIN-M depth frame in the venue's key order."""
    base = {"e": "depthUpdate", "E": T + 9, "T": T, "s": "ABCUSD_PERP", "ps": "ABCUSD", "U": 101, "u": 105, "pu": 99}
    return base | {"b": [["61.2", "5"]], "a": [["61.3", "0"], ["61.4", "12"]]} | fields


def quote(**fields: Any) -> dict[str, Any]:
    """A spot best bid and ask in the venue's key order."""
    return {"u": 105, "s": "ABCUSDT", "b": "61.25000000", "B": "0.5", "a": "61.30000000", "A": "7"} | fields


def futures_quote(**fields: Any) -> dict[str, Any]:
    """A futures best bid and ask in the venue's key order."""
    base = {"e": "bookTicker", "u": 105, "s": "ABCUSDT", "b": "61.2", "B": "5", "a": "61.3", "A": "7"}
    return base | {"T": T, "E": T + 3} | fields


def flat_books(decoded: Any) -> tuple[Any, ...]:
    """Everything a ``Decoded`` holds as plain values; column dtypes are asserted."""
    groups = []
    for names, found in ((DEPTH, decoded.depth), (QUOTE, decoded.quotes)):
        for group in found:
            columns = {name: getattr(group, name) for name in names}
            assert all(column.dtype == np.int64 for column in columns.values())
            assert all(len(columns[name]) == len(group) for name in names if name not in ("price", "size"))
            head = (group.symbol, group.price_scale, group.size_scale, len(group), group.nbytes > 0)
            groups.append((head, {name: column.tolist() for name, column in columns.items()}))
    rest = [(each.kind, each.stream, each.body, each.ts_recv) for each in decoded.rest]
    return *flat(decoded), groups, rest
