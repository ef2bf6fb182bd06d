"""Files and streams of trades or candles: JSON Lines, CSV, Arrow and Parquet, each written part by part.

All four hold the same columns with the same exact values; no driver is needed for any of them.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from tapewick.formats.arrow import ArrowWriter
from tapewick.formats.parquet import ParquetWriter
from tapewick.formats.table import Layout, candle_layout, trade_layout
from tapewick.formats.text import CsvWriter, LinesWriter
from tapewick.model import CandleBatch, TradeBatch

__all__ = ["FORMATS", "Format", "Layout", "Writer", "candle_layout", "trade_layout", "writer"]

Format: TypeAlias = Literal["jsonl", "csv", "arrow", "parquet"]


class Writer(Protocol):
    """Writes one table: ``head()``, a ``part`` per batch, ``end()``. Nothing written is kept in memory."""

    media_type: str

    def head(self) -> bytes: ...

    def part(self, batch: CandleBatch | TradeBatch) -> bytes:
        """The rows of ``batch``. Raises ``ModelError`` when its scales are not those of the layout."""
        ...

    def end(self) -> bytes: ...


FORMATS: dict[Format, type[LinesWriter | CsvWriter | ArrowWriter | ParquetWriter]] = {
    "jsonl": LinesWriter,
    "csv": CsvWriter,
    "arrow": ArrowWriter,
    "parquet": ParquetWriter,
}


def writer(format: Format, layout: Layout) -> Writer:
    """What writes a table of ``layout`` in ``format``."""
    return FORMATS[format](layout)
