"""The engine's arithmetic: the native part where it was built, else the readable reference.

``ENGINE`` says which one runs and ``ENGINE_REASON`` why it is the reference. The environment
variable ``TAPEWICK_ENGINE`` (``native`` or ``reference``) forces one.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tapewick.engine._reference import REJECTS, Ingested, Taken
from tapewick.errors import ConfigError

__all__ = [
    "ENGINE",
    "ENGINE_REASON",
    "REJECTS",
    "Decoded",
    "Decoder",
    "DepthGroup",
    "Group",
    "Ingested",
    "Levels",
    "QuoteGroup",
    "Rest",
    "Taken",
    "TapeCore",
    "encode_candles",
    "encode_trades",
    "read_snapshot",
]


def _choose(forced: str, built: bool) -> tuple[str, str]:
    """Name of the engine to run and, for the reference, why."""
    if forced not in ("", "native", "reference"):
        raise ConfigError(f"TAPEWICK_ENGINE={forced!r} is unknown; use native, reference or leave it unset")
    if forced == "reference":
        return "reference", "forced by TAPEWICK_ENGINE"
    if built:
        return "native", ""
    if forced == "native":
        raise ConfigError(
            "TAPEWICK_ENGINE=native, but no native engine was built; install a C++20 compiler and reinstall tapewick"
        )
    return "reference", "no compiler at install time"


ENGINE, ENGINE_REASON = _choose(os.environ.get("TAPEWICK_ENGINE", ""), find_spec("tapewick.engine._native") is not None)

if TYPE_CHECKING or ENGINE == "reference":
    from tapewick.engine._book_reference import Levels
    from tapewick.engine._codec import Decoded, Decoder, Group, read_snapshot
    from tapewick.engine._codec_rows import encode_candles, encode_trades
    from tapewick.engine._depth import DepthGroup, QuoteGroup, Rest
    from tapewick.engine._reference import TapeCore
else:
    from tapewick.engine._native import (
        Decoded,
        Decoder,
        DepthGroup,
        Group,
        Levels,
        QuoteGroup,
        Rest,
        TapeCore,
        encode_candles,
        encode_trades,
        read_snapshot,
    )
