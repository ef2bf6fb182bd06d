"""Marks for UDF charts: what is not proven, what was revised, and where trades are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tapewick.model import Candles, Gap, State
from tapewick.timeframe import SECOND, Timeframe, bucket

__all__ = ["on_axis", "on_bars"]

_COLUMNS = ("id", "time", "color", "text", "label", "labelFontColor", "minSize")
MOST = 2000  # marks in one answer, the newest


def on_bars(rows: Candles | None) -> dict[str, list[Any]]:
    """One mark per closed candle that is incomplete or was revised, in columns; ``rows`` None: none."""
    marks = []
    for row in () if rows is None else rows[rows["state"] != State.OPEN]:
        if row["complete"] == 0:
            colour, text, label = "red", "trades of this bar are missing or not proven yet", "!"
        elif row["rev"] > 0:
            colour, text, label = "blue", f"revised {row['rev']} times after it closed", "R"
        else:
            continue
        at = int(row["open_time"]) // SECOND
        marks.append((f"{at}{label}", at, colour, text, label, "white", 12))
    marks = marks[-MOST:]
    return {name: [mark[i] for mark in marks] for i, name in enumerate(_COLUMNS)}


def on_axis(gaps: Sequence[Gap], tf: Timeframe, start: int, end: int) -> list[dict[str, Any]]:
    """One mark per gap that touches [``start``, ``end``) and is not closed, at the bar it begins in."""
    touching = [gap for gap in gaps if gap.state != "closed" and gap.left_ts < end and gap.right_ts >= start]
    return [
        {
            "id": f"gap{gap.left_id}",
            "color": "red",
            "label": "G",
            "time": bucket(tf, max(gap.left_ts, 0)) // SECOND,
            "tooltip": [f"trades {gap.left_id + 1} to {gap.right_id - 1} are missing", f"{gap.reason}, {gap.state}"],
        }
        for gap in touching[-MOST:]
    ]
