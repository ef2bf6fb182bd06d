"""Instruments as UDF clients describe them: symbols of an exchange with their resolutions."""

from __future__ import annotations

from typing import Any

from tapewick.errors import NotFound
from tapewick.market import Market
from tapewick.model import Instrument
from tapewick.timeframe import NAMES

__all__ = ["RESOLUTIONS", "column_form", "describe", "exchanges", "full_name", "resolve", "search"]

_MINUTES = ("1", "3", "5", "15", "30", "45", "60", "120", "180", "240", "360", "480", "720")
RESOLUTIONS = dict(zip(("1S", *_MINUTES, "1D", "3D", "1W", "1M"), NAMES, strict=True))
"""Each resolution's timeframe, shortest first."""

_ORACLES = frozenset({"chainlink"})


def full_name(own: Instrument) -> str:
    """``BINANCE:BTCUSDT``."""
    return f"{own.venue.upper()}:{own.symbol}"


def _exchange(own: Instrument) -> str:
    return own.venue.upper()


def _description(own: Instrument) -> str:
    return f"{own.base} / {own.quote}" if own.base and own.quote else own.symbol


async def resolve(market: Market, name: str) -> Instrument:
    """The instrument that an id, ``EXCHANGE:SYMBOL`` or a symbol only one venue has means. Raises ``NotFound``."""
    known = await market.instruments()
    venue, _, symbol = name.rpartition(":")
    found = [own for own in known if own.id == name]
    found = found or [own for own in known if own.symbol == symbol and venue.lower() in (own.venue, "")]
    if len(found) != 1:
        raise NotFound("unknown_symbol", field="symbol")
    return found[0]


def describe(own: Instrument) -> dict[str, Any]:
    """What ``/udf/symbols`` answers."""
    return {
        "name": own.symbol,
        "ticker": own.id,
        "full_name": full_name(own),
        "description": _description(own),
        "type": "crypto",
        "session": "24x7",
        "timezone": "Etc/UTC",
        "exchange": _exchange(own),
        "listed_exchange": _exchange(own),
        "format": "price",
        "minmov": 1,
        "pricescale": 10**own.price_scale,
        "has_intraday": True,
        "has_seconds": True,
        "seconds_multipliers": ["1"],
        "intraday_multipliers": list(_MINUTES),
        "has_daily": True,
        "has_weekly_and_monthly": True,
        "visible_plots_set": "ohlc" if own.venue in _ORACLES else "ohlcv",
        "volume_precision": own.size_scale,
        "supported_resolutions": list(RESOLUTIONS),
        "data_status": "streaming",
    }


def exchanges(known: list[Instrument]) -> list[dict[str, str]]:
    """Every venue there are instruments of, after a line for all."""
    venues = sorted({own.venue for own in known})
    listed = [{"value": venue, "name": venue.capitalize(), "desc": _words(venue)} for venue in venues]
    return [{"value": "", "name": "All", "desc": ""}, *listed]


def _words(venue: str) -> str:
    if venue in _ORACLES:
        return "Oracle feeds"
    return "Simulated venue" if venue == "sim" else venue.replace("-", " ").capitalize()


def search(known: list[Instrument], query: str, type: str, exchange: str, limit: int) -> list[dict[str, str]]:
    """At most ``limit`` instruments whose name holds ``query``; those that begin with it first."""
    wanted = query.upper()
    found = [
        own
        for own in known
        if type in ("", "crypto")
        and exchange.lower() in ("", own.venue)
        and (wanted in full_name(own).upper() or wanted in _description(own).upper())
    ]
    found.sort(key=lambda own: (not own.symbol.upper().startswith(wanted), own.symbol, own.venue))
    return [
        {
            "symbol": own.symbol,
            "full_name": full_name(own),
            "description": _description(own),
            "exchange": _exchange(own),
            "ticker": own.id,
            "type": "crypto",
        }
        for own in found[:limit]
    ]


def column_form(listed: list[Instrument]) -> dict[str, Any]:
    """What ``/udf/symbol_info`` answers: one list per property, one value where all are equal."""
    return {
        "symbol": [own.symbol for own in listed],
        "description": [_description(own) for own in listed],
        "exchange-listed": [_exchange(own) for own in listed],
        "exchange-traded": [_exchange(own) for own in listed],
        "minmovement": 1,
        "minmovement2": 0,
        "pricescale": [10**own.price_scale for own in listed],
        "has-intraday": True,
        "has-daily": True,
        "has-weekly-and-monthly": True,
        "intraday-multipliers": [list(_MINUTES) for _ in listed],
        "supported-resolutions": [list(RESOLUTIONS) for _ in listed],
        "type": "crypto",
        "ticker": [own.id for own in listed],
        "timezone": "Etc/UTC",
        "session-regular": "24x7",
        "volume_precision": [own.size_scale for own in listed],
    }
