"""The venue's exchangeInfo: what it lists and how it limits requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tapewick.sim.market import Listing
from tapewick.sim.numerals import padded
from tapewick.sim.symbol import Symbol

__all__ = ["WEIGHT_PER_MINUTE", "exchange_info"]

WEIGHT_PER_MINUTE = 6000


def exchange_info(
    symbols: Mapping[str, Symbol], wanted: Sequence[str], now: int, *, candid: bool = False
) -> dict[str, Any]:
    """The body of an answer that lists ``wanted``; ``now`` in the unit asked for. ``candid``: it says that they are
    simulated, which no real venue does."""
    more = {"simulated": True} if candid else {}
    return {
        "timezone": "UTC",
        "serverTime": now,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WEIGHT_PER_MINUTE},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
        ],
        "exchangeFilters": [],
        "symbols": [_symbol(symbols[name].tape.listing) | more for name in wanted],
    }


def _symbol(listing: Listing) -> dict[str, Any]:
    tick, step = (padded(f"{Decimal(1).scaleb(-scale):f}") for scale in (listing.price_scale, listing.size_scale))
    return {
        "symbol": listing.symbol,
        "status": listing.status,
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }
