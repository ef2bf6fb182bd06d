"""Which instruments a Binance client sees, under which symbols, and how exchangeInfo describes them.

A symbol belongs to one instrument. Without a configured venue that is the one of ``binance``, else
of ``sim``, else of the only other venue that has the symbol; a symbol that two others share is
not served until the setting names one. Only instruments with contiguous trade ids are served:
the protocol has no other kind. Oracle feeds (rounds instead of trades) are opt-in.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from tapewick.errors import NotFound
from tapewick.gateways._binance_query import Refused
from tapewick.market import Market
from tapewick.model import Instrument

__all__ = ["STATUSES", "Listed", "Symbols", "chosen", "described", "status_of"]

PREFERRED = ("binance", "sim")
ORACLES = ("chainlink",)
FRESH = 1.0  # seconds a look at the instruments may be old
STATUSES = {
    "trading": "TRADING",
    "halt": "HALT",
    "break": "BREAK",
    "end_of_day": "END_OF_DAY",
    "cancel_only": "CANCEL_ONLY",
}
_NOT_IN_SYMBOLS = re.compile(r"[^\w\-.]")


class Listed(NamedTuple):
    """An instrument under its symbol. ``json``: the symbol as JSON text; ``stream``: as stream names begin."""

    symbol: str
    instrument: Instrument
    json: bytes
    stream: str

    @property
    def id(self) -> str:
        return self.instrument.id

    @property
    def oracle(self) -> bool:
        return self.instrument.venue in ORACLES


class Symbols:
    """Symbols to instruments, followed as instruments come."""

    def __init__(self, market: Market, *, venue: str = "", oracles: bool = False) -> None:
        self._market, self._venue, self._oracles = market, venue, oracles
        self._ids: dict[str, str] = {}
        self._looked = float("-inf")

    async def find(self, symbol: str) -> Listed:
        """The instrument of ``symbol``. Raises ``Refused`` (-1121)."""
        id = (await self._known()).get(symbol)
        if id is None:
            raise Refused(-1121, "Invalid symbol.")
        return await self._listed(symbol, id)

    async def all(self) -> list[Listed]:
        """Every symbol, in alphabetical order."""
        return [await self._listed(symbol, id) for symbol, id in sorted((await self._known()).items())]

    async def streamed(self, lower: str) -> Listed | None:
        """The instrument whose stream names begin with ``lower``; None if there is none."""
        for symbol, id in (await self._known()).items():
            if symbol.lower() == lower:
                return await self._listed(symbol, id)
        return None

    async def _listed(self, symbol: str, id: str) -> Listed:
        try:
            instrument = await self._market.instrument(id)
        except NotFound as error:
            raise Refused(-1121, "Invalid symbol.") from error
        return Listed(symbol, instrument, msgspec.json.encode(symbol), symbol.lower())

    async def _known(self) -> dict[str, str]:
        now = asyncio.get_running_loop().time()
        if now - self._looked > FRESH:
            self._ids = chosen(await self._market.instruments(), venue=self._venue, oracles=self._oracles)
            self._looked = now
        return self._ids


def chosen(instruments: Iterable[Instrument], *, venue: str = "", oracles: bool = False) -> dict[str, str]:
    """The id each symbol stands for."""
    by_symbol: dict[str, dict[str, str]] = defaultdict(dict)
    for one in instruments:
        if one.id_kind == "contiguous" and (oracles or one.venue not in ORACLES):
            by_symbol[_symbol(one)][one.venue] = one.id
    ids = {}
    for symbol, venues in by_symbol.items():
        wanted = (venue,) if venue else (*PREFERRED, *(venues if len(venues) == 1 else ()))
        id = next((venues[name] for name in wanted if name in venues), None)
        if id is not None:
            ids[symbol] = id
    return ids


def _symbol(instrument: Instrument) -> str:
    """``ETH/USD`` is ETHUSD here: a slash separates stream names."""
    return _NOT_IN_SYMBOLS.sub("", instrument.symbol.upper())


def step(scale: int) -> str:
    """The smallest step of a number with ``scale`` digits: ``0.01``."""
    return f"0.{1:0{scale}d}" if scale > 0 else "1"


def described(symbols: Sequence[Listed], now_ms: int, weight: int) -> dict[str, Any]:
    """The body of exchangeInfo; ``weight`` is what a client may use per minute."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": weight * 5},
        ],
        "exchangeFilters": [],
        "symbols": [_one(listed) for listed in symbols],
    }


def status_of(listed: Listed) -> str:
    """The venue's word for an instrument's status; an oracle feed is never traded."""
    if listed.oracle:
        return "BREAK"
    return STATUSES.get(listed.instrument.status.lower(), listed.instrument.status.upper())


def _one(listed: Listed) -> dict[str, Any]:
    own = listed.instrument
    tick, lot = step(own.price_scale), step(own.size_scale)
    return {
        "symbol": listed.symbol,
        "status": status_of(listed),
        "baseAsset": own.base or listed.symbol,
        "baseAssetPrecision": max(8, own.size_scale),
        "quoteAsset": own.quote or "USD",
        "quotePrecision": max(8, own.price_scale),
        "quoteAssetPrecision": max(8, own.price_scale),
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": not listed.oracle,
        "isMarginTradingAllowed": False,
        **({"simulated": True} if own.simulated else {}),  # a relay must not take it for the venue's own
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": _most(own.price_scale), "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": _most(own.size_scale), "stepSize": lot},
            {
                "filterType": "NOTIONAL",
                "minNotional": tick,
                "applyMinToMarket": True,
                "maxNotional": _most(own.price_scale),
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def _most(scale: int) -> str:
    """The largest number of the venue's filters, with ``scale`` digits, that fits 64 bits."""
    whole = min(9_000_000, 10 ** (18 - scale) - 1) if scale < 18 else 1
    return f"{whole}.{0:0{scale}d}" if scale > 0 else str(whole)
