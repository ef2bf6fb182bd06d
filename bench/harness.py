"""Interleaved rounds, medians, ratios, and where the results go.

Contenders run in turn, round after round, so that a machine whose speed drifts treats them
alike; only ratios of medians from one run are quoted. Every result file names the
machine, the versions and the commit, and keeps all rounds.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"

__all__ = ["Bench", "arguments", "interleave"]


def arguments(doc: str | None) -> argparse.Namespace:
    """``--tiny`` checks correctness only (CI); ``--rounds`` sets how often each contender runs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="one small round, nothing written: does it work?")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def interleave(
    contenders: dict[str, Callable[[], Any]], rounds: int, timer: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds each contender took, per round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            gc.collect()
            started = timer()
            run()
            took = timer() - started
            if number:
                seconds[name].append(took)
    return seconds


class Bench:
    """One benchmark's result: figures with all rounds, ratios against goals, a file and a summary line."""

    def __init__(self, name: str, work: str) -> None:
        self.name, self.work = name, work
        self.figures: dict[str, Any] = {}
        self.ratios: list[dict[str, Any]] = []

    def figure(self, name: str, unit: str, rounds: list[float]) -> float:
        """Record one contender's values per round; returns the median."""
        middle = median(rounds)
        self.figures[name] = {"unit": unit, "median": middle, "min": min(rounds), "max": max(rounds), "rounds": rounds}
        sys.stdout.write(f"{name:44} {middle:14,.1f} {unit}  [{min(rounds):,.1f} … {max(rounds):,.1f}]\n")
        return middle

    def ratio(self, what: str, value: float, goal: float, *, at_most: bool = False) -> None:
        """Compare a ratio (or a bounded figure) with its goal."""
        met = value <= goal if at_most else value >= goal
        self.ratios.append({"what": what, "value": value, "goal": goal, "at_most": at_most, "met": met})
        sign = "≤" if at_most else "≥"
        sys.stdout.write(f"{what:60} {value:10.2f}  goal {sign} {goal:g}  {'met' if met else 'MISSED'}\n")

    def write(self) -> None:
        """Keep the result under ``bench/results`` and its line in SUMMARY.md."""
        today = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
        path = RESULTS / f"{today}-{self.name}.json"
        path.write_text(
            json.dumps(
                {
                    "name": self.name,
                    "work": self.work,
                    "machine": {"cpu": _cpu(), "python": platform.python_version(), "system": platform.system()},
                    "versions": _versions(),
                    "commit": _commit(),
                    "figures": self.figures,
                    "ratios": self.ratios,
                },
                indent=1,
                ensure_ascii=False,
            )
            + "\n"
        )
        summary = RESULTS / "SUMMARY.md"
        lines = summary.read_text().splitlines() if summary.exists() else ["# Results", ""]
        lines = [line for line in lines if f"]({today}-{self.name}.json)" not in line]
        told = "; ".join(_line(r) for r in self.ratios)
        lines.append(f"- [{today} {self.name}]({today}-{self.name}.json): {told}")
        summary.write_text("\n".join(lines) + "\n")


def _line(r: dict[str, Any]) -> str:
    sign, missed = "≤" if r["at_most"] else "≥", "" if r["met"] else ", missed"
    return f"{r['what']} **{r['value']:.2f}** (goal {sign} {r['goal']:g}{missed})"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _versions() -> dict[str, str]:
    names = ("duckdb", "numpy", "msgspec", "uvicorn", "picows", "litestar", "cryptofeed", "nautilus_trader", "asyncpg")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()
