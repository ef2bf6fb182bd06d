"""Candles and trades as exact-decimal JSON rows: the Python twin of ``native/codec_rows.cpp``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from tapewick.decimals import format_mantissa, truncated_ratio
from tapewick.errors import BadRequest, ModelError
from tapewick.model import CANDLE, Candles, TradeBatch
from tapewick.timeframe import BY_INDEX

__all__ = ["MAX_SCALE", "check_scales", "encode_candles", "encode_trades"]

MAX_SCALE = 38
_STATES = ("open", "closed", "final")
_ORIGINS = ("tape", "import")
_SIDES = {-1: "sell", 0: "unknown", 1: "buy"}
_LEGAL = {"tf": len(BY_INDEX), "state": len(_STATES), "origin": len(_ORIGINS)}


def encode_candles(
    instrument: str,
    rows: Candles,
    price_scale: int,
    size_scale: int,
    *,
    times: str = "ms",
    lines: bool = False,
    text_ids: bool = False,
) -> bytes:
    """CANDLE rows as a JSON array of objects, or as JSON Lines.

    Decimals are plain strings without exponent or trailing zeros; ``times`` is ``ms`` (integers) or
    ``ns`` (decimal strings); ``text_ids`` makes ids strings. Prices are null where a row has no
    trades and is not filled; ``vwap`` is truncated toward zero at ``price_scale + 4`` digits.
    Raises ``BadRequest`` for other ``times``, ``ModelError`` for a row or scale out of range.
    """
    if not isinstance(rows, np.ndarray) or rows.dtype != CANDLE:
        raise TypeError("rows must be a CANDLE array")
    head = f'{{"instrument":{json.dumps(instrument, ensure_ascii=False)},'
    head.encode()
    ns = _check(times, price_scale, size_scale)
    table = [dict(zip(CANDLE.names or (), row, strict=True)) for row in rows.tolist()]
    for i, row in enumerate(table):
        for field, legal in _LEGAL.items():
            if not 0 <= row[field] < legal:
                raise ModelError(f"candle row {i} holds no legal value in '{field}'")
    return _join((head + _candle(row, price_scale, size_scale, ns, text_ids) for row in table), lines)


def encode_trades(batch: TradeBatch, *, times: str = "ms", lines: bool = False, text_ids: bool = False) -> bytes:
    """A batch's trades as a JSON array of objects, or as JSON Lines; options as in ``encode_candles``.

    ``first_id`` and ``count`` appear only on records that stand for several ids; ``seq`` is null
    where the engine has not numbered the batch.
    """
    head = f'{{"instrument":{json.dumps(batch.instrument, ensure_ascii=False)},'
    head.encode()
    ns = _check(times, batch.price_scale, batch.size_scale)
    n = len(batch.trade_id)
    names = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side")
    columns: dict[str, list[Any]] = {name: getattr(batch, name).tolist() for name in names}
    columns["seq"] = ["null"] * n if batch.seq is None else batch.seq.tolist()
    for name, column in columns.items():
        if len(column) != n:
            raise ModelError(f"column '{name}' has {len(column)} rows, not {n}")
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return _join((head + _trade(row, batch.price_scale, batch.size_scale, ns, text_ids) for row in rows), lines)


def check_scales(price_scale: int, size_scale: int) -> None:
    """Raises ``ModelError`` unless both scales lie in 0..38."""
    if not (0 <= price_scale <= MAX_SCALE and 0 <= size_scale <= MAX_SCALE):
        raise ModelError(f"scales {price_scale} and {size_scale} must lie between 0 and {MAX_SCALE}")


def _check(times: str, price_scale: int, size_scale: int) -> bool:
    check_scales(price_scale, size_scale)
    if times not in ("ms", "ns"):
        raise BadRequest(f"times must be 'ms' or 'ns', not '{times}'")
    return times == "ns"


def _join(rows: Iterable[str], lines: bool) -> bytes:
    text = "".join(row + "\n" for row in rows) if lines else "[" + ",".join(rows) + "]"
    return text.encode()


def _candle(row: dict[str, int], price_scale: int, size_scale: int, ns: bool, text_ids: bool) -> str:
    quote = _sum(row, "quote_volume")
    volume = _sum(row, "volume")
    vwap = truncated_ratio(quote, volume, 4)  # the quotient alone has price_scale digits
    has_prices = row["trades"] != 0 or row["filled"] == 1
    prices = (_text(row[name], price_scale) if has_prices else "null" for name in ("open", "high", "low", "close"))
    buy = _text(_sum(row, "taker_buy_volume"), size_scale)
    buy_quote = _text(_sum(row, "taker_buy_quote_volume"), price_scale + size_scale)
    complete = "null" if row["complete"] < 0 else "false" if row["complete"] == 0 else "true"
    return (
        f'"tf":"{BY_INDEX[row["tf"]].name}","open_time":{_time(row["open_time"], ns)},'
        '"open":{},"high":{},"low":{},"close":{},'.format(*prices)
        + f'"volume":{_text(volume, size_scale)},"quote_volume":{_text(quote, price_scale + size_scale)},'
        f'"taker_buy_volume":{buy},"taker_buy_quote_volume":{buy_quote},"trades":{row["trades"]},'
        f'"first_id":{_id(row["first_id"], text_ids)},"last_id":{_id(row["last_id"], text_ids)},'
        f'"vwap":{"null" if vwap is None else _text(vwap, price_scale + 4)},"state":"{_STATES[row["state"]]}",'
        f'"rev":{row["rev"]},"complete":{complete},"last_seq":{row["last_seq"]},"pos":{row["pos"]},'
        f'"origin":"{_ORIGINS[row["origin"]]}"' + (',"filled":true}' if row["filled"] else "}")
    )


def _trade(row: dict[str, Any], price_scale: int, size_scale: int, ns: bool, text_ids: bool) -> str:
    several = row["count"] > 1 or row["first_id"] != row["trade_id"]
    covered = f'"first_id":{_id(row["first_id"], text_ids)},"count":{row["count"]},' if several else ""
    side = _SIDES[(row["side"] > 0) - (row["side"] < 0)]
    return (
        f'"seq":{row["seq"]},"trade_id":{_id(row["trade_id"], text_ids)},{covered}'
        f'"ts_event":{_time(row["ts_event"], ns)},"ts_recv":{_time(row["ts_recv"], ns)},'
        f'"price":{_text(row["price"], price_scale)},"size":{_text(row["size"], size_scale)},"side":"{side}"}}'
    )


def _sum(row: dict[str, int], name: str) -> int:
    return (row[name + "_hi"] << 64) + row[name + "_lo"]


def _text(mantissa: int, scale: int) -> str:
    return f'"{format_mantissa(mantissa, scale)}"'


def _time(ns: int, as_ns: bool) -> str:
    return f'"{ns}"' if as_ns else str(ns // 1_000_000)


def _id(value: int, as_text: bool) -> str:
    return f'"{value}"' if as_text else str(value)
