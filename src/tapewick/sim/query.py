"""The parameters of one REST request, checked as the venue checks them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["Query", "Refused"]

_MICROSECONDS = 10**14  # a time above is in µs, as in ms it would lie in the year 5138


class Refused(Exception):
    """A request the venue answers with an HTTP status and one of its error codes."""

    def __init__(self, code: int, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


class Query:
    """Values by name. ``unit``: how many of the time unit asked for make a millisecond (1 or 1000)."""

    def __init__(self, values: Mapping[str, str], *, unit: int = 1) -> None:
        self._values = values
        self.unit = unit

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """A mandatory value. Refused with -1102 when it is missing or empty."""
        if not (value := self._values.get(name)):
            raise Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return value

    def get(self, name: str, default: str) -> str:
        return self._values.get(name, default)

    def integer(self, name: str) -> int | None:
        """A number from 0 on, None if absent. Refused with -1100 when it is no number."""
        text = self._values.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
        return int(text)

    def time(self, name: str, *, up: bool = False) -> int | None:
        """A time in UTC ms, None if absent; given in µs it is cut down, or rounded ``up``."""
        value = self.integer(name)
        if value is None or value < _MICROSECONDS:
            return value
        return -(-value // 1000) if up else value // 1000

    def limit(self, default: int, most: int) -> int:
        """Rows to answer with, at most ``most``. Refused with -1130 for 0."""
        limit = self.integer("limit")
        if limit == 0:
            raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(limit or default, most)

    def symbols(self, known: Mapping[str, object]) -> tuple[list[str], bool]:
        """The symbols asked for (all if none is named), and whether it was a single one.

        Refused with -1100 for a malformed list, with -1121 for an unknown symbol.
        """
        single = "symbol" in self
        if single:
            wanted = [self.text("symbol")]
        elif "symbols" in self:
            try:
                wanted = msgspec.json.decode(self.text("symbols"), type=list[str])
            except (msgspec.DecodeError, UnicodeEncodeError) as error:
                raise Refused(-1100, "Illegal characters found in parameter 'symbols'.") from error
        else:
            wanted = list(known)
        if any(symbol not in known for symbol in wanted):
            raise Refused(-1121, "Invalid symbol.")
        return wanted, single
