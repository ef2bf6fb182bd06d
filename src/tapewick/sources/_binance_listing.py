"""What Binance lists: market kinds and their addresses, and instruments out of exchangeInfo."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tapewick.decimals import split
from tapewick.errors import BadDecimal, BadPayload, ConfigError, VenueRefused
from tapewick.model import Instrument
from tapewick.net.venue_client import Priority, VenueClient

__all__ = ["PRODUCTS", "Product", "addresses", "checked", "chunks", "listed"]

SIMULATED = "sim"
SYMBOLS_PER_REQUEST = 100
LISTING_WEIGHT = 20
SCHEMES = ("http", "https", "ws", "wss")


class Product(NamedTuple):
    """Where one kind of market lives. ``filtered``: its exchangeInfo can be asked for single symbols.

    ``tiers``: path in front of ``/stream`` by kind of stream. USD-M answers subscriptions on the
    wrong path with success and then stays silent (since 2026-04-23).
    """

    rest: tuple[str, ...]
    ws: tuple[str, ...]
    root: str
    filtered: bool = False
    tiers: Mapping[str, str] = {}


PRODUCTS = {
    "binance": Product(
        ("https://api.binance.com", "https://data-api.binance.vision"),
        ("wss://data-stream.binance.vision", "wss://stream.binance.com:9443"),
        "/api/v3",
        filtered=True,
    ),
    "binance-usdm": Product(
        ("https://fapi.binance.com",),
        ("wss://fstream.binance.com",),
        "/fapi/v1",
        tiers={
            "trade": "/public",
            "depth": "/public",
            "bookTicker": "/public",
            "aggTrade": "/market",
            "kline_1m": "/market",
            "miniTicker": "/market",
        },
    ),
    "binance-coinm": Product(("https://dapi.binance.com",), ("wss://dstream.binance.com",), "/dapi/v1"),
}
"""Market kinds by venue id; any other venue id speaks the spot protocol."""


class _Filter(msgspec.Struct):
    filterType: str
    tickSize: str = ""
    stepSize: str = ""


class _Symbol(msgspec.Struct):
    symbol: str
    baseAsset: str
    quoteAsset: str
    status: str = ""
    contractStatus: str = ""
    filters: list[_Filter] = []
    simulated: bool = False  # said by a tapewick that relays its demo, and by nobody else


class _Listing(msgspec.Struct):
    symbols: list[_Symbol]


async def listed(
    rest: VenueClient, product: Product, symbols: Sequence[str], *, venue: str, granularity: Literal["raw", "agg"]
) -> list[Instrument]:
    """Those of ``symbols`` the venue lists, as instruments of ``venue``.

    Raises ``SourceError``, and ``ConfigError`` when simulated markets would be taken for a real venue's.
    """
    path = f"{product.root}/exchangeInfo"
    if not product.filtered:
        found = (await rest.get(path, _Listing, priority=Priority.BOOK)).symbols
    else:
        found = []
        for chunk in chunks(symbols, SYMBOLS_PER_REQUEST):
            found += await _looked_up(rest, path, chunk)
    wanted = set(symbols)
    invented = next((each.symbol for each in found if each.simulated), None)
    if invented is not None and venue != SIMULATED:
        raise ConfigError(f"prices of {invented} are simulated there: follow it as {SIMULATED}:{invented}")
    return [_instrument(each, venue, granularity) for each in found if each.symbol in wanted]


async def _looked_up(rest: VenueClient, path: str, chunk: Sequence[str]) -> list[_Symbol]:
    """The listed ones among ``chunk``: the venue refuses a request with one unknown symbol as a whole."""
    try:
        params = {"symbols": msgspec.json.encode(chunk).decode()}
        return (await rest.get(path, _Listing, params, weight=LISTING_WEIGHT, priority=Priority.BOOK)).symbols
    except VenueRefused as error:
        if error.status != 400:
            raise
    if len(chunk) == 1:
        return []
    return [symbol for one in chunk for symbol in await _looked_up(rest, path, [one])]


def _instrument(symbol: _Symbol, venue: str, granularity: Literal["raw", "agg"]) -> Instrument:
    tick = next((f.tickSize for f in symbol.filters if f.filterType == "PRICE_FILTER"), "")
    step = next((f.stepSize for f in symbol.filters if f.filterType == "LOT_SIZE"), "")
    return Instrument(
        id=f"{venue}:{symbol.symbol}",
        venue=venue,
        symbol=symbol.symbol,
        base=symbol.baseAsset,
        quote=symbol.quoteAsset,
        price_scale=_scale(tick),
        size_scale=_scale(step),
        status=(symbol.status or symbol.contractStatus or "unknown").lower(),
        granularity=granularity,
    )


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """``items`` in pieces of at most ``size``, in order."""
    return (items[start : start + size] for start in range(0, len(items), size))


def checked(symbol: str) -> str:
    """The symbol as the venue spells it. Raises ``ConfigError`` for what cannot be one."""
    spelled = unicodedata.normalize("NFC", symbol).upper()
    if not spelled or len(spelled) > 32 or not all(char.isalnum() or char in "_-." for char in spelled):
        raise ConfigError(f"{symbol[:40]!r} cannot be a symbol; write it as the venue does, as in BTCUSDT")
    return spelled


def addresses(given: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Base addresses in the order to try: one's own address excludes the venue's, one of them goes first.

    The address of another product is no choice for this one: one setting serves all market kinds.
    Raises ``ConfigError`` for a text that is no address.
    """
    first = (given or "").rstrip("/")
    if first and not _is_address(first):
        raise ConfigError(
            f"{given!r} is no address of a venue: write http(s)://HOST[:PORT] for REST (--rest-url, BINANCE_BASE_URL), "
            "ws(s)://HOST[:PORT] for streams (--ws-url, BINANCE_WEBSOCKET_BASE_URL)"
        )
    if first in known:
        return (first, *(base for base in known if base != first))
    others = {base for product in PRODUCTS.values() for base in (*product.rest, *product.ws)}
    return known if not first or first in others else (first,)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        return False


def _scale(step: str) -> int:
    """Digits of a tick or step size; 8, the most the venue prints, where it is absent or zero."""
    try:
        mantissa, scale = split(step or "0")
    except BadDecimal as error:
        raise BadPayload(f"the venue's listing holds a bad number: {error}") from error
    return scale if mantissa else 8
