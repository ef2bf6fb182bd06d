"""Replays by command line, reads in process: what a data folder holds, as the JSON Lines users see."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tapewick.engine import encode_candles
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import STORED

__all__ = ["PROCESS_FIELDS", "candles", "replay", "rows", "stored_candles", "tapewick", "values"]

PROCESS_FIELDS = {"last_seq", "pos", "rev", "state", "complete"}


def tapewick(*args: str | Path, **env: str) -> bytes:
    """Run a command; its standard output. Fails with what it said on standard error."""
    command = [sys.executable, "-m", "tapewick", *map(str, args)]
    done = subprocess.run(command, capture_output=True, env=os.environ | env)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def replay(data: Path, *files: Path, **env: str) -> None:
    tapewick("replay", *files, "--speed", "max", "--data", data, **env)


def candles(data: Path, instrument: str, tf: str) -> bytes:
    return tapewick("candles", instrument, tf, "--data", data, "--limit", "0", "--json")


def stored_candles(data: Path, instrument: str) -> dict[str, bytes]:
    """JSON Lines of every stored timeframe."""

    async def read() -> dict[str, bytes]:
        async with DuckDBStore(data, read_only=True) as store:
            own = next(i for i in await store.instruments() if i.id == instrument)
            out = {}
            for tf in STORED:
                found, _ = await store.candles(instrument, tf.index)
                out[tf.name] = encode_candles(instrument, found, own.price_scale, own.size_scale, lines=True)
            return out

    return asyncio.run(read())


def rows(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def values(read: dict[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """Value fields only: what must not depend on how the trades arrived."""
    return {
        tf: [{k: v for k, v in row.items() if k not in PROCESS_FIELDS} for row in rows(text)]
        for tf, text in read.items()
    }
