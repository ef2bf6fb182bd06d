"""CSV columns without a Python object per field: digits go straight from the block's bytes to int64.

Only what the vector path cannot read exactly (exponents, signs, very long numbers) is
parsed field by field. Nothing passes through a float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tapewick.decimals import INT64_MAX, fit_scale, split
from tapewick.errors import BadDecimal
from tapewick.model import I64

__all__ = ["Mask", "Numbers", "Table", "first_scale"]

Mask = npt.NDArray[np.bool_]
_MOST_DIGITS = 18  # always fit int64


@dataclass(slots=True)
class Numbers:
    """A column at one scale. ``ok`` marks the rows that fit; ``needed`` is the scale under which more
    would, and ``too_large`` marks decimals that exceed int64."""

    values: I64
    ok: Mask
    needed: int
    too_large: Mask


class Table:
    """A block of CSV lines as columns of ``width`` fields; ``rows`` counts those that have just so many.

    ``line`` (n,) is the 0-based line of each row in the block, ``odd`` the lines with
    another number of fields, ``comments`` and ``blank`` count lines that hold no row.
    """

    def __init__(self, block: bytes, width: int) -> None:
        self._bytes = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(self._bytes == ord("\n"))
        starts = np.concatenate(([0], ends[:-1] + 1))
        ends = ends - ((ends > starts) & (self._bytes[ends - 1] == ord("\r")))
        blank = ends == starts
        comment = ~blank & (self._bytes[starts] == ord("#"))
        commas = np.flatnonzero(self._bytes == ord(","))
        before = np.searchsorted(commas, starts)
        fields = np.searchsorted(commas, ends) - before + 1
        good = ~blank & ~comment & (fields == width)
        self.line = np.flatnonzero(good)
        self.odd = np.flatnonzero(~blank & ~comment & ~good)
        self.blank, self.comments = int(blank.sum()), int(comment.sum())
        self._starts, self._ends, self._before = starts[good], ends[good], before[good]
        self._commas, self._width = commas, width
        self._dots = np.flatnonzero(self._bytes == ord("."))

    @property
    def rows(self) -> int:
        return len(self.line)

    def _span(self, column: int) -> tuple[I64, I64]:
        """Where a column's fields start and end."""
        start = self._starts if column == 0 else self._commas[self._before + column - 1] + 1
        end = self._ends if column == self._width - 1 else self._commas[self._before + column]
        return start, end

    def text(self, column: int, row: int) -> str:
        """One field."""
        start, end = self._span(column)
        return self._bytes[start[row] : end[row]].tobytes().decode("ascii", "replace")

    def first_bytes(self, column: int) -> npt.NDArray[np.uint8]:
        """The first byte of each field of a column; 0 where it is empty."""
        start, end = self._span(column)
        return np.where(end > start, self._bytes[start], np.uint8(0))

    def equals(self, column: int, literal: bytes) -> Mask:
        """Where a column's field is ``literal``."""
        start, end = self._span(column)
        same: Mask = end - start == len(literal)
        for i, byte in enumerate(literal):
            same &= self._bytes[np.minimum(start + i, len(self._bytes) - 1)] == byte
        return same

    def integers(self, column: int) -> tuple[I64, Mask]:
        """A column of plain digits, and where it is that."""
        start, end = self._span(column)
        values, ok = self._digits(start, end)
        return values, ok & (end > start) & (values >= 0)

    def _digits(self, start: I64, end: I64) -> tuple[I64, Mask]:
        """Digits between ``start`` and ``end`` as numbers (none: 0), and where all are digits, at most 19."""
        length = end - start
        ok = length <= 19
        values = np.zeros(len(start), np.int64)
        shortest = int(length.min(initial=19))
        for place in range(int(length.max(initial=0, where=ok)), 0, -1):
            digit = self._bytes[np.maximum(end - place, 0)] - np.uint8(ord("0"))
            if place > shortest:  # some fields begin further right
                digit[length < place] = 0
            ok &= digit <= 9
            values *= 10
            values += digit
        return values, ok

    def decimals(self, column: int, scale: int) -> Numbers:
        """A column of decimal text at ``scale``, exactly."""
        start, end = self._span(column)
        dot = np.minimum(np.searchsorted(self._dots, start), max(len(self._dots) - 1, 0))
        point = self._dots[dot] if len(self._dots) else np.full(len(start), -1)
        dotted = (point >= start) & (point < end)
        point = np.where(dotted, point, end)
        fraction = np.where(dotted, end - point - 1, 0)
        whole, ok = self._digits(start, point)
        part, part_ok = self._digits(end - fraction, end)
        ok &= part_ok & (point > start) & (point - start + scale <= _MOST_DIGITS) & (fraction <= scale)
        values = np.where(ok, whole, 0) * 10**scale
        values += np.where(ok, part, 0) * 10 ** np.where(ok, scale - fraction, 0)
        numbers = Numbers(values, ok, scale, np.zeros(len(start), np.bool_))
        for row in np.flatnonzero(~ok).tolist():
            self._slowly(numbers, column, row, scale)
        return numbers

    def _slowly(self, numbers: Numbers, column: int, row: int, scale: int) -> None:
        try:
            mantissa, own = split(self.text(column, row))
        except BadDecimal:
            return
        if own > scale:
            if own <= _MOST_DIGITS:
                numbers.needed = max(numbers.needed, own)
            return
        mantissa *= 10 ** (scale - own)
        if abs(mantissa) > INT64_MAX:
            numbers.too_large[row] = True
            return
        numbers.values[row], numbers.ok[row] = mantissa, True


def first_scale(table: Table, column: int, wanted: int) -> int:
    """The scale to begin a column with: ``wanted``, or less where its numbers leave no head-room."""
    numbers = table.decimals(column, wanted)
    if not numbers.too_large.any() and int(numbers.values.max(initial=0)) <= INT64_MAX // 1000:
        return max(wanted, numbers.needed)
    largest, own = 0, 0
    for row in range(table.rows):
        try:
            mantissa, scale = split(table.text(column, row))
        except BadDecimal:
            continue
        common = max(scale, own)
        largest = max(largest * 10 ** (common - own), abs(mantissa) * 10 ** (common - scale))
        own = common
    return fit_scale(wanted, largest, own)
