"""Units of recorded times: venues write seconds, milli- or microseconds, and change their mind per file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tapewick.model import I64

__all__ = ["EARLIEST", "LATEST", "to_ns", "unit_of"]

EARLIEST = 1_230_768_000_000_000_000  # 2009-01-01
LATEST = 4_102_444_800_000_000_000  # 2100-01-01


def unit_of(time: int) -> int:
    """How many ns one unit of ``time`` is, judged by its magnitude: s, ms, µs or ns."""
    for bound, unit in ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3)):
        if time < bound:
            return unit
    return 1


def to_ns(times: I64, unit: int) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Times as ns, and which of them lie between 2009 and 2100."""
    sane = (times >= EARLIEST // unit) & (times <= LATEST // unit)
    return np.where(sane, times, 0) * unit, sane
