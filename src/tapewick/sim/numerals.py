"""Numbers as the venue prints them: decimal text with at least eight digits after the point."""

from __future__ import annotations

from tapewick.decimals import format_mantissa, truncated_ratio

__all__ = ["amount", "padded", "product", "ratio"]


def padded(text: str) -> str:
    """Decimal text with eight digits after the point."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<8}"


def amount(mantissa: int, scale: int) -> str:
    """``mantissa / 10**scale``; more than eight digits where it needs them."""
    return padded(format_mantissa(mantissa, scale, pad=True))


def product(price: str, size: str) -> str:
    """The exact product of two decimal texts."""
    scale = len(price.partition(".")[2]) + len(size.partition(".")[2])
    exact = format_mantissa(int(price.replace(".", "")) * int(size.replace(".", "")), scale)
    return padded(exact)


def ratio(numerator: int, denominator: int, scale: int, digits: int = 8) -> str:
    """``numerator / denominator`` truncated to ``digits``; ``scale``: digits the quotient has already."""
    found = truncated_ratio(numerator, denominator, digits - scale) if denominator else 0
    return format_mantissa(found or 0, digits, pad=True)
