"""A random script of faults, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tapewick.errors import ConfigError
from tapewick.sim.faults import Fault

__all__ = ["KINDS", "faults"]

_Args = Callable[[random.Random], Mapping[str, Any]]

KINDS: Mapping[str, tuple[int, str, _Args]] = {
    "drop": (6, "drop_connections", lambda rng: {}),
    "silence": (2, "drop_connections", lambda rng: {"fin": False}),
    "expire": (2, "expire", lambda rng: {}),
    "shutdown": (3, "shut_down", lambda rng: {"close_after": rng.uniform(0.5, 5.0)}),
    "stall": (4, "stall", lambda rng: {"seconds": rng.uniform(0.2, 5.0)}),
    "skip_ids": (10, "skip_ids", lambda rng: {"count": rng.randint(1, 200)}),
    "void": (3, "void", lambda rng: {"count": rng.randint(1, 5)}),
    "late": (4, "late", lambda rng: {"count": rng.randint(1, 20), "seconds": rng.uniform(0.5, 20.0)}),
    "duplicate": (8, "duplicate", lambda rng: {"count": rng.randint(1, 200)}),
    "reorder": (8, "reorder", lambda rng: {"count": rng.randint(2, 50)}),
    "microseconds": (2, "microseconds", lambda rng: {"seconds": rng.uniform(0.5, 5.0)}),
    "malformed": (
        8,
        "malformed",
        lambda rng: {"kind": rng.choice(["json", "utf8", "nan", "overflow", "deep", "unknown", "foreign", "empty"])},
    ),
    "huge": (1, "malformed", lambda rng: {"kind": "huge"}),
    "skip_depth": (8, "skip_depth", lambda rng: {"count": rng.randint(1, 3)}),
    "cross_book": (4, "cross_book", lambda rng: {}),
    "stale_snapshots": (3, "stale_snapshots", lambda rng: {"count": rng.randint(1, 2)}),
    "refuse": (
        5,
        "refuse",
        lambda rng: {
            "status": rng.choice([403, 451, 500, 502, 503, 504]),
            "on": rng.choice(["rest", "ws", "rest ws"]),
            "seconds": rng.uniform(0.5, 3.0),
        },
    ),
    "limit": (3, "refuse", lambda rng: {"status": 429, "retry_after": 1, "on": "rest", "count": rng.randint(1, 3)}),
    "ban": (1, "refuse", lambda rng: {"status": 418, "retry_after": 3, "on": "rest", "count": 1}),
    "damage": (
        6,
        "damage",
        lambda rng: {"kind": rng.choice(["gzip", "cut", "html", "json", "empty"]), "count": rng.randint(1, 3)},
    ),
    "slow": (2, "slow", lambda rng: {"delay": rng.uniform(0.2, 3.0), "count": rng.randint(1, 3)}),
}
"""Weight, method and arguments of each kind of fault a script may hold."""


def faults(
    seed: int, n: int, *, span: float | None = None, kinds: Sequence[str] | None = None, after: float = 1.0
) -> list[Fault]:
    """``n`` faults within ``span`` venue seconds (default one per second) that begin ``after`` seconds.

    Raises ``ConfigError`` for an unknown kind.
    """
    chosen = tuple(KINDS if kinds is None else kinds)
    if unknown := set(chosen) - KINDS.keys():
        raise ConfigError(f"no such fault: {' '.join(sorted(unknown))}; use any of {' '.join(KINDS)}")
    rng = random.Random(seed)
    weights = [KINDS[kind][0] for kind in chosen]
    times = sorted(after + rng.uniform(0, n if span is None else span) for _ in range(n))
    picked = rng.choices(chosen, weights, k=n)
    return [Fault(at, KINDS[kind][1], KINDS[kind][2](rng)) for at, kind in zip(times, picked, strict=True)]
