"""JSON Lines and CSV: the rows of every native surface, one per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import msgspec

from tapewick.engine import encode_candles, encode_trades
from tapewick.formats.table import Layout
from tapewick.model import CandleBatch, TradeBatch

__all__ = ["CANDLE_COLUMNS", "TRADE_COLUMNS", "CsvWriter", "LinesWriter", "csv_head", "csv_rows"]

TRADE_COLUMNS = (
    "instrument", "seq", "trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side",
)  # fmt: skip
CANDLE_COLUMNS = (
    "instrument", "tf", "open_time", "open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume",
    "taker_buy_quote_volume", "trades", "first_id", "last_id", "vwap", "state", "rev", "complete", "last_seq", "pos",
    "origin",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run when a text cell begins with it


def csv_head(columns: Iterable[str]) -> bytes:
    """The first line."""
    return (",".join(columns) + "\r\n").encode()


def csv_rows(columns: Iterable[str], rows: bytes) -> bytes:
    """A JSON array of row objects as CSV lines; null is empty, true and false are words.

    A trade that stands for itself prints ``first_id`` and ``count`` too: columns have no optional fields.
    """
    out = io.StringIO()
    write = csv.writer(out).writerow
    names = tuple(columns)
    for row in msgspec.json.decode(rows):
        if "trade_id" in row:
            row.setdefault("first_id", row["trade_id"])
            row.setdefault("count", 1)
        if row["instrument"].startswith(_FORMULA):
            row["instrument"] = "'" + row["instrument"]
        write([_cell(row.get(name)) for name in names])
    return out.getvalue().encode()


def _cell(value: object) -> object:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def _json(batch: CandleBatch | TradeBatch, text_ids: bool, lines: bool) -> bytes:
    if isinstance(batch, TradeBatch):
        return encode_trades(batch, lines=lines, text_ids=text_ids)
    scales = batch.price_scale, batch.size_scale
    return encode_candles(batch.instrument, batch.rows, *scales, lines=lines, text_ids=text_ids)


class LinesWriter:
    """One JSON object per line."""

    media_type = "application/x-ndjson"

    def __init__(self, layout: Layout) -> None:
        self._text_ids = layout.text_ids

    def head(self) -> bytes:
        return b""

    def part(self, batch: CandleBatch | TradeBatch) -> bytes:
        return _json(batch, self._text_ids, lines=True)

    def end(self) -> bytes:
        return b""


class CsvWriter:
    """A header line, then one line per row; times are integers of UTC ms, decimals exact."""

    media_type = "text/csv"

    def __init__(self, layout: Layout) -> None:
        self._text_ids = layout.text_ids
        self._columns = tuple(field.name for field in layout.fields)

    def head(self) -> bytes:
        return csv_head(self._columns)

    def part(self, batch: CandleBatch | TradeBatch) -> bytes:
        return csv_rows(self._columns, _json(batch, self._text_ids, lines=False))

    def end(self) -> bytes:
        return b""
