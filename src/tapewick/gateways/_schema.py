"""The shapes of REST answers, for the OpenAPI document only: bodies are written by the encoder.

``Time`` is an integer of ms, or with ``times=ns`` a decimal string of ns. Decimals are plain
strings. Ids are integers, or strings where an instrument's ``id_kind`` is ``unique``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema

from tapewick.formats import FORMATS

__all__ = [
    "BookAnswer",
    "CandlesAnswer",
    "CoverageAnswer",
    "ExportOperation",
    "InstrumentsAnswer",
    "PriceAnswer",
    "RowsOperation",
    "StatusAnswer",
    "Ticker",
    "TradesAnswer",
]

Time: TypeAlias = int | str
Id: TypeAlias = int | str


class InstrumentRow(msgspec.Struct):
    """An instrument that has a tape. ``price_scale``, ``size_scale``: most decimals of its prices and sizes;
    ``id_kind``: whether trade ids count on and so prove that none is missing, or are only unique; ``granularity``:
    whether a row is one trade or the venue's sum of some; ``simulated``: invented by the simulated venue."""

    id: str
    venue: str
    symbol: str
    base: str
    quote: str
    price_scale: int
    size_scale: int
    status: str
    id_kind: Literal["contiguous", "unique"]
    granularity: Literal["raw", "agg"]
    simulated: bool


class StatusAnswer(msgspec.Struct):
    """What serves this: ``engine`` encodes the answers, ``trouble`` is what does not work at the moment,
    ``server_ts`` its clock in ms."""

    version: str
    engine: Literal["native", "reference"]
    trouble: str | None
    server_ts: int


class InstrumentsAnswer(msgspec.Struct):
    """Every instrument, by id."""

    instruments: list[InstrumentRow]


class TradeRow(msgspec.Struct):
    """One trade of the tape. ``seq``: its place there, from 1 without a hole; ``side``: who took, the buyer or the
    seller; ``ts_event``: the venue's time, ``ts_recv``: ours. ``first_id`` and ``count`` are there where a row stands
    for several trades of the venue."""

    instrument: str
    seq: int
    trade_id: Id
    ts_event: Time
    ts_recv: Time
    price: str
    size: str
    side: Literal["buy", "sell", "unknown"]
    first_id: Id | msgspec.UnsetType = msgspec.UNSET
    count: int | msgspec.UnsetType = msgspec.UNSET


Columns: TypeAlias = dict[str, list[Any]]
"""With ``format=columns``: one list per field, all of one length."""


class TradesAnswer(msgspec.Struct):
    """Trades, ascending by seq. ``position``: pass it as ``since`` to go on; ``data_age_ms``: how old the newest data
    of this tape is; ``next``: the address of the following page, null on the last. ``trades`` is one list per field
    with ``format=columns``."""

    trades: list[TradeRow] | Columns
    position: str
    data_age_ms: int | None
    next: str | None


class CandleRow(msgspec.Struct):
    """One candle. ``state``: open, closed, or final once no change is expected; ``rev``: how often it changed after
    it closed; ``complete``: whether the ids prove that no trade is missing, null where they cannot; ``pos``: when it
    last changed, to be compared with a position; ``origin``: folded from the tape, or imported; ``filled``: stands
    for a time without trades. Prices are null only where ``fill=null`` made the row."""

    instrument: str
    tf: str
    open_time: Time
    open: str | None
    high: str | None
    low: str | None
    close: str | None
    volume: str
    quote_volume: str
    taker_buy_volume: str
    taker_buy_quote_volume: str
    trades: int
    first_id: Id
    last_id: Id
    vwap: str | None
    state: Literal["open", "closed", "final"]
    rev: int
    complete: bool | None
    last_seq: int
    pos: int
    origin: Literal["tape", "import"]
    filled: bool | msgspec.UnsetType = msgspec.UNSET


class CandlesAnswer(msgspec.Struct):
    """Candles, ascending by open time (with ``since`` by pos). ``complete``: whether every closed one, and all
    between, is proven whole; ``next``: the address of the following page, null on the last; ``indicators``: one list
    per indicator asked for, parallel to the rows. ``candles`` is one list per field with ``format=columns``."""

    candles: list[CandleRow] | Columns
    position: str
    data_age_ms: int | None
    complete: bool | None
    next: str | None
    indicators: dict[str, list[str | None]] | msgspec.UnsetType = msgspec.UNSET


class Ticker(msgspec.Struct):
    """The last price, and what the last 24 hours (whole minutes) and the UTC day (``session_…``) add up to. Null
    where there was no trade."""

    instrument: str
    last: str | None
    change_24h: str | None
    change_pct_24h: str | None
    open_24h: str | None
    high_24h: str | None
    low_24h: str | None
    volume_24h: str | None
    quote_volume_24h: str | None
    trades_24h: int
    vwap_24h: str | None
    session_high: str | None
    session_low: str | None
    session_vwap: str | None
    sma10: str | None
    ema20: str | None
    ts: int | None
    position: str
    data_age_ms: int | None


class PriceAnswer(msgspec.Struct):
    """The last trade at or before ``at``. ``age_ms``: how long before; ``complete``: whether none between them is
    missing."""

    instrument: str
    price: str
    ts_event: int
    trade_id: Id
    at: int
    age_ms: int
    complete: bool | None
    position: str


class BookAnswer(msgspec.Struct):
    """``state`` is ``live`` or why it is not; only a live book is current. Levels are ``[price, size]``, best
    first."""

    instrument: str
    state: Literal["live", "stale", "syncing", "stored"]
    source_run: str
    seq: int
    first_update_id: int
    last_update_id: int
    ts_event: int | None
    data_age_ms: int | None
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    detail: str | msgspec.UnsetType = msgspec.UNSET


class GapRow(msgspec.Struct):
    """A hole in the tape: the ids between ``left_id`` and ``right_id`` are missing, the times are those of these two
    trades, null where none is known. ``state``: open, repairing, or unrepairable where it was given up; ``attempts``:
    failed ones in a row."""

    left_id: int
    right_id: int
    left_ts: int | None
    right_ts: int | None
    state: str
    reason: str
    attempts: int


class CoverageAnswer(msgspec.Struct):
    """What a tape holds: ``trades`` in all, and the ``ranges`` of ids, each first and last, that are covered;
    ``gaps``: what it lacks. ``complete``: whether nothing is missing in the time asked for, null where ids cannot
    tell."""

    instrument: str
    id_kind: Literal["contiguous", "unique"]
    trades: int
    ranges: list[tuple[int, int]]
    gaps: list[GapRow]
    complete: bool | None
    position: str


@dataclass
class RowsOperation(Operation):
    """A route whose rows also come as a table, and which may answer that nothing has changed."""

    def __post_init__(self) -> None:
        responses = self.responses or {}
        if (good := responses.get("200")) is not None and isinstance(good, OpenAPIResponse) and good.content:
            good.content["text/csv"] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
        responses["304"] = OpenAPIResponse(description="What the client holds (If-None-Match) is what there is")


@dataclass
class ExportOperation(Operation):
    """A route that answers with a file in one of several formats."""

    def __post_init__(self) -> None:
        if (good := (self.responses or {}).get("200")) is not None and isinstance(good, OpenAPIResponse):
            types = [made.media_type for made in FORMATS.values()]
            good.content = {type: OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING)) for type in types}
