"""What a request may ask for: text to typed values, each refusal naming its field."""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

from tapewick.engine.indicators import INDICATORS
from tapewick.errors import BadRequest, UnknownTimeframe
from tapewick.timeframe import Timeframe, parse

__all__ = ["MAX_ROWS", "Indicator", "indicators", "time_ms", "time_ns", "timeframe"]

MAX_ROWS = 10_000
LATEST = 2**63 - 1
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_INDICATOR = re.compile(r"^([a-z]+)(\d{0,3})$", re.ASCII)


def time_ns(text: str | None, field: str) -> int | None:
    """A time in ns from milliseconds or ISO 8601 (UTC unless it says otherwise); None stays None.

    Raises ``BadRequest`` naming ``field``.
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 15:
        ns = int(text) * 1_000_000
    else:
        try:
            when = dt.datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        except ValueError:
            raise BadRequest(
                f"{field}={text[:40]!r} is no time; use milliseconds since 1970 or ISO 8601 as 2024-08-09T00:00:00Z",
                field=field,
            ) from None
        when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
        ns = (when - _EPOCH) // dt.timedelta(microseconds=1) * 1000
    if not 0 <= ns <= LATEST:
        raise BadRequest(f"{field}={text[:40]!r} is out of range; use a time from 1970 to 2262", field=field)
    return ns


def time_ms(ns: int) -> int:
    """ns to whole ms, rounded up: the first ms at or after it."""
    return -(-ns // 1_000_000)


def timeframe(text: str) -> Timeframe:
    """The timeframe ``text`` names. Raises ``BadRequest`` on field ``tf``."""
    try:
        return parse(text)
    except UnknownTimeframe as error:
        raise BadRequest(str(error), field="tf") from None


class Indicator(NamedTuple):
    """A wish for an indicator: ``label`` as written, its name and length."""

    label: str
    name: str
    n: int


def indicators(text: str | None) -> list[Indicator]:
    """``sma10,ema20,vwap``. Raises ``BadRequest`` on field ``indicators``."""
    wanted = []
    for label in (text or "").split(",") if text else []:
        match = _INDICATOR.match(label)
        name, n = (match[1], int(match[2] or 0)) if match else ("", 0)
        if name not in INDICATORS or (name == "vwap") != (n == 0) or n > 500:
            raise BadRequest(
                f"indicators={label[:20]!r} is unknown; use sma1 to sma500, ema1 to ema500, vwap", field="indicators"
            )
        wanted.append(Indicator(label, name, n))
    if len(wanted) > 8:
        raise BadRequest("over 8 indicators in one request; ask in parts", field="indicators")
    return wanted
