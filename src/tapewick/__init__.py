"""Market data you can prove: one durable tape of unique trades per instrument, exact candles, live and resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapewick.client import Client
    from tapewick.clock import Clock, ManualClock, RealClock
    from tapewick.config import load
    from tapewick.errors import ApiError, ConfigError, ModelError, SourceError, StoreError, TapewickError
    from tapewick.model import CANDLE, CandleBatch, Gap, Head, Instrument, TapeState, TradeBatch
    from tapewick.notebook import connect
    from tapewick.protocols import Bus, Market, Source, Store
    from tapewick.settings import Settings

__version__ = "0.1.0"

_HOME = {
    "Client": "client",
    "Clock": "clock",
    "ManualClock": "clock",
    "RealClock": "clock",
    "Settings": "config",
    "load": "config",
    "ApiError": "errors",
    "ConfigError": "errors",
    "ModelError": "errors",
    "SourceError": "errors",
    "StoreError": "errors",
    "TapewickError": "errors",
    "CANDLE": "model",
    "CandleBatch": "model",
    "Gap": "model",
    "Head": "model",
    "Instrument": "model",
    "TapeState": "model",
    "TradeBatch": "model",
    "connect": "notebook",
    "Bus": "protocols",
    "Market": "protocols",
    "Source": "protocols",
    "Store": "protocols",
}

__all__ = [
    "CANDLE",
    "ApiError",
    "Bus",
    "CandleBatch",
    "Client",
    "Clock",
    "ConfigError",
    "Gap",
    "Head",
    "Instrument",
    "ManualClock",
    "Market",
    "ModelError",
    "RealClock",
    "Settings",
    "Source",
    "SourceError",
    "Store",
    "StoreError",
    "TapeState",
    "TapewickError",
    "TradeBatch",
    "__version__",
    "connect",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import the public name's module when it is first used, so that ``--version`` stays instant."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"tapewick.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tapewick' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
