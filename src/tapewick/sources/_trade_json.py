"""Venue trades as JSON: Kraken's trade answers and Binance aggregate trades, numbers kept as text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np

from tapewick.decimals import INT64_MAX, fit_scale, split
from tapewick.errors import BadDecimal, BadPayload
from tapewick.model import TradeBatch
from tapewick.sources._files import Rejects, read_text
from tapewick.sources._stamps import EARLIEST, LATEST, unit_of

__all__ = ["JsonTrades", "aggregates", "kraken"]

_ROWS = 8192

Decimal: TypeAlias = tuple[int, int]
"""A mantissa and its scale."""


class _Row(NamedTuple):
    """One record and its place; ``time`` in ns, or for Binance in the file's unit."""

    place: str
    trade_id: int
    first_id: int
    time: int
    price: Decimal
    size: Decimal
    side: int


class _Kraken(msgspec.Struct):
    error: list[str] = []
    result: dict[str, msgspec.Raw] = {}


class _Aggregate(msgspec.Struct):
    p: str
    q: str
    f: int
    l: int  # noqa: E741 (the venue's name)
    T: int
    m: bool


class _Plain(msgspec.Struct):
    """An aggregate trade as the venue sends it, or wrapped in ``info`` by a client library."""

    info: _Aggregate | None = None
    p: str = ""
    q: str = ""
    f: int = -1
    l: int = -1  # noqa: E741
    T: int = 0
    m: bool | None = None


_KRAKEN = msgspec.json.Decoder(_Kraken)
_KRAKEN_ROW = msgspec.json.Decoder(tuple[str, str, msgspec.Raw, str, str, str, int])
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_AGGREGATE = msgspec.json.Decoder(_Plain)


def _bodies(path: Path) -> Iterator[tuple[int, bytes]]:
    """The JSON documents of a file with their line: one, or one per line. Raises ``BadPayload``."""
    text = read_text(path).strip()
    if not text:
        raise BadPayload(f"{path} is empty; expected JSON")
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        yield from ((n, line) for n, line in enumerate(text.split(b"\n"), 1) if line.strip())
    else:
        yield 1, text


def kraken(path: Path, symbol: str) -> Iterator[tuple[str, msgspec.Raw | bytes]]:
    """The rows of Kraken trade answers and their places. Raises ``BadPayload`` for another body or an error answer."""
    for line, text in _bodies(path):
        try:
            body = _KRAKEN.decode(text)
            lists = {pair: _RAWS.decode(rows) for pair, rows in body.result.items() if pair != "last"}
        except msgspec.DecodeError as error:
            raise BadPayload(f'{path}:{line}: {error}; expected {{"result":{{"PAIR":[[…]]}}}}') from error
        if body.error:
            raise BadPayload(f"{path}:{line}: the venue answered {', '.join(body.error)}; fetch the trades again")
        rows = next(iter(lists.values())) if len(lists) == 1 else lists.get(symbol)
        if rows is None:
            raise BadPayload(f"{path}:{line}: no trades of {symbol}; it holds {', '.join(lists) or 'nothing'}")
        yield from ((f"{path}:{line} row {n}", row) for n, row in enumerate(rows, 1))


def aggregates(path: Path, symbol: str) -> Iterator[tuple[str, msgspec.Raw | bytes]]:
    """The objects of aggregate-trade files and their places: arrays, or one object or array per line."""
    for line, text in _bodies(path):
        if not text.lstrip().startswith(b"["):
            yield f"{path}:{line}", text
            continue
        try:
            rows = _RAWS.decode(text)
        except msgspec.DecodeError as error:
            raise BadPayload(f"{path}:{line}: {error}; expected an array of {symbol} trades") from error
        yield from ((f"{path}:{line} row {n}", row) for n, row in enumerate(rows, 1))


def _kraken_row(place: str, raw: msgspec.Raw | bytes) -> _Row:
    price, volume, time, side, _, _, id = _KRAKEN_ROW.decode(raw)
    # The raw token: a float would lose the last digits of its ns.
    mantissa, scale = split(bytes(time).decode("ascii"))
    ns = mantissa * 10 ** (9 - scale) if scale <= 9 else mantissa // 10 ** (scale - 9)
    return _Row(place, id, id, ns, split(price), split(volume), {"b": 1, "s": -1}.get(side, 0))


def _aggregate_row(place: str, raw: msgspec.Raw | bytes) -> _Row:
    plain = _AGGREGATE.decode(raw)
    row = plain.info or plain
    if row.m is None:
        raise msgspec.ValidationError("no side")
    return _Row(place, row.l, row.f, row.T, split(row.p), split(row.q), -1 if row.m else 1)


class JsonTrades:
    """Turns JSON rows of one instrument into batches.

    ``format``: ``kraken-trades`` or ``binance-aggtrades-json``. Rows are counted in ``lines``, and each
    of them in ``trades`` or ``rejects``; the scales of prices and sizes are set by the first batch
    and only ever widen.
    """

    def __init__(self, instrument: str, format: str, rejects: Rejects) -> None:
        self.instrument = instrument
        self.lines = self.trades = self.bytes_read = 0
        self._rejects = rejects
        self._kraken = format == "kraken-trades"
        self._scales: tuple[int, int] | None = None

    def read(self, path: Path) -> Iterator[TradeBatch]:
        """Batches of one file. Raises ``BadPayload`` for a file of another format or a damaged one."""
        rows = (kraken if self._kraken else aggregates)(path, self.instrument.partition(":")[2])
        unit = 1 if self._kraken else 0
        while chunk := list(islice(rows, _ROWS)):
            self.lines += len(chunk)
            parsed = [row for place, raw in chunk if (row := self._parsed(place, raw)) is not None]
            unit = unit or (unit_of(parsed[0].time) if parsed else 0)
            sane = [row._replace(time=row.time * unit) for row in parsed]
            yield self._batch([row for row in sane if self._keep(row)])
        self.bytes_read += path.stat().st_size

    def _parsed(self, place: str, raw: msgspec.Raw | bytes) -> _Row | None:
        try:
            return (_kraken_row if self._kraken else _aggregate_row)(place, raw)
        except (msgspec.DecodeError, BadDecimal, UnicodeDecodeError) as error:
            self._rejects.add("number" if isinstance(error, BadDecimal) else "fields", place)
            return None

    def _keep(self, row: _Row) -> bool:
        """Whether a row can be a trade: a sane time, ids that fit."""
        if not EARLIEST <= row.time <= LATEST:
            self._rejects.add("time", row.place)
        elif not 0 <= row.first_id <= row.trade_id <= INT64_MAX or row.trade_id - row.first_id >= 2**31 - 1:
            self._rejects.add("id", row.place)
        else:
            return True
        return False

    def _batch(self, rows: list[_Row]) -> TradeBatch:
        if not rows:
            return TradeBatch.empty(self.instrument, source="import")
        wanted = self._scales or (8, 8)
        scales = _scale(wanted[0], [row.price for row in rows]), _scale(wanted[1], [row.size for row in rows])
        if self._scales is not None:  # an instrument's scales never shrink
            scales = max(scales[0], wanted[0]), max(scales[1], wanted[1])
        self._scales = scales
        kept, prices, sizes = [], [], []
        for row in rows:
            price, size = _at(row.price, scales[0]), _at(row.size, scales[1])
            if max(abs(price), abs(size)) > INT64_MAX:
                self._rejects.add("overflow", row.place)
                continue
            kept.append(row)
            prices.append(price)
            sizes.append(size)
        self.trades += len(kept)
        time = np.array([row.time for row in kept], np.int64)
        return TradeBatch(
            instrument=self.instrument,
            trade_id=np.array([row.trade_id for row in kept], np.int64),
            first_id=np.array([row.first_id for row in kept], np.int64),
            count=np.array([row.trade_id - row.first_id + 1 for row in kept], np.int32),
            ts_event=time,
            ts_recv=time,
            price=np.array(prices, np.int64),
            size=np.array(sizes, np.int64),
            side=np.array([row.side for row in kept], np.int8),
            price_scale=scales[0],
            size_scale=scales[1],
            source="import",
        )


def _at(number: Decimal, scale: int) -> int:
    return number[0] * 10 ** (scale - number[1]) if scale >= number[1] else INT64_MAX + 1


def _scale(wanted: int, numbers: list[Decimal]) -> int:
    """The scale for ``numbers``: ``wanted``, more where digits need it, less where size leaves no head-room."""
    own = max(scale for _, scale in numbers)
    largest = max(abs(mantissa) * 10 ** (own - scale) for mantissa, scale in numbers)
    return min(fit_scale(wanted, largest, own), 18)
