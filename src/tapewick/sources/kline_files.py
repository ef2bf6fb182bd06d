"""Import of the venue's own candles: kline rows as JSON or archive CSV, as rows of ``origin=import``.

Rows are keyed on their open time only: recorded close times are irregular around outages. A
bar without trades is kept as one without prices, whatever price the file carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np

from tapewick.decimals import INT64_MAX, split
from tapewick.engine.candles import SUMS, put_sums
from tapewick.errors import BadDecimal, BadPayload
from tapewick.model import CANDLE, I64, Candles, Origin, State
from tapewick.sources._files import Rejects, read_text
from tapewick.sources._stamps import EARLIEST, LATEST, unit_of
from tapewick.timeframe import Timeframe, bucket, bucket_end, parse

__all__ = ["FORMAT", "read_klines"]

FORMAT = "binance-klines"
_EXPECTED = (
    "expected rows of open_time, open, high, low, close, volume, close_time, quote_volume, trades, "
    "taker_buy_volume, taker_buy_quote_volume[, ignored] as JSON arrays or CSV"
)
_CHUNK = 8192
_TENS: list[int] = [10**power for power in range(80)]
_Fields: TypeAlias = list[str | int]
_LINE = msgspec.json.Decoder(list[str | int | _Fields])
_DOCUMENT = msgspec.json.Decoder(list[_Fields])


class _Bar(NamedTuple):
    """One row; times in ns, the sums as integers at their scales."""

    open_time: int
    close_time: int
    open: int
    high: int
    low: int
    close: int
    trades: int
    sums: tuple[int, int, int, int]


def read_klines(
    files: Sequence[Path],
    tf: Timeframe | str,
    *,
    price_scale: int = 8,
    size_scale: int = 8,
    rejects: Rejects | None = None,
    check: Callable[[Path, I64], None] = lambda path, times: None,
) -> Candles:
    """The import rows of kline files of timeframe ``tf``, ascending; of rows with one key the last counts.

    Mantissas are at ``price_scale`` and ``size_scale``, quote volumes at their sum. Rows that
    cannot be a candle of ``tf`` are counted in ``rejects`` where it is given, else raise
    ``BadPayload`` with file and line. So does a file without any such row, a damaged one, and one
    whose bars are not of length ``tf``. ``check`` is given each file's open times (ns), and may raise.
    """
    frame = parse(tf) if isinstance(tf, str) else tf
    parts = []
    for path in files:
        rows = _rows(path)
        found = regular = 0
        while chunk := list(islice(rows, _CHUNK)):
            bars = [bar for row in chunk if (bar := _taken(*row, frame, (price_scale, size_scale), rejects))]
            found += len(bars)
            # Close times come in ms or µs, the last tick before the next bar.
            regular += sum(0 < bucket_end(frame, bar.open_time) - bar.close_time <= 1_000_000 for bar in bars)
            parts.append(_as_rows(bars, frame))
            check(path, parts[-1]["open_time"])
        if regular * 2 < found:  # outages make a few close times irregular, never most of them
            raise BadPayload(f"{path}: its close times are not those of {frame.name} bars; name their timeframe: --tf")
        if not found:
            raise BadPayload(f"{path}: no {frame.name} kline in it; {_EXPECTED}")
    return _newest(parts)


def _rows(path: Path) -> Iterator[tuple[str, _Fields | None]]:
    """The fields of every row and its place, None for a line that is no row; header and comments are left out."""
    text = read_text(path)
    lines = text.split(b"\n")
    head = next((line.strip() for line in lines if line.strip()), b"")
    if head.startswith(b"[") and _array(head) is None:  # one array over many lines
        try:
            yield from ((f"{path} row {n}", row) for n, row in enumerate(_DOCUMENT.decode(text), 1))
        except msgspec.DecodeError as error:
            raise BadPayload(f"{path}: {error}; {_EXPECTED}") from error
        return
    for n, line in enumerate(lines, 1):
        place, line = f"{path}:{n}", line.strip()
        if line.startswith(b"["):
            yield from ((place, row) for row in _array(line) or [None])
        elif line and not line.startswith(b"#") and not line.lower().startswith((b"open_time", b"open time")):
            yield place, list(line.decode("utf-8", "replace").split(","))


def _array(line: bytes) -> list[_Fields | None] | None:
    """The rows in a line of JSON: one array, or an array of them; None if it is neither."""
    try:
        decoded = _LINE.decode(line)
    except msgspec.DecodeError:
        return None
    if decoded and isinstance(decoded[0], list):
        return [row if isinstance(row, list) else None for row in decoded]
    return [[field for field in decoded if not isinstance(field, list)]]


def _taken(
    place: str, fields: _Fields | None, tf: Timeframe, scales: tuple[int, int], rejects: Rejects | None
) -> _Bar | None:
    """The bar a row holds; None, and counted, if it holds none and ``rejects`` is there."""
    try:
        bar = _bar(fields or [], scales)
        _check(bar, tf)
    except (BadDecimal, ValueError) as error:
        if rejects is None:
            raise BadPayload(f"{place}: {error}; {_EXPECTED}") from error
        rejects.add("bad_candle", place)
        return None
    return bar


def _bar(fields: _Fields, scales: tuple[int, int]) -> _Bar:
    if len(fields) not in (11, 12):
        raise ValueError(f"{len(fields)} fields instead of 12")
    price_scale, size_scale = scales
    opened = int(fields[0])
    unit = unit_of(opened)
    opening, high, low, close = (_mantissa(field, price_scale) for field in fields[1:5])
    sums = (
        _mantissa(fields[5], size_scale),
        _mantissa(fields[7], price_scale + size_scale),
        _mantissa(fields[9], size_scale),
        _mantissa(fields[10], price_scale + size_scale),
    )
    return _Bar(opened * unit, int(fields[6]) * unit, opening, high, low, close, int(fields[8]), sums)


def _mantissa(field: str | int, scale: int) -> int:
    """Exact, of any size. Raises ``BadDecimal``."""
    text = field if isinstance(field, str) else str(field)
    whole, _, part = text.partition(".")
    missing = scale - len(part)
    if missing >= 0 and (digits := whole + part).isdecimal():
        return int(digits) * _TENS[missing]
    mantissa, own = split(text)
    if own > scale:
        raise BadDecimal(f"{text[:40]!r} has {own} decimals, the instrument takes {scale} at most")
    return mantissa * _TENS[scale - own]


def _check(bar: _Bar, tf: Timeframe) -> None:
    """Raises ``ValueError`` saying why a bar cannot be a candle of ``tf``."""
    if not EARLIEST <= bar.open_time < LATEST or bucket(tf, bar.open_time) != bar.open_time:
        raise ValueError(f"open time {bar.open_time} ns is not the start of a {tf.name} candle")
    if bar.trades < 0 or min(bar.sums) < 0 or bar.sums[2] > bar.sums[0] or bar.sums[3] > bar.sums[1]:
        raise ValueError("negative or contradictory volumes")
    if max(bar.sums) >= 2**127:
        raise ValueError("a volume that does not fit 128 bits")
    if bar.trades and not 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high <= INT64_MAX:
        raise ValueError("prices that contradict each other")


def _as_rows(bars: list[_Bar], tf: Timeframe) -> Candles:
    """Bars as import rows: no ids, no proof, closed; without prices where they have no trades."""
    rows = np.zeros(len(bars), CANDLE)
    if not bars:
        return rows
    rows["open_time"] = [bar.open_time for bar in bars]
    rows["trades"] = [bar.trades for bar in bars]
    for name in ("open", "high", "low", "close"):
        rows[name] = [getattr(bar, name) if bar.trades else 0 for bar in bars]
    for at, name in enumerate(SUMS):
        put_sums(rows, name, [bar.sums[at] for bar in bars])
    rows["tf"], rows["origin"], rows["state"], rows["complete"] = tf.index, Origin.IMPORT, State.CLOSED, -1
    rows["first_id"], rows["last_id"], rows["first_key"] = -1, -1, -1
    rows["first_ts"] = rows["last_ts"] = rows["open_time"]
    return rows


def _newest(parts: list[Candles]) -> Candles:
    """All rows ascending by open time; the last of those with the same."""
    rows = np.concatenate([np.empty(0, CANDLE), *parts])
    rows = rows[np.argsort(rows["open_time"], kind="stable")]
    return rows[np.append(rows["open_time"][1:] != rows["open_time"][:-1], True)] if len(rows) else rows
