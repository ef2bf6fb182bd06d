"""Exact text ⇄ mantissa, against Python's decimal module."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.decimals import INT64_MAX, fit_scale, format_mantissa, parse_mantissa, scale_of, split, truncated_ratio
from tapewick.errors import BadDecimal

MANTISSAS = st.integers(-INT64_MAX, INT64_MAX)
SCALES = st.integers(0, 18)


@given(MANTISSAS, SCALES, st.booleans())
def test_round_trip(mantissa: int, scale: int, pad: bool) -> None:
    text = format_mantissa(mantissa, scale, pad=pad)
    assert parse_mantissa(text, scale) == mantissa
    assert "e" not in text.lower()
    assert not text.startswith("-0") or mantissa
    with localcontext() as context:
        context.prec = 60
        assert Decimal(text) == Decimal(mantissa).scaleb(-scale)
    if not pad and "." in text:
        assert text[-1] != "0"


@pytest.mark.parametrize(
    ("text", "parts"),
    [("61685.99000000", (6168599, 2)), ("8e-8", (8, 8)), ("1E+1", (10, 0)), ("0", (0, 0)), ("0.000", (0, 0)),
     (".5", (5, 1)), ("5.", (5, 0)), ("-1.50", (-15, 1)), ("+2", (2, 0)), ("1500", (1500, 0)), ("1.5e3", (1500, 0)),
     ("0e9999", (0, 0))],
)  # fmt: skip
def test_split(text: str, parts: tuple[int, int]) -> None:
    assert split(text) == parts
    assert scale_of(text) == parts[1]


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "NaN", "inf", "Infinity", "1e400", "1e99999", "0x1F", "1_000", " 1", "1 ", "1,5", "١٢", "1\n",
     "1e", "e5", "9" * 39, "0." + "0" * 38 + "1"],
)  # fmt: skip
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(BadDecimal):
        split(text)


def test_nothing_is_rounded() -> None:
    with pytest.raises(BadDecimal, match="takes 8 at most"):
        parse_mantissa("0.123456789", 8)
    with pytest.raises(BadDecimal, match="64 bits"):
        parse_mantissa("92233720369", 9)


@given(st.integers(0, 2**120), st.integers(1, 2**110), st.integers(0, 12))
def test_truncated_ratio(numerator: int, denominator: int, digits: int) -> None:
    got = truncated_ratio(numerator, denominator, digits)
    assert got is not None
    assert got * denominator <= numerator * 10**digits < (got + 1) * denominator
    assert truncated_ratio(-numerator, denominator, digits) == -got


def test_ratio_of_nothing_is_unknown() -> None:
    assert truncated_ratio(5, 0, 4) is None


@given(SCALES, st.integers(1, INT64_MAX // 1000), st.integers(0, 18))
def test_fit_scale_keeps_head_room_and_never_rounds(wanted: int, largest: int, own: int) -> None:
    scale = fit_scale(wanted, largest, own)
    assert own <= scale <= max(wanted, own)
    assert scale == own or largest * 10 ** (scale - own) * 1000 <= INT64_MAX
