"""The columns of a channel's rows, named as everywhere, with the scales of their instrument; and times as readers
write them."""

from __future__ import annotations

import datetime as dt
from typing import TypeAlias

from tapewick.errors import BadRequest
from tapewick.formats.table import Field, candle_layout, trade_layout
from tapewick.model import Instrument

__all__ = ["Time", "fields_of", "milliseconds", "nanoseconds", "whole_ms"]

Time: TypeAlias = int | str | dt.datetime
"""A moment: int UTC ns, ISO 8601 text (``"2024-08-09"``, ``"2024-08-09T12:30Z"``) or a ``datetime``; no zone: UTC."""

FIRST_NS = 10**17  # of March 1973: numbers below are times of another unit
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PRICES = ("last", "change_24h", "open_24h", "high_24h", "low_24h", "vwap_24h")
_SESSION = ("session_high", "session_low", "session_vwap", "sma10", "ema20")


def fields_of(kind: str, own: Instrument) -> tuple[Field, ...]:
    """The columns of rows of a ``trade``, ``candle``, ``bbo`` or ``ticker`` channel. Raises ``BadRequest``."""
    price, size = own.price_scale, own.size_scale
    if kind == "trade":
        return trade_layout(own, price, size, {}).fields
    if kind == "candle":
        return candle_layout(own, price, size, {}).fields
    if kind == "bbo":
        sides = [(f"{side}{part}", scale) for side in ("bid", "ask") for part, scale in (("", price), ("_size", size))]
        decimals = [Field(name, "decimal", scale) for name, scale in sides]
        times = [Field("ts_event", "time", nullable=True), Field("ts_recv", "time")]
        return (Field("instrument", "text"), Field("update_id", "int"), *decimals, *times)
    if kind == "ticker":
        prices = [Field(name, "decimal", price, nullable=True) for name in (*_PRICES, *_SESSION)]
        volumes = [
            Field("change_pct_24h", "decimal", 0, nullable=True),
            Field("volume_24h", "decimal", size, nullable=True),
            Field("quote_volume_24h", "decimal", price + size, nullable=True),
        ]
        rest = (Field("trades_24h", "int"), Field("ts", "time", nullable=True), Field("position", "text"))
        return (Field("instrument", "text"), *prices, *volumes, *rest)
    raise BadRequest(f"{kind} channels have no table; follow them with stream()", field="channel")


def milliseconds(time: Time | None) -> int | None:
    """The first whole ms at or after ``time``. Raises ``BadRequest`` for what is no time."""
    return whole_ms(nanoseconds(time))


def whole_ms(ns: int | None) -> int | None:
    """The first whole ms at or after ``ns``, of any year."""
    return None if ns is None else -(-ns // 1_000_000)


def nanoseconds(time: Time | None) -> int | None:
    """``time`` in UTC ns. Raises ``BadRequest`` for text that is no time and for numbers in another unit."""
    if time is None:
        return None
    if isinstance(time, str):
        try:
            time = dt.datetime.fromisoformat(text := time)
        except ValueError:
            raise BadRequest(f"{text[:40]!r} is no time: write it like 2024-08-09T12:30:00Z", field="time") from None
    if isinstance(time, dt.datetime):
        whole = time if time.tzinfo is not None else time.replace(tzinfo=dt.UTC)
        return (whole - _EPOCH) // dt.timedelta(microseconds=1) * 1000
    number = int(time)
    if 0 < number < FIRST_NS:
        unit = "seconds" if number < 10**11 else "ms" if number < 10**14 else "µs"
        raise BadRequest(f"time {number}: UTC ns expected; this looks like {unit}", field="time")
    return number
