"""The venue's own candles over REST, as exact values to compare with: never a source of candles."""

from __future__ import annotations

from typing import NamedTuple, Self, TypeAlias

import msgspec

from tapewick.decimals import format_mantissa, split
from tapewick.errors import BadDecimal, BadPayload, ConfigError
from tapewick.net.venue_client import Priority, VenueClient
from tapewick.sources._binance_listing import PRODUCTS
from tapewick.timeframe import DAY, NAMES, Timeframe, bucket, next_open

__all__ = ["DIGITS", "FIELDS", "Bar", "VenueKlines", "exact", "shown"]

DIGITS = 38  # decimals that ``exact`` keeps: all that 128-bit arithmetic holds
FIELDS = (
    "open", "high", "low", "close", "volume", "quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume",
)  # fmt: skip
"""The value fields both sides print, in the order of ``Bar``."""

MS = 1_000_000
_PAGE = 1000
_LONGEST = 200 * DAY  # the longest range the futures interfaces answer
_NOT_AT_VENUE = ("45m", "3h")
_TENS: tuple[int, ...] = tuple(10**power for power in range(DIGITS + 1))
_Row: TypeAlias = list[str | int]


class _Time(msgspec.Struct):
    serverTime: int


class Bar(NamedTuple):
    """One candle's values: decimals as integers with ``DIGITS`` digits after the point, ``trades`` a count."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trades: int
    taker_buy_volume: int
    taker_buy_quote_volume: int


def exact(text: str) -> int:
    """Decimal text as an integer with ``DIGITS`` digits after the point; raises ``BadDecimal``."""
    whole, _, part = text.partition(".")
    if len(part) <= DIGITS and (digits := whole + part).isdecimal() and digits.isascii() and len(digits) <= DIGITS:
        return int(digits) * _TENS[DIGITS - len(part)]
    mantissa, scale = split(text)
    return mantissa * _TENS[DIGITS - scale]


def shown(bar: Bar, field: str) -> str:
    """A field of ``bar`` as plain text."""
    value: int = getattr(bar, field)
    return str(value) if field == "trades" else format_mantissa(value, DIGITS)


class VenueKlines:
    """Klines of one market of the venue; ``fields`` are those that mean the same on both sides.

    Requests go through ``client``, which the context closes, with the lowest priority. Bars come closed
    and open alike.
    """

    def __init__(self, client: VenueClient, *, venue: str = "binance") -> None:
        self._client = client
        self._spot = not venue.startswith("binance-")
        self._root = PRODUCTS.get(venue, PRODUCTS["binance"]).root
        # A coin-margined kline counts its turnover in the base asset, ours in contracts times price.
        coin_margined = venue == "binance-coinm"
        self.fields = tuple(name for name in FIELDS if not (coin_margined and "quote" in name))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def now(self) -> int:
        """The venue's clock, UTC ns. Raises ``SourceError``."""
        answer = await self._client.get(f"{self._root}/time", _Time, weight=1, priority=Priority.VERIFY)
        return answer.serverTime * MS

    def require(self, tf: Timeframe) -> None:
        """Raises ``ConfigError`` for a timeframe the venue has no bars of."""
        if tf.name in _NOT_AT_VENUE or (tf.index == 0 and not self._spot):
            known = [name for name in NAMES if name not in _NOT_AT_VENUE and (self._spot or name != "1s")]
            raise ConfigError(f"the venue has no {tf.name} bars to compare with; choose among {' '.join(known)}")

    async def bars(self, symbol: str, tf: Timeframe, start: int, end: int) -> dict[int, Bar]:
        """Bars by open time, ``start`` ≤ open time < ``end`` (UTC ns), ascending.

        Raises ``ConfigError`` for a timeframe the venue lacks, ``SourceError`` when it does not answer.
        """
        self.require(tf)
        found: dict[int, Bar] = {}
        span = _PAGE * tf.length if self._spot else min(_PAGE * tf.length, _LONGEST)
        at = start
        while at < end:
            until = min(end, max(bucket(tf, at + span), next_open(tf, bucket(tf, at))))
            for row in await self._rows(symbol, tf, at, until):
                found[int(row[0]) * MS] = _bar(row)
            at = until
        return {t: found[t] for t in sorted(found) if start <= t < end}

    async def _rows(self, symbol: str, tf: Timeframe, start: int, end: int) -> list[_Row]:
        params: dict[str, str | int] = {
            "symbol": symbol,
            "interval": tf.name,
            "startTime": -(-start // MS),
            "endTime": (end - 1) // MS,
            "limit": _PAGE,
        }
        rows = await self._client.get(
            f"{self._root}/klines", list[_Row], params, weight=2 if self._spot else 5, priority=Priority.VERIFY
        )
        for row in rows:
            if len(row) < 11 or not isinstance(row[0], int) or not isinstance(row[8], int):
                raise BadPayload(f"{self._client.host} answered a kline of an unknown shape: {str(row)[:80]}")
        return rows


def _bar(row: _Row) -> Bar:
    """The values of one kline row. Raises ``BadPayload``."""
    try:
        opening, high, low, close, volume, turnover, taken, taken_turnover = (
            exact(str(row[at])) for at in (1, 2, 3, 4, 5, 7, 9, 10)
        )
    except BadDecimal as error:
        raise BadPayload(f"the venue answered a kline with a bad number: {error}") from error
    return Bar(opening, high, low, close, volume, turnover, int(row[8]), taken, taken_turnover)
