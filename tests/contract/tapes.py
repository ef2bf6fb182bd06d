"""Stores to try, and the tapes, rows and books that are written to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tapewick.model import (
    CANDLE,
    BookUpdate,
    Candles,
    Gap,
    Head,
    Instrument,
    Origin,
    State,
    TapeCommit,
    TapeState,
    TradeBatch,
)
from tapewick.protocols import Store
from tapewick.stores.duckdb import DuckDBStore
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import BY_NAME, SECOND

Open = Callable[[], Store]

STORES = ("duckdb", "postgres", "timescale")
T0 = 1_722_988_800 * SECOND  # 2024-08-07, a whole day
MINUTE, HOUR, DAY = (BY_NAME[name].index for name in ("1m", "1h", "1d"))
SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def store_at(kind: str, where: str) -> Store:
    """A store of a folder or server, not yet open; twice the same means twice the same data."""
    return DuckDBStore(where) if kind == "duckdb" else PostgresStore(where)


def instrument(symbol: str = "AAA", **fields: object) -> Instrument:
    return Instrument(id=f"sim:{symbol}", venue="sim", symbol=symbol, price_scale=2, size_scale=5, **fields)  # type: ignore[arg-type]


def trades(state: TapeState, n: int, *, start: int = T0, late: bool = False) -> TradeBatch:
    """``n`` trades that follow the state's last, a second apart."""
    seq = np.arange(state.seq + 1, state.seq + n + 1, dtype=np.int64)
    ts = start + (seq - 1) * SECOND
    return TradeBatch(
        instrument=state.instrument.id,
        trade_id=seq + 1000,
        first_id=seq + 1000,
        count=np.ones(n, np.int32),
        ts_event=ts,
        ts_recv=ts + 5_000_001,
        price=6_000_000 + seq,
        size=seq * 7,
        side=np.where(seq % 3 == 0, -1, seq % 3 - 1).astype(np.int8),
        price_scale=2,
        size_scale=5,
        seq=seq,
        epoch=state.epoch,
        late=late,
    )


def row(open_time: int, tf: int = MINUTE, **fields: int) -> Candles:
    """One candle with a value of its own in every field."""
    made = np.zeros(1, CANDLE)
    for k, name in enumerate(CANDLE.names or ()):
        if name not in ("reserved", "filled", "origin"):
            made[name] = k + 1
    made["open_time"], made["tf"] = open_time, tf
    made["state"], made["complete"], made["change"], made["reason"] = State.FINAL, 1, 2, 0
    for name, value in fields.items():
        if name in SUMS:
            made[name + "_hi"], made[name + "_lo"] = value >> 64, value & (2**64 - 1)
        else:
            made[name] = value
    return made


def part(
    state: TapeState,
    batch: TradeBatch | None = None,
    rows: Candles | None = None,
    *,
    ranges: list[tuple[int, int, int, int]] | None = None,
    gone: tuple[int, ...] = (),
    gaps: tuple[Gap, ...] = (),
    watermark: int | None = None,
) -> TapeCommit:
    """The next commit of a tape."""
    seq = state.seq + (0 if batch is None else len(batch))
    own = state.instrument
    head = Head(
        instrument=own.id,
        epoch=state.epoch,
        seq=seq,
        pos=state.pos + 1,
        watermark=T0 + seq if watermark is None else watermark,
        price_scale=own.price_scale,
        size_scale=own.size_scale,
    )
    return TapeCommit(
        number=state.number,
        instrument=state.instrument.id,
        owner=state.owner,
        expected_pos=state.pos,
        head=head,
        trades=[] if batch is None else [batch],
        rows=np.empty(0, CANDLE) if rows is None else rows,
        ranges_put=np.array(ranges or [], np.int64).reshape(-1, 4),
        ranges_gone=np.array(gone, np.int64),
        gaps=gaps,
    )


async def write(store: Store, state: TapeState, *args: object, **kwargs: object) -> None:
    """Commit the tape's next part and move the state along with it."""
    commit = part(state, *args, **kwargs)  # type: ignore[arg-type]
    assert await store.commit([commit]) == frozenset()
    state.seq, state.pos, state.watermark = commit.head.seq, commit.head.pos, commit.head.watermark


async def fresh(store: Store, *symbols: str) -> list[TapeState]:
    """New instruments, claimed."""
    ids = [(await store.put_instrument(instrument(symbol))).id for symbol in symbols or ("AAA",)]
    return await store.claim(ids)


def same(left: Candles, right: Candles) -> None:
    assert left.tolist() == right.tolist()


def mine(state: TapeState, rows: Candles) -> Candles:
    """Rows as the store gives them back: numbered and marked as the tape's."""
    rows = rows.copy()
    rows["number"], rows["filled"], rows["origin"] = state.number, 0, Origin.TAPE
    return rows


# ── instruments ──


def other_state(state: TapeState) -> TapeState:
    return dataclasses.replace(state, seq=0)


def total(candle: np.void, name: str) -> int:
    return (int(candle[name + "_hi"]) << 64) + int(candle[name + "_lo"])


def whole_book(ts: int, id: str = "sim:AAA", **fields: Any) -> BookUpdate:
    """A snapshot with a value of its own in every field."""
    levels = {
        "bid_price": np.array([105, 104, 101], np.int64),
        "bid_size": np.array([1, 2**62, 3], np.int64),
        "ask_price": np.array([106], np.int64),
        "ask_size": np.array([9], np.int64),
    }
    told = {"run": "run-1", "prev_seq": 7, "seq": 7, "state": "live", "snapshot": True, "source": "a"}
    ids = {"first_id": 90, "last_id": 99, "ts_event": ts, "ts_recv": ts + 5, "price_scale": 3, "size_scale": 1}
    return BookUpdate(**{"instrument": id, **told, **ids, **levels, **fields})  # type: ignore[arg-type]


def told_of(book: BookUpdate | None) -> dict[str, Any]:
    assert book is not None
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in dataclasses.asdict(book).items()}
