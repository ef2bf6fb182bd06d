"""An independent fold of recorded trades: plain Decimal arithmetic, no engine, no tapewick import."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

__all__ = ["Trade", "fold_minutes", "recorded_trades", "text"]


@dataclass(frozen=True)
class Trade:
    """One recorded trade frame; ``time`` in ms."""

    id: int
    time: int
    price: Decimal
    size: Decimal
    buy: bool


def recorded_trades(paths: Iterable[Path]) -> list[Trade]:
    """Trade frames of recorder files, unique by id, ordered by (time, id)."""
    found: dict[int, Trade] = {}
    for path in paths:
        with gzip.open(path, "rt") as lines:
            for line in lines:
                frame = json.loads(line.partition(" ")[2])
                if frame.get("stream", "").endswith("@trade"):
                    d = frame["data"]
                    found[d["t"]] = Trade(d["t"], d["T"], Decimal(d["p"]), Decimal(d["q"]), not d["m"])
    return sorted(found.values(), key=lambda t: (t.time, t.id))


def text(value: Decimal) -> str:
    """Plain decimal text without exponent or trailing zeros."""
    plain = f"{value:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def fold_minutes(trades: Iterable[Trade]) -> list[dict[str, Any]]:
    """1m candles (value fields as JSON prints them) of trades ordered by (time, id)."""
    minutes: dict[int, list[Trade]] = {}
    for trade in trades:
        minutes.setdefault(trade.time // 60_000 * 60_000, []).append(trade)
    return [_candle(open_time, inside) for open_time, inside in sorted(minutes.items())]


def _candle(open_time: int, inside: list[Trade]) -> dict[str, Any]:
    volume = sum((t.size for t in inside), Decimal(0))
    quote = sum((t.price * t.size for t in inside), Decimal(0))
    return {
        "open_time": open_time,
        "open": text(inside[0].price),
        "high": text(max(t.price for t in inside)),
        "low": text(min(t.price for t in inside)),
        "close": text(inside[-1].price),
        "volume": text(volume),
        "quote_volume": text(quote),
        "taker_buy_volume": text(sum((t.size for t in inside if t.buy), Decimal(0))),
        "taker_buy_quote_volume": text(sum((t.price * t.size for t in inside if t.buy), Decimal(0))),
        "trades": len(inside),
        "first_id": inside[0].id,
        "last_id": inside[-1].id,
    }
