"""Invented recordings: recorder lines of a market that never was, for tests that need volume."""

from __future__ import annotations

import random
from pathlib import Path

__all__ = ["write_recording"]

START = 1_700_000_000_000  # ms


def write_recording(path: Path, trades: int, *, symbol: str = "BTCUSDT", seed: int = 1, first_id: int = 1000) -> Path:
    """``trades`` spot trade frames with contiguous ids and jittered times, as ``tapewick record`` writes them."""
    rng = random.Random(seed)
    t, price, lines = START, 6_000_000, []
    for id in range(first_id, first_id + trades):
        t += rng.choice((0, 0, 1, 5, 40, 900))
        price += rng.randint(-50, 50)
        size = rng.randint(1, 300_000)
        data = (
            f'{{"e":"trade","E":{t + 1},"s":"{symbol}","t":{id},"p":"{price // 100}.{price % 100:02d}000000",'
            f'"q":"{size // 100_000}.{size % 100_000:05d}000","T":{t},"m":{rng.choice(("true", "false"))},"M":true}}'
        )
        lines.append(f'{(t + 3) * 1_000_000} {{"stream":"{symbol.lower()}@trade","data":{data}}}\n')
    path.write_text("".join(lines))
    return path
