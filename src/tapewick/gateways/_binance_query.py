"""What a Binance client may ask for: query text to typed values, each refusal with the venue's error code."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal
from urllib.parse import parse_qsl

import msgspec

from tapewick.errors import ApiError
from tapewick.timeframe import BY_NAME, SECOND, Timeframe

__all__ = ["INTERVALS", "Query", "Refused", "Unit", "busy", "interval_named", "parse"]

Unit = Literal[1_000_000, 1_000]
"""Nanoseconds per printed unit of time: milliseconds or microseconds."""

INTERVALS = {name: tf for name, tf in BY_NAME.items() if name not in ("45m", "3h")}
"""The venue's sixteen intervals; 45m and 3h exist on the native surface only."""

MICROSECONDS_FROM = 10**14  # a larger number is no time in ms before the year 5138
MOST_ID = 2**63 - 1
LATEST = 2**62  # ns; later times mean: no bound
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)
_SYMBOL = re.compile(r"[\w\-.]{1,50}")
_ZONE = re.compile(r"([+-]?)(\d{1,2})(?::(\d{2}))?", re.ASCII)
_PERMISSION = re.compile(r"SPOT|MARGIN|LEVERAGED|TRD_GRP_[0-9]{3}", re.ASCII)
_SYMBOL_RULE = r"^[\w\-._&&[^a-z]]{1,50}$"


class Refused(ApiError):
    """A request answered with an HTTP status and one of the venue's error codes."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status

    @property
    def body(self) -> bytes:
        """The venue's error body."""
        return msgspec.json.encode({"code": self.code, "msg": str(self)})


def busy(why: str) -> Refused:
    """503 in the venue's words: nothing can be served now, ask again."""
    return Refused(-1008, f"Server is currently busy: {why}", 503)


def parse(text: str) -> Query:
    """The parameters of a query string. Raises ``Refused`` when one is sent twice."""
    values: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in values:
            raise Refused(-1101, "Duplicate values for a parameter detected.")
        values[name] = value
    return Query(values)


def interval_named(text: str) -> Timeframe:
    """The timeframe of a venue interval. Raises ``Refused`` (-1120)."""
    tf = INTERVALS.get(text)
    if tf is None:
        raise Refused(-1120, "Invalid interval.")
    return tf


class Query:
    """The parameters of one request. Every method raises ``Refused`` for what it cannot use."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str | None:
        """A parameter as it was sent; empty text is refused."""
        value = self._values.get(name)
        if value == "":
            raise Refused(-1105, f"Parameter '{name}' was empty.")
        return value

    def required(self, name: str) -> str:
        """A parameter that must be there."""
        value = self.text(name)
        if value is None:
            raise Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return value

    def choice(self, name: str, *allowed: str) -> str:
        """One of ``allowed``, the first where it was not sent."""
        value = self.text(name) or allowed[0]
        if value not in allowed:
            raise Refused(-1130, f"Data sent for parameter '{name}' is not valid.")
        return value

    def integer(self, name: str) -> int | None:
        """A whole number that is not negative."""
        value = self.text(name)
        if value is None:
            return None
        if not _DIGITS.fullmatch(value):
            raise Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
        return min(int(value), MOST_ID)

    def limit(self, most: int, default: int = 500) -> int:
        """How many rows: at least one, at most ``most``."""
        value = self.integer("limit")
        if value == 0:
            raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(default if value is None else value, most)

    def start(self) -> int | None:
        """``startTime`` as the first ns."""
        return self._time("startTime", 0)

    def end(self) -> int | None:
        """``endTime``, which the venue includes, as the first ns after it."""
        return self._time("endTime", 1)

    def _time(self, name: str, more: int) -> int | None:
        value = self.integer(name)
        if value is None:
            return None
        return min((value + more) * (1_000 if value >= MICROSECONDS_FROM else 1_000_000), LATEST)

    def interval(self) -> Timeframe:
        """The timeframe of ``interval``."""
        return interval_named(self.required("interval"))

    def zone(self) -> int:
        """``timeZone`` (hours, or hours:minutes, from -12:00 to +14:00) in ns; 0 where it was not sent."""
        text = self.text("timeZone")
        if text is None:
            return 0
        match = _ZONE.fullmatch(text.replace(" ", "+"))  # an unescaped plus reads as a blank
        minutes = int(match[2]) * 60 + int(match[3] or 0) if match and int(match[3] or 0) < 60 else 10**6
        minutes = -minutes if match and match[1] == "-" else minutes
        if not -12 * 60 <= minutes <= 14 * 60:
            raise Refused(-1130, "Data sent for parameter 'timeZone' is not valid.")
        return minutes * 60 * SECOND

    def symbol(self) -> str:
        """``symbol``, spelled as a symbol can be."""
        return _legal(self.required("symbol"), "symbol")

    def symbols(self) -> list[str] | None:
        """``symbols``, a JSON array of symbols; None where it was not sent."""
        text = self.text("symbols")
        if text is None:
            return None
        if "symbol" in self._values:
            raise Refused(-1128, "Combination of optional parameters invalid.")
        try:
            found = msgspec.json.decode(text, type=list[str])
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            found = []
        if not found:
            raise Refused(-1100, "Illegal characters found in parameter 'symbols'; it must be a JSON array of symbols.")
        return list(dict.fromkeys(_legal(symbol, "symbols") for symbol in found))

    def permissions(self) -> frozenset[str]:
        """``permissions``, one name or a JSON array of names, of which a symbol needs one; ``SPOT`` where not sent."""
        text = self.text("permissions")
        if text is None:
            return frozenset({"SPOT"})
        self._alone()
        try:
            found = msgspec.json.decode(text, type=list[str]) if text.startswith("[") else [text]
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            found = []
        if not found or not all(_PERMISSION.fullmatch(name) for name in found):
            raise Refused(-1130, "Data sent for parameter 'permissions' is not valid.")
        return frozenset(found)

    def status(self, known: Collection[str]) -> str | None:
        """``symbolStatus``, one of ``known``; None where it was not sent."""
        text = self.text("symbolStatus")
        if text is not None:
            self._alone()
            if text not in known:
                raise Refused(-1130, "Data sent for parameter 'symbolStatus' is not valid.")
        return text

    def _alone(self) -> None:
        if "symbol" in self._values or "symbols" in self._values:
            raise Refused(-1128, "Combination of optional parameters invalid.")


def _legal(symbol: str, name: str) -> str:
    if not _SYMBOL.fullmatch(symbol) or symbol != symbol.upper():
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{_SYMBOL_RULE}'.")
    return symbol
