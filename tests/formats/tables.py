"""Invented rows with everything a column can meet: nulls, negative and 128-bit numbers, both kinds of ids."""

from __future__ import annotations

import numpy as np

from tapewick.engine.candles import fold, put_sums
from tapewick.model import CandleBatch, Instrument, TradeBatch
from tapewick.timeframe import BY_NAME, SECOND

T0 = 1_723_161_600 * SECOND
OWN = Instrument(id="sim:BTCUSDT", venue="sim", symbol="BTCUSDT", price_scale=2, size_scale=5)


def trades(count: int, *, first: int = 1, large: bool = False) -> TradeBatch:
    """Trades ``first`` to ``first + count - 1``, numbered; ``large``: mantissas near the end of 64 bits."""
    ids = np.arange(first, first + count, dtype=np.int64)
    return TradeBatch(
        instrument=OWN.id,
        trade_id=ids,
        first_id=ids - ids % 3 // 2,
        count=(1 + ids % 3 // 2).astype(np.int32),
        ts_event=T0 + ids * SECOND + 1,
        ts_recv=T0 + ids * SECOND + 2,
        price=(2**62 + ids) if large else 6_168_599 + ids * 7919 % 1000,
        size=(2**61 + ids) if large else 1 + ids * 104_729 % 10**6,
        side=(ids % 3 - 1).astype(np.int8),
        price_scale=OWN.price_scale,
        size_scale=OWN.size_scale,
        seq=ids.copy(),
    )


def candles(count: int) -> CandleBatch:
    """Folded trades, some rows changed to what only imports, gaps and huge volumes bring."""
    rows = fold(trades(count * 60), BY_NAME["1m"])[:count]
    rows["complete"] = np.arange(len(rows)) % 3 - 1
    rows["state"] = np.arange(len(rows)) % 3
    rows["pos"] = np.arange(len(rows)) + 2**40
    rows["trades"][::7] = 0
    put_sums(rows, "volume", [0 if i % 7 == 0 else 10**30 + i for i in range(len(rows))])
    put_sums(rows, "quote_volume", [10**37 - i for i in range(len(rows))])
    return CandleBatch(instrument=OWN.id, rows=rows, price_scale=OWN.price_scale, size_scale=OWN.size_scale)
