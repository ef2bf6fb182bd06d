"""What single values of an exchange frame are worth: integers, times, decimals, and why they are refused."""

from __future__ import annotations

from typing import Any

from tapewick.decimals import split
from tapewick.errors import BadDecimal

__all__ = [
    "MAX_DEPTH",
    "MAX_FRAME",
    "MAX_SYMBOL",
    "MAX_UNKNOWN",
    "Number",
    "Other",
    "Reject",
    "decimal",
    "int64",
    "is_integer",
    "plain_decimal",
    "record_ids",
    "time_ns",
]

MAX_FRAME = 1 << 20
MAX_SYMBOL = 64  # bytes
MAX_DEPTH = 64
MAX_UNKNOWN = 32  # characters of an unknown type's name that are kept

_EARLIEST, _LATEST = 1_230_768_000_000, 4_102_444_800_000  # ms of 2009-01-01 and 2100-01-01


class Other(str):
    """The type of a frame that is no trade."""

    __slots__ = ()


class Reject(str):
    """Why a frame was refused."""

    __slots__ = ()


class Number(str):
    """A JSON number as its raw text."""

    __slots__ = ()


def time_ns(value: int) -> int:
    """A time in ms, µs or ns, told by magnitude, as ns; 0 outside 2009-01-01 … 2100-01-01."""
    if value < _EARLIEST:
        return 0
    if value < _LATEST:
        return value * 1_000_000
    if _EARLIEST <= value // 1_000 < _LATEST:
        return value * 1_000
    return value if _EARLIEST <= value // 1_000_000 < _LATEST else 0


def is_integer(value: Any) -> bool:
    """Whether a value of the walk is a JSON number without fraction or exponent."""
    return type(value) is Number and not any(mark in value for mark in ".eE")


def int64(digits: str) -> int | None:
    """The value of a JSON integer, None beyond 64 bits."""
    if len(digits) > 20:  # JSON has no leading zeros
        return None
    value = int(digits)
    return value if -(2**63) <= value < 2**63 else None


def record_ids(first: int, last: int) -> bool:
    """Whether a record's lowest and highest id fit 64 bits and their count 32."""
    return -(2**63) <= first < 2**63 and -(2**63) <= last < 2**63 and -(2**31) <= last - first + 1 < 2**31


def decimal(text: str) -> tuple[int, int]:
    """Mantissa and scale of decimal text. Raises ``BadDecimal``."""
    if text.endswith("\n"):
        raise BadDecimal(f"{text[:40]!r} is not a decimal number")
    return split(text)


def plain_decimal(text: str) -> tuple[int, int]:
    """As ``decimal``, with a short cut for the venue's usual text."""
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    digits = whole + fraction
    if whole.isdigit() and digits.isdigit() and len(digits) <= 18:
        return int(digits), len(fraction)
    return decimal(text)
