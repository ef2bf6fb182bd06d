"""The bridge to ccxt, in an environment that has it: what it yields is what the venue traded."""

from __future__ import annotations

import asyncio
import json
import os
from decimal import Decimal
from pathlib import Path

import pytest

from tapewick.errors import ConfigError
from tapewick.sim.venue import SimVenue
from tapewick.sources.ccxt import CcxtSource
from tests.conformance.environments import ROOT, python

SCRIPT = Path(__file__).parent / "clients" / "with_ccxt_source.py"


@pytest.mark.timeout(300)
async def test_trades_come_exact_from_an_unmodified_exchange_class() -> None:
    interpreter = await asyncio.to_thread(python, "tapewick-ccxt")
    async with SimVenue(["BTCUSDT"], rate=50.0) as venue:
        child = await asyncio.create_subprocess_exec(
            str(interpreter),
            str(SCRIPT),
            venue.rest_url,
            "BTC/USDT",
            "40",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TAPEWICK_ENGINE": "reference"},
        )
        try:
            async with asyncio.timeout(120):
                out, said = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
        assert child.returncode == 0, said.decode()[-4000:]
        first, *batches = [json.loads(line) for line in out.splitlines()]
        assert first == {"id": "binance:BTC/USDT", "kind": "unique", "scales": [2, 5]}
        truth = {trade.id: trade for trade in venue.truth("BTCUSDT")}
        rows = [(batch["scales"], row) for batch in batches for row in batch["rows"]]
        assert len(rows) >= 40 and len({row[0] for _, row in rows}) == len(rows)
        for (price_scale, size_scale), (id, ts, price, size, side) in rows:
            trade = truth[id]
            assert (ts, side) == (trade.time * 1_000_000, -1 if trade.buyer_is_maker else 1)
            assert Decimal(price).scaleb(-price_scale) == Decimal(trade.price)
            assert Decimal(size).scaleb(-size_scale) == Decimal(trade.size)


def test_without_ccxt_the_error_names_the_extra() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'tapewick\[ccxt\]'"):
        CcxtSource(["BTC/USD"], venue="kraken")
