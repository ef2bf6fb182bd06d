"""A venue's book in miniature: depth groups, snapshots and the levels they must lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tapewick.engine import _book_reference, _book_sync, book
from tapewick.engine._depth import DepthGroup, DepthSnapshot
from tapewick.model import BookUpdate

T = 1_700_000_000_000_000_000
Side = dict[int, int]


def use(name: str, monkeypatch: Any) -> None:
    """Run books on the levels of one engine."""
    levels: Any = _book_reference.Levels
    if name == "native":
        import pytest

        levels = pytest.importorskip("tapewick.engine._native", reason="the native engine is not built").Levels
    monkeypatch.setattr(_book_sync, "Levels", levels)
    monkeypatch.setattr(book, "Levels", levels)


def frame(first: int, last: int, bids: Side | None = None, asks: Side | None = None, **more: int) -> dict[str, Any]:
    """A depth frame; ``more``: ``prev`` id, ``ts`` of the event (ns)."""
    return {"first": first, "last": last, "bids": bids or {}, "asks": asks or {}} | more


def group(*frames: dict[str, Any], price_scale: int = 2, size_scale: int = 3) -> DepthGroup:
    """Frames as a decode call would give them."""
    price: list[int] = []
    size: list[int] = []
    rows = []
    for each in frames:
        for name in ("bids", "asks"):
            price += each[name]
            size += each[name].values()
            each[name + "_end"] = len(price)
        ts = each.get("ts", T + each["last"])
        rows.append((each["first"], each["last"], each.get("prev", -1), ts, ts + 1, each["bids_end"], each["asks_end"]))
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    levels = np.array(price, np.int64), np.array(size, np.int64)
    table: list[Any] = [*columns, *levels]
    return DepthGroup("ABC", price_scale, size_scale, *table)


def snapshot(last: int, bids: Side, asks: Side, *, ts: int = 0, scales: tuple[int, int] = (2, 3)) -> DepthSnapshot:
    """A REST snapshot."""
    columns = [np.array(list(c), np.int64) for c in (bids, bids.values(), asks, asks.values())]
    return DepthSnapshot(last, ts, *scales, *columns)


def sync(rule: str = "spot", **more: Any) -> book.BookSync:
    """A sync machine at scales 2 and 3."""
    return book.BookSync("test:ABC", price_scale=2, size_scale=3, rule=rule, run="run1", source="test", **more)  # type: ignore[arg-type]


def sides(levels: Sequence[Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Four columns as (price, size) pairs, best first."""
    bid_price, bid_size, ask_price, ask_size = (column.tolist() for column in levels)
    return list(zip(bid_price, bid_size, strict=True)), list(zip(ask_price, ask_size, strict=True))


def plain(update: BookUpdate) -> tuple[Any, ...]:
    """Everything an update says."""
    head = (update.instrument, update.run, update.prev_seq, update.seq, update.state, update.snapshot, update.detail)
    ids = (update.first_id, update.last_id, update.ts_event, update.ts_recv, update.price_scale, update.size_scale)
    columns = (update.bid_price, update.bid_size, update.ask_price, update.ask_size)
    assert all(column.dtype == np.int64 for column in columns)
    return *head, *ids, sides(columns)
