"""What the venue's public files are called, where they lie, and which of them hold a range of days."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from tapewick.errors import ConfigError
from tapewick.model import I64
from tapewick.sources._binance_listing import checked
from tapewick.timeframe import DAY, SECOND, Timeframe
from tapewick.timeframe import parse as timeframe

__all__ = ["KINDS", "Archive", "Kind", "named", "planned"]

Kind: TypeAlias = Literal["trades", "aggTrades", "klines"]
KINDS: tuple[Kind, ...] = ("trades", "aggTrades", "klines")

_FOLDERS = {"binance": "spot", "binance-usdm": "futures/um", "binance-coinm": "futures/cm"}
_NAME = re.compile(
    r"(?P<symbol>[\w.]{1,40})-(?P<what>trades|aggTrades|1mo|\d{1,2}[smhdw])-(?P<period>\d{4}-\d\d(?:-\d\d)?)\.zip"
)
_MONTHLY_ONLY = ("3d", "1w", "1mo")


class Archive(NamedTuple):
    """One file. ``interval`` is the bars' as the venue spells it, empty for trades; ``period`` a day or a month.

    ``origin`` is where to get it: an address or a path; empty: below the base address.
    """

    venue: str
    kind: Kind
    symbol: str
    interval: str
    period: str
    origin: str = ""

    @property
    def instrument(self) -> str:
        return f"{self.venue}:{self.symbol}"

    @property
    def name(self) -> str:
        return f"{self.symbol}-{self.interval or self.kind}-{self.period}.zip"

    @property
    def path(self) -> str:
        """Below the base address; it also names the file in records of imports."""
        span = "daily" if len(self.period) == 10 else "monthly"
        inner = f"{self.symbol}/{self.interval}" if self.interval else self.symbol
        return f"data/{_FOLDERS.get(self.venue, self.venue)}/{span}/{self.kind}/{inner}/{self.name}"

    @property
    def tf(self) -> Timeframe:
        """The bars' timeframe. Raises ``UnknownTimeframe``."""
        return timeframe(self.interval)

    @property
    def has_days(self) -> bool:
        """Whether a month of it is published by the day too."""
        return len(self.period) == 7 and self.interval not in _MONTHLY_ONLY

    @property
    def span(self) -> tuple[int, int]:
        """The times (UTC ns) its rows lie between, the end exclusive. Raises ``ConfigError`` for no day or month."""
        try:
            first = dt.datetime.fromisoformat(self.period if len(self.period) == 10 else f"{self.period}-01")
        except ValueError:
            raise ConfigError(f"{self.name} names no day or month of the calendar: check its name") from None
        days = 1 if len(self.period) == 10 else calendar.monthrange(first.year, first.month)[1]
        start = calendar.timegm(first.timetuple()) * SECOND
        return start, start + days * DAY

    def strays(self, times: I64) -> str | None:
        """What is wrong with rows of these times (UTC ns) in this file; None if nothing.

        Of bars longer than a day nothing is said: which month's file holds one that begins in another is the venue's.
        """
        if self.interval in _MONTHLY_ONLY:
            return None
        start, end = self.span
        outside = times[(times < start) | (times >= end)]
        if not len(outside):
            return None
        day = dt.datetime.fromtimestamp(int(outside[0]) // SECOND, dt.UTC).date()
        return (
            f"{self.name}: it holds rows of {day}, its name says {self.period}: give it the name it was published "
            "under, or fetch it anew"
        )

    def daily(self) -> list[Archive]:
        """The files of a month's days."""
        year, month = map(int, self.period.split("-"))
        days = calendar.monthrange(year, month)[1]
        return [self._replace(period=f"{self.period}-{day:02}") for day in range(1, days + 1)]


def named(origin: str, instrument: str | None) -> Archive:
    """The archive a path or an address names; ``instrument`` says whose it is where its folders do not.

    Raises ``ConfigError`` for a name that is none of the venue's, or one that contradicts ``instrument``.
    """
    matched = _NAME.fullmatch(origin.replace("\\", "/").rpartition("/")[2].partition("?")[0])
    if matched is None:
        raise ConfigError(
            f"{origin[:120]!r} is not named as the venue names its archives (BTCUSDT-trades-2024-08-09.zip); "
            "say what it holds with --format and --instrument"
        )
    told = next((venue for venue, folder in _FOLDERS.items() if f"/{folder}/" in f"/{origin}"), None)
    venue, _, symbol = (instrument or "").partition(":")
    if not (venue or told):
        raise ConfigError(
            f"{origin[:120]!r} does not tell which market it is of: add --instrument binance:{matched[1]}"
        )
    if symbol and symbol != matched["symbol"]:
        raise ConfigError(f"{origin[:120]!r} is of {matched['symbol']}, not of {instrument}: correct --instrument")
    what = matched["what"]
    kind: Kind = "trades" if what == "trades" else "aggTrades" if what == "aggTrades" else "klines"
    interval = what if kind == "klines" else ""
    return Archive(venue or told or "", kind, matched["symbol"], interval, matched["period"], origin)


def planned(
    instrument: str, kind: Kind, tf: Timeframe | None, first: dt.date, last: dt.date, today: dt.date
) -> Iterator[Archive]:
    """The files that hold ``first`` to ``last``: months where they lie in it whole and are over, else days.

    Bars longer than a day come by the month only: of every month that is touched. Raises ``ConfigError`` for what
    cannot be a symbol, or a venue without archives.
    """
    venue, colon, symbol = instrument.rpartition(":")
    if colon and venue not in _FOLDERS:
        raise ConfigError(f"{venue!r} publishes no archives: name an instrument of {', '.join(_FOLDERS)}")
    interval = "" if tf is None else "1mo" if tf.name == "1M" else tf.name
    whole = Archive(venue if colon else "binance", kind, checked(symbol), interval, "")
    day = first
    while day <= last:
        end = day.replace(day=calendar.monthrange(day.year, day.month)[1])
        month = whole._replace(period=f"{day:%Y-%m}")
        if interval in _MONTHLY_ONLY or (day.day == 1 and end <= last and end < today):
            yield month
        else:
            yield from (each for each in month.daily() if f"{day}" <= each.period <= f"{min(end, last)}")
        day = end + dt.timedelta(days=1)
