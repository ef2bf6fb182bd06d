"""Decimal text to integer mantissa and back, exactly.

A price of ``"61685.99"`` at scale 2 is the mantissa ``6168599``. Nothing is ever rounded:
text with more digits than the scale is refused, and the caller widens the scale.
"""

from __future__ import annotations

import re

from tapewick.errors import BadDecimal

__all__ = ["INT64_MAX", "fit_scale", "format_mantissa", "parse_mantissa", "scale_of", "split", "truncated_ratio"]

INT64_MAX = 2**63 - 1
_DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,4}))?", re.ASCII)
_MAX_DIGITS = 38  # what 128-bit arithmetic can hold


def split(text: str) -> tuple[int, int]:
    """``(mantissa, scale)`` of decimal text with trailing zeros removed; scale ≥ 0.

    Accepts a plain decimal or scientific notation (``8e-8``, ``1E+1``).
    Raises ``BadDecimal`` for anything else: empty, NaN, infinities, over 38 digits.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise BadDecimal(f"{text[:40]!r} is not a decimal number")
    fraction = match[3] or ""
    digits = (match[2] + fraction).lstrip("0")
    scale = len(fraction) - int(match[4] or 0)
    stripped = digits.rstrip("0")
    scale -= len(digits) - len(stripped)
    if not stripped:
        return 0, 0
    if scale < 0:
        stripped, scale = stripped + "0" * min(-scale, _MAX_DIGITS + 1), 0
    if len(stripped) > _MAX_DIGITS or scale > _MAX_DIGITS:
        raise BadDecimal(f"{text[:40]!r} has more digits than 128-bit arithmetic holds")
    mantissa = int(stripped)
    return (-mantissa if match[1] == "-" else mantissa), scale


def scale_of(text: str) -> int:
    """Digits after the point that ``text`` needs, trailing zeros not counted."""
    return split(text)[1]


def parse_mantissa(text: str, scale: int) -> int:
    """The int64 mantissa of ``text`` at ``scale``.

    Raises ``BadDecimal`` when ``text`` has more digits than ``scale`` or overflows int64.
    """
    mantissa, own = split(text)
    if own > scale:
        raise BadDecimal(f"{text[:40]!r} has {own} decimals, the instrument takes {scale} at most")
    factor: int = 10 ** (scale - own)
    mantissa *= factor
    if not -INT64_MAX <= mantissa <= INT64_MAX:
        raise BadDecimal(f"{text[:40]!r} does not fit 64 bits at scale {scale}")
    return mantissa


def format_mantissa(mantissa: int, scale: int, *, pad: bool = False) -> str:
    """Plain decimal text of ``mantissa / 10**scale``: no exponent, no ``-0``.

    Trailing zeros are dropped unless ``pad`` asks for all ``scale`` digits.
    """
    if scale <= 0:
        return str(mantissa * 10**-scale)
    sign = "-" if mantissa < 0 else ""
    digits = str(abs(mantissa)).rjust(scale + 1, "0")
    whole, fraction = digits[:-scale], digits[-scale:]
    if not pad:
        fraction = fraction.rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def fit_scale(wanted: int, largest: int, own_scale: int) -> int:
    """The scale to give an instrument whose largest value so far is ``largest / 10**own_scale``.

    ``wanted`` if that leaves a factor 1000 of head-room in int64, else the largest that does;
    never below ``own_scale``: a value is not rounded to fit.
    """
    scale = max(wanted, own_scale)
    while scale > own_scale and abs(largest) * 10 ** (scale - own_scale) > INT64_MAX // 1000:
        scale -= 1
    return scale


def truncated_ratio(numerator: int, denominator: int, digits: int) -> int | None:
    """``numerator / denominator`` as a mantissa with ``digits`` decimals, truncated toward zero.

    None when ``denominator`` is 0. Truncation can be repeated at fewer digits without
    double rounding, and it is what the one venue that publishes VWAP does.
    """
    if denominator == 0:
        return None
    scaled: int = abs(numerator) * 10**digits // abs(denominator)
    return scaled if (numerator < 0) == (denominator < 0) else -scaled
