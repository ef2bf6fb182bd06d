"""Trades and candles as typed columns: the shape Arrow and Parquet share.

Decimals are 128-bit integers beside a scale, never floats; a value that does not exist is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tapewick.decimals import truncated_ratio
from tapewick.engine.candles import SUMS, sums
from tapewick.errors import ModelError
from tapewick.model import I64, CandleBatch, Candles, Instrument, TradeBatch
from tapewick.timeframe import BY_INDEX

__all__ = ["PRECISION", "Column", "Field", "Layout", "candle_layout", "trade_layout"]

PRECISION = 38
"""Digits a decimal column holds: the most 128 bits do."""

Words: TypeAlias = npt.NDArray[np.uint64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_STATES = [b"open", b"closed", b"final"]
_ORIGINS = [b"tape", b"import"]
_SIDES = [b"sell", b"unknown", b"buy"]


@dataclass(frozen=True, slots=True)
class Field:
    """One column's name and type. ``time``: UTC ns; ``decimal``: a mantissa with ``scale`` digits."""

    name: str
    kind: Literal["text", "int", "bool", "time", "decimal"]
    scale: int = 0
    nullable: bool = False


class Column(NamedTuple):
    """The values of one field, n of them; where ``valid`` is false the value is null.

    ``text``: a list of bytes; ``int``, ``time``: int64; ``bool``: bool; ``decimal``: uint64 of shape (n, 2),
    the low and the high word of a two's complement.
    """

    values: list[bytes] | npt.NDArray[np.generic]
    valid: Mask | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What a table of one instrument holds. ``facts`` go into the file as its metadata."""

    instrument: str
    fields: tuple[Field, ...]
    price_scale: int
    size_scale: int
    text_ids: bool
    facts: dict[str, str]

    def columns(self, batch: CandleBatch | TradeBatch) -> list[Column]:
        """The columns of ``batch``, parallel to ``fields``. Raises ``ModelError`` for other scales."""
        self.check(batch)
        made = _trades(batch, self) if isinstance(batch, TradeBatch) else _candles(batch.rows, self)
        return [made[field.name] for field in self.fields]

    def check(self, batch: CandleBatch | TradeBatch) -> None:
        """Raises ``ModelError`` when ``batch`` has other scales: a column cannot change its type half-way."""
        if len(_rows(batch)) and (batch.price_scale, batch.size_scale) != (self.price_scale, self.size_scale):
            raise ModelError(f"{self.instrument} got more decimals while it was exported; export it again")


def _rows(batch: CandleBatch | TradeBatch) -> npt.NDArray[np.generic]:
    return batch.trade_id if isinstance(batch, TradeBatch) else batch.rows


def candle_layout(own: Instrument, price_scale: int, size_scale: int, facts: dict[str, str]) -> Layout:
    """The columns of candles, named as everywhere. Raises ``ModelError`` for scales no decimal column holds."""
    price, quote = price_scale, price_scale + size_scale
    id_kind: Literal["text", "int"] = "text" if own.id_kind == "unique" else "int"
    fields = (
        Field("instrument", "text"),
        Field("tf", "text"),
        Field("open_time", "time"),
        *(Field(name, "decimal", price, nullable=True) for name in ("open", "high", "low", "close")),
        Field("volume", "decimal", size_scale),
        Field("quote_volume", "decimal", quote),
        Field("taker_buy_volume", "decimal", size_scale),
        Field("taker_buy_quote_volume", "decimal", quote),
        Field("trades", "int"),
        Field("first_id", id_kind),
        Field("last_id", id_kind),
        Field("vwap", "decimal", price + 4, nullable=True),
        Field("state", "text"),
        Field("rev", "int"),
        Field("complete", "bool", nullable=True),
        Field("last_seq", "int"),
        Field("pos", "int"),
        Field("origin", "text"),
    )
    return _layout(own, fields, price_scale, size_scale, facts)


def trade_layout(own: Instrument, price_scale: int, size_scale: int, facts: dict[str, str]) -> Layout:
    """The columns of trades. Raises ``ModelError`` for scales no decimal column holds."""
    id_kind: Literal["text", "int"] = "text" if own.id_kind == "unique" else "int"
    fields = (
        Field("instrument", "text"),
        Field("seq", "int"),
        Field("trade_id", id_kind),
        Field("first_id", id_kind),
        Field("count", "int"),
        Field("ts_event", "time"),
        Field("ts_recv", "time"),
        Field("price", "decimal", price_scale),
        Field("size", "decimal", size_scale),
        Field("side", "text"),
    )
    return _layout(own, fields, price_scale, size_scale, facts)


def _layout(
    own: Instrument, fields: tuple[Field, ...], price_scale: int, size_scale: int, facts: dict[str, str]
) -> Layout:
    if max(field.scale for field in fields) > PRECISION:
        raise ModelError(f"{own.id} has too many decimals for columns; export it as csv or jsonl")
    return Layout(own.id, fields, price_scale, size_scale, own.id_kind == "unique", facts)


def _candles(rows: Candles, layout: Layout) -> dict[str, Column]:
    n = len(rows)
    priced: Mask = (rows["trades"] != 0) | (rows["filled"] == 1)
    totals = {name: sums(rows, name) for name in SUMS}
    pairs = zip(totals["quote_volume"], totals["volume"], strict=True)
    vwap = [truncated_ratio(quote, volume, 4) for quote, volume in pairs]
    return {
        "instrument": Column([layout.instrument.encode()] * n),
        "tf": Column([BY_INDEX[tf].name.encode() for tf in rows["tf"].tolist()]),
        **{name: Column(_widened(rows[name]), priced) for name in ("open", "high", "low", "close")},
        **{name: Column(_words(rows[name + "_lo"], rows[name + "_hi"])) for name in SUMS},
        **{name: Column(_ids(rows[name], layout.text_ids)) for name in ("first_id", "last_id")},
        **{name: Column(rows[name].astype(np.int64)) for name in ("open_time", "trades", "rev", "last_seq", "pos")},
        "vwap": Column(_split([one or 0 for one in vwap]), np.array([one is not None for one in vwap], bool)),
        "state": Column([_STATES[one] for one in rows["state"].tolist()]),
        "complete": Column(rows["complete"] == 1, rows["complete"] >= 0),
        "origin": Column([_ORIGINS[one] for one in rows["origin"].tolist()]),
    }


def _trades(batch: TradeBatch, layout: Layout) -> dict[str, Column]:
    assert batch.seq is not None
    return {
        "instrument": Column([layout.instrument.encode()] * len(batch)),
        "seq": Column(batch.seq),
        "trade_id": Column(_ids(batch.trade_id, layout.text_ids)),
        "first_id": Column(_ids(batch.first_id, layout.text_ids)),
        "count": Column(batch.count.astype(np.int64)),
        "ts_event": Column(batch.ts_event),
        "ts_recv": Column(batch.ts_recv),
        "price": Column(_widened(batch.price)),
        "size": Column(_widened(batch.size)),
        "side": Column([_SIDES[one + 1] for one in np.sign(batch.side).tolist()]),
    }


def _ids(values: I64, as_text: bool) -> list[bytes] | I64:
    return [b"%d" % one for one in values.tolist()] if as_text else values.astype(np.int64)


def _words(low: npt.NDArray[np.uint64], high: I64) -> Words:
    return np.column_stack((low.astype(np.uint64), high.astype(np.int64).view(np.uint64)))


def _widened(values: I64) -> Words:
    """int64 as 128 bits."""
    own = np.ascontiguousarray(values, np.int64)
    return _words(own.view(np.uint64), own >> 63)


def _split(values: list[int]) -> Words:
    low = np.array([value & 0xFFFF_FFFF_FFFF_FFFF for value in values], np.uint64)
    return _words(low, np.array([value >> 64 for value in values], np.int64))
