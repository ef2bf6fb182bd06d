"""Values derived from candles: SMA, EMA, VWAP, high and low, rolling statistics, the ticker.

Pure functions on ``CANDLE`` arrays, exact integers throughout. Quotients carry ``EXTRA`` more
digits than prices and truncate toward zero; so every replica, and the same replica after a
restart, prints the same digits. A series is the candles with trades, ascending; rows made by a
fill option repeat the value before them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tapewick.decimals import INT64_MAX, format_mantissa, truncated_ratio
from tapewick.engine.candles import sums
from tapewick.model import Candles, Head, Instrument, position
from tapewick.timeframe import BY_INDEX, DAY, bucket

__all__ = ["DAY_ROWS", "EXTRA", "INDICATORS", "Rolling", "ema", "rolling", "series", "sma", "ticker", "vwap", "warm_up"]

EXTRA = 4
"""Digits a mean has after those of a price."""
STATE = 8  # digits the EMA's state has after those of a price
WINDOW = 8  # the EMA looks at this many times its length of candles, and at no older one
DAY_ROWS = 1441
"""1m candles in the rolling window: 24 h of whole minutes and the running one."""
INDICATORS = ("sma", "ema", "vwap")

Values: TypeAlias = list[int | None]
Column: TypeAlias = npt.NDArray[Any]  # int64, or Python integers where those would overflow


def _spread(rows: Candles, values: Values) -> Values:
    """``values`` of the rows with trades, repeated on rows without."""
    index = np.cumsum(rows["trades"] > 0) - 1
    return [values[i] if i >= 0 else None for i in index.tolist()]


def _closes(rows: Candles) -> list[int]:
    return rows["close"][rows["trades"] > 0].tolist()  # type: ignore[no-any-return]


def sma(rows: Candles, n: int) -> Values:
    """Mean of the last ``n`` closes at each row, None until there are ``n``; scale price + ``EXTRA``.

    At an open row it is the live value: the ``n`` - 1 closes before it and its own.
    """
    closes = _closes(rows)
    out: Values = []
    total = 0
    for i, close in enumerate(closes):
        total += close - (closes[i - n] if i >= n else 0)
        out.append(None if i + 1 < n else truncated_ratio(total, n, EXTRA))
    return _spread(rows, out)


def ema(rows: Candles, n: int) -> Values:
    """Exponential mean (2 / (n + 1)) over the last 8 ``n`` closes at each row; scale price + ``EXTRA``.

    Seeded with the SMA of the window's first ``n`` closes, None until there are ``n``. Prices
    are not negative. The window is fixed, so a value depends on stored candles only.
    """
    closes = _closes(rows)
    if len(closes) < n:
        return [None] * len(rows)
    fits = (n + 1) * max(closes) * 10**STATE < INT64_MAX
    c = np.array(closes, np.int64 if fits else object)
    out: Values = [None] * (n - 1)
    out += _expanding(c[: WINDOW * n], n)
    if len(c) > WINDOW * n:
        out += _sliding(c[1:], n)
    return _spread(rows, [None if v is None else v // 10 ** (STATE - EXTRA) for v in out])


def _expanding(c: Column, n: int) -> list[int]:
    """The EMA where fewer than a whole window of candles exists: one recursion."""
    state = int(sum(c[:n].tolist())) * 10**STATE // n
    out = [state]
    for close in c[n:].tolist():
        state = (2 * close * 10**STATE + (n - 1) * state) // (n + 1)
        out.append(state)
    return out


def _sliding(c: Column, n: int) -> list[int]:
    """The EMA of every whole window of ``c``: one recursion per step, over all windows at once."""
    count = len(c) - WINDOW * n + 1
    head = np.concatenate((c[:1] * 0, np.cumsum(c[: count + n - 1])))
    state = (head[n:] - head[:-n]) * 10**STATE // n
    for k in range(n, WINDOW * n):
        state = (2 * c[k : k + count] * 10**STATE + (n - 1) * state) // (n + 1)
    return state.tolist()  # type: ignore[no-any-return]


def vwap(rows: Candles) -> Values:
    """Quote volume over volume of each row, scale price + ``EXTRA``; None without volume."""
    pairs = zip(sums(rows, "quote_volume"), sums(rows, "volume"), strict=True)
    return [truncated_ratio(quote, base, EXTRA) for quote, base in pairs]


def warm_up(name: str, n: int) -> int:
    """How many candles before the first wanted one ``series`` needs."""
    return {"sma": n - 1, "ema": WINDOW * n - 1, "vwap": 0}[name]


def series(rows: Candles, name: str, n: int) -> Values:
    """The indicator ``name`` (``INDICATORS``) of length ``n`` at each row."""
    if name == "vwap":
        return vwap(rows)
    return sma(rows, n) if name == "sma" else ema(rows, n)


class Rolling(NamedTuple):
    """What candles with trades add up to: price and size mantissas, and the newest trade's time (ns)."""

    open: int
    high: int
    low: int
    last: int
    volume: int
    quote_volume: int
    trades: int
    ts: int

    @property
    def vwap(self) -> int | None:
        return truncated_ratio(self.quote_volume, self.volume, EXTRA)


def rolling(rows: Candles) -> Rolling | None:
    """Statistics over ``rows`` of one frame, ascending; None when none has trades."""
    rows = rows[rows["trades"] > 0]
    if not len(rows):
        return None
    return Rolling(
        open=int(rows["open"][0]),
        high=int(rows["high"].max()),
        low=int(rows["low"].min()),
        last=int(rows["close"][-1]),
        volume=sum(sums(rows, "volume")),
        quote_volume=sum(sums(rows, "quote_volume")),
        trades=int(rows["trades"].sum()),
        ts=int(rows["last_ts"].max()),
    )


def ticker(instrument: Instrument, rows: Candles, head: Head) -> dict[str, object]:
    """The ticker of ``instrument`` from its newest 1m rows, the open one included.

    The day is the 24 h before the newest trade, beginning on a whole minute; the session is
    the UTC day of the newest trade. Every field is None while there is no trade. ``sma10``
    and ``ema20`` are of 1m closes, live.
    """
    rows = rows[rows["trades"] > 0]
    everything = rolling(rows)
    newest = everything.ts if everything else 0
    day = rolling(rows[rows["open_time"] >= bucket(BY_INDEX[1], newest - DAY)])
    session = rolling(rows[rows["open_time"] >= newest - newest % DAY])
    price, size = head.price_scale, head.size_scale

    def text(mantissa: int | None, scale: int) -> str | None:
        return None if mantissa is None else format_mantissa(mantissa, scale)

    change = day.last - day.open if day else None
    percent = truncated_ratio((change or 0) * 100, day.open, 2) if day else None
    return {
        "instrument": instrument.id,
        "last": text(day and day.last, price),
        "change_24h": text(change, price),
        "change_pct_24h": None if day is None else format_mantissa(percent or 0, 2, pad=True),
        "open_24h": text(day and day.open, price),
        "high_24h": text(day and day.high, price),
        "low_24h": text(day and day.low, price),
        "volume_24h": text(day and day.volume, size),
        "quote_volume_24h": text(day and day.quote_volume, price + size),
        "trades_24h": day.trades if day else 0,
        "vwap_24h": text(day and day.vwap, price + EXTRA),
        "session_high": text(session and session.high, price),
        "session_low": text(session and session.low, price),
        "session_vwap": text(session and session.vwap, price + EXTRA),
        "sma10": text(_newest(sma(rows[-10:], 10)), price + EXTRA),
        "ema20": text(_newest(ema(rows[-WINDOW * 20 :], 20)), price + EXTRA),
        "ts": day.ts // 1_000_000 if day else None,
        "position": position(head.epoch, head.seq),
    }


def _newest(values: Values) -> int | None:
    return values[-1] if values else None
