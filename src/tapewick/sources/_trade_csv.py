"""Venue trades as CSV: the recorder's form with named columns, and the public archive's.

Named columns are found by their header. The archive's files without a header are taken
only as ``id, price, qty, quoteQty, time, isBuyerMaker[, isBestMatch]``, those of aggregates as ``id, price, qty,
first, last, time, isBuyerMaker[, isBestMatch]``; no other order is guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapewick.errors import BadPayload
from tapewick.model import I64, TradeBatch
from tapewick.sources._csv import Mask, Numbers, Table, first_scale
from tapewick.sources._files import Blocks, Rejects
from tapewick.sources._stamps import to_ns, unit_of

__all__ = ["CsvTrades"]

_BLOCK = 512 << 10
_HEADERS = {
    "id": "tradeid id aggtradeid",
    "price": "price",
    "size": "quantity qty",
    "time": "transactiontime time transacttime",
    "first": "firsttradeid",
    "last": "lasttradeid",
    "maker": "isbuyermarketmaker isbuyermaker",
    "received": "timestampofreceive",
    "event": "eventtype",
    "symbol": "symbol",
    "execution": "xunknownparameter x",
}
_EXPECTED = (
    "expected a header naming TradeId, Price, Quantity, TransactionTime, IsBuyerMarketMaker, or archive rows "
    "id,price,qty,quoteQty,time,isBuyerMaker[,isBestMatch]"
)
_TRUE, _FALSE = np.frombuffer(b"tT1", np.uint8), np.frombuffer(b"fF0", np.uint8)
_AGGREGATES = re.compile(r"\d+,[\d.]+,[\d.]+,\d+,\d+,\d+,(?:true|false)(?:,(?:true|false))?", re.IGNORECASE)
_ARCHIVE = re.compile(r"\d+,[\d.]+,[\d.]+,[\d.]+,\d+,(?:true|false)(?:,(?:true|false))?", re.IGNORECASE)


@dataclass(slots=True)
class _Columns:
    width: int
    header: bool
    at: dict[str, int]


def _columns(path: Path, block: bytes) -> _Columns:
    """Which column holds what, from the first line that is no comment."""
    lines = (line.strip() for line in block[:65536].split(b"\n"))
    first = next((line for line in lines if line and not line.startswith(b"#")), b"").decode("utf-8", "replace")
    first = first.lstrip("\ufeff")
    width = first.count(",") + 1
    if _ARCHIVE.fullmatch(first):
        return _Columns(width, False, {"id": 0, "price": 1, "size": 2, "time": 4, "maker": 5})
    if _AGGREGATES.fullmatch(first):
        return _Columns(width, False, {"id": 0, "price": 1, "size": 2, "first": 3, "last": 4, "time": 5, "maker": 6})
    names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in first.split(",")]
    at = {role: names.index(name) for role, known in _HEADERS.items() for name in known.split() if name in names}
    if not {"id", "price", "size", "time", "maker"} <= at.keys():
        raise BadPayload(f"{path}:1: {first[:60]!r}: {_EXPECTED}")
    return _Columns(width, True, at)


class _Screen:
    """Which rows of a block are still good; the others are counted by the first reason found."""

    def __init__(self, table: Table, rejects: Rejects, path: Path, consumed: int, *, header: bool) -> None:
        self.good = np.ones(table.rows, np.bool_)
        self.good[: int(header)] = False
        self._table, self._rejects, self._path, self._consumed = table, rejects, path, consumed
        if len(table.odd):
            rejects.add("fields", self._place(int(table.odd[0])), len(table.odd))

    def _place(self, line: int) -> str:
        return f"{self._path}:{self._consumed + line + 1}"

    def keep(self, reason: str, ok: Mask) -> None:
        """Only rows where ``ok`` stay good."""
        bad = self.good & ~ok
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            self._rejects.add(reason, self._place(int(self._table.line[row])), int(bad.sum()))
            self.good &= ok


class CsvTrades:
    """Reads CSV files of one instrument's trades into batches, one per block.

    The scales of prices and sizes are set by the first block and only ever widen. Lines are
    counted in ``lines``, and each of them in ``trades``, ``others`` or ``rejects``. ``aggregates``: whether
    the files hold the venue's aggregates, which stand for the ids from their first to their last.
    """

    def __init__(self, instrument: str, others: Counter[str], rejects: Rejects, *, aggregates: bool = False) -> None:
        self._aggregates = aggregates
        self.instrument = instrument
        self.lines = self.trades = self.bytes_read = 0
        self._others, self._rejects = others, rejects
        self._symbol = instrument.partition(":")[2].encode()
        self._scales: dict[str, int] = {}
        self._units: dict[str, int] = {}

    def read(self, path: Path) -> Iterator[TradeBatch]:
        """Batches of one file.

        Raises ``BadPayload`` for a file of another format, and after the good part of a damaged one.
        """
        blocks = Blocks(path, _BLOCK)
        columns: _Columns | None = None
        before = self.bytes_read
        self._units = {}
        try:
            while True:
                consumed = blocks.lines
                if not (block := blocks.read() or _last_line(blocks)):
                    break
                fresh = columns is None
                columns = columns or self._columns(path, block)
                self.bytes_read = before + blocks.bytes_read
                self.lines += blocks.lines - consumed
                yield self._batch(path, block, columns, consumed, header=fresh and columns.header)
        finally:
            blocks.close()
        if blocks.fault:
            raise BadPayload(f"{path}:{blocks.lines + 1}: {blocks.fault}; everything before it was read")
        if columns is None:
            raise BadPayload(f"{path} is empty; {_EXPECTED}")

    def _columns(self, path: Path, block: bytes) -> _Columns:
        columns = _columns(path, block)
        if ("last" in columns.at) != self._aggregates:
            kinds = ("single trades", "aggregates")
            found, meant = kinds if self._aggregates else reversed(kinds)
            raise BadPayload(f"{path} holds {found}, not {meant}: import it as what it is")
        return columns

    def _batch(self, path: Path, block: bytes, columns: _Columns, consumed: int, *, header: bool) -> TradeBatch:
        table, at = Table(block, columns.width), columns.at
        screen = _Screen(table, self._rejects, path, consumed, header=header)
        for role, literal in (("symbol", self._symbol), ("event", b"trade")):
            if role in at:
                screen.keep(f"other {role}", table.equals(at[role], literal))
        ids, ok = table.integers(at["id"])
        screen.keep("id", ok)
        first, ids = self._span(table, at, ids, screen)
        price, size = self._decimal("price", table, at["price"]), self._decimal("size", table, at["size"])
        screen.keep("price", price.ok)
        screen.keep("size", size.ok)
        time, ok = self._time("time", table, at["time"], screen.good)
        screen.keep("time", ok)
        maker = table.first_bytes(at["maker"])
        sells = np.isin(maker, _TRUE)
        screen.keep("side", sells | np.isin(maker, _FALSE))
        received = self._time("received", table, at["received"], screen.good)[0] if "received" in at else time
        void = screen.good & (price.values == 0) & (size.values == 0) & _no_execution(table, at)
        rows = np.flatnonzero(screen.good & ~void)
        counts = {"blank": table.blank, "comment": table.comments, "header": int(header), "void": int(void.sum())}
        self._others.update({kind: count for kind, count in counts.items() if count})
        self.trades += len(rows)
        return TradeBatch(
            instrument=self.instrument,
            trade_id=ids[rows],
            first_id=first[rows],
            count=(ids - first + 1)[rows].astype(np.int32),
            ts_event=time[rows],
            ts_recv=np.where(received > 0, received, time)[rows],
            price=price.values[rows],
            size=size.values[rows],
            side=np.where(sells[rows], -1, 1).astype(np.int8),
            price_scale=self._scales["price"],
            size_scale=self._scales["size"],
            covers=tuple((id, id) for id in ids[void].tolist()) or None,
            source="import",
        )

    def _span(self, table: Table, at: dict[str, int], ids: I64, screen: _Screen) -> tuple[I64, I64]:
        """First and last trade id each row stands for."""
        if not self._aggregates:
            return ids, ids
        (first, first_ok), (last, last_ok) = (table.integers(at[name]) for name in ("first", "last"))
        screen.keep("id", first_ok & last_ok & (first <= last) & (last - first < 2**31 - 1))
        return first, last

    def _decimal(self, name: str, table: Table, column: int) -> Numbers:
        """A decimal column at the scale it needs, never less than before."""
        scale = self._scales.get(name)
        if scale is None:
            scale = first_scale(table, column, 8)
        numbers = table.decimals(column, scale)
        if numbers.needed > scale:
            scale = numbers.needed
            numbers = table.decimals(column, scale)
        self._scales[name] = scale
        return numbers

    def _time(self, name: str, table: Table, column: int, good: Mask) -> tuple[I64, Mask]:
        """A time column as ns; its unit is that of the file's first rows."""
        values, ok = table.integers(column)
        if name not in self._units and (usable := np.flatnonzero(good & ok)).size:
            self._units[name] = unit_of(int(np.median(values[usable])))
        times, sane = to_ns(values, self._units.get(name, 1))
        return times, ok & sane


def _last_line(blocks: Blocks) -> bytes:
    """A last line without a newline, once; nothing when the file was cut short."""
    tail, blocks.tail = blocks.tail, b""
    if not tail or blocks.fault:
        return b""
    blocks.lines += 1
    return tail + b"\n"


def _no_execution(table: Table, at: dict[str, int]) -> Mask:
    """Where a futures row says that its id is no trade: an empty (or ``NA``) X."""
    if "execution" not in at:
        return np.zeros(table.rows, np.bool_)
    return table.equals(at["execution"], b"") | table.equals(at["execution"], b"NA")
