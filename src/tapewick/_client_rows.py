"""Rows as a reader of a server holds them: exact decimals, times as int UTC ns, ids as their venue has them.

A ``Trade`` and a ``Candle`` have the names of the server's JSON rows; nothing is rounded on the way.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec

from tapewick.errors import BadPayload

__all__ = ["KINDS", "Book", "Candle", "Price", "Quote", "Row", "Ticker", "Trade", "decode"]

MS = 1_000_000  # ns

Id: TypeAlias = int | str
Side: TypeAlias = Literal["buy", "sell", "unknown"]
Level: TypeAlias = tuple[Decimal, Decimal]


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade; ``side`` is the taker's. ``seq`` numbers the tape without holes. Times: UTC ns.

    An aggregate stands for the ``count`` venue ids from ``first_id`` to ``trade_id``; a raw trade for itself.
    """

    instrument: str
    seq: int
    trade_id: Id
    ts_event: int
    ts_recv: int
    price: Decimal
    size: Decimal
    side: Side
    first_id: Id = -1
    count: int = 1

    def __post_init__(self) -> None:
        if self.first_id == -1:
            msgspec.structs.force_setattr(self, "first_id", self.trade_id)


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One candle in the version of its ``pos``, the higher the newer; ``open_time``: UTC ns.

    ``complete``: whether it is proven that no trade is missing; None where ids cannot prove it or it is open.
    Prices are None in a bucket filled without trades, ``vwap`` in one without volume.
    """

    instrument: str
    tf: str
    open_time: int
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    close: Decimal | None
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    trades: int
    first_id: Id
    last_id: Id
    vwap: Decimal | None
    state: Literal["open", "closed", "final"]
    rev: int
    complete: bool | None
    last_seq: int
    pos: int
    origin: Literal["tape", "import"]


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask; times: UTC ns, ``ts_event`` None where the venue gives none."""

    instrument: str
    update_id: int
    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal
    ts_event: int | None
    ts_recv: int

    def __post_init__(self) -> None:
        _to_ns(self, "ts_event", "ts_recv")


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """Rolling 24 hours (whole minutes) and the UTC day; ``ts``: UTC ns of the newest trade, None without any."""

    instrument: str
    last: Decimal | None
    change_24h: Decimal | None
    change_pct_24h: Decimal | None
    open_24h: Decimal | None
    high_24h: Decimal | None
    low_24h: Decimal | None
    volume_24h: Decimal | None
    quote_volume_24h: Decimal | None
    trades_24h: int
    vwap_24h: Decimal | None
    session_high: Decimal | None
    session_low: Decimal | None
    session_vwap: Decimal | None
    sma10: Decimal | None
    ema20: Decimal | None
    ts: int | None
    position: str = ""
    data_age_ms: int | None = None

    def __post_init__(self) -> None:
        _to_ns(self, "ts")


class Price(msgspec.Struct, frozen=True, gc=False):
    """The last trade at or before ``at``; times: UTC ns. ``complete``: whether none between them can be missing."""

    instrument: str
    price: Decimal
    ts_event: int
    trade_id: Id
    at: int
    age_ms: int
    complete: bool | None
    position: str

    def __post_init__(self) -> None:
        _to_ns(self, "ts_event", "at")


class Book(msgspec.Struct, frozen=True):
    """An order book: levels are ``(price, size)``, best first; only one whose ``state`` is ``live`` is current."""

    instrument: str
    state: Literal["live", "stale", "syncing", "stored"]
    source_run: str
    seq: int
    first_update_id: int
    last_update_id: int
    ts_event: int | None
    bids: list[Level] = []
    asks: list[Level] = []
    data_age_ms: int | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        _to_ns(self, "ts_event")


Row: TypeAlias = Trade | Candle | Quote | Ticker | Book | dict[str, Any]
"""What a channel sends; ``book`` and ``health`` rows are the server's JSON objects as they are."""

KINDS: dict[str, type] = {"trade": Trade, "candle": Candle, "bbo": Quote, "ticker": Ticker, "book_top": Book}

# Lax: times come as decimal strings of ns, which JSON numbers could not hold exactly for every reader.
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(type, strict=False) for kind, type in KINDS.items()
}
_ANY = msgspec.json.Decoder(dict[str, Any])


def decode(kind: str, row: bytes | msgspec.Raw) -> Row:
    """A JSON row of a ``kind`` of channel. Raises ``BadPayload`` for one of another shape."""
    try:
        decoded: Row = _DECODERS.get(kind, _ANY).decode(row)
    except msgspec.DecodeError as error:
        raise BadPayload(f"the server sent a {kind} of another shape: {error}; is it of another version?") from error
    return decoded


def _to_ns(row: msgspec.Struct, *names: str) -> None:
    for name in names:
        if (value := getattr(row, name)) is not None:
            msgspec.structs.force_setattr(row, name, value * MS)
