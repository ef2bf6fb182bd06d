"""What recording costs: two servers side by side on the same live feed, one of them writes every frame.

Work: a simulated venue (seed 1; 3 symbols, 300 trades/s each, and what else the source subscribes to) streams to two
``tapewick serve`` processes, each with its own data folder. CPU time of each over all its threads in
the same windows of 10 s; the result is the median over the windows of recording ÷ plain − 1. The recording is
read back at the end: its trades are contiguous. No peer; the bound is 5 %.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import measured
from harness import Bench, arguments
from tapewick.model import TradeBatch
from tapewick.sources.replay import ReplaySource

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
WARM_UP = 10.0


@contextmanager
def child(*words: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of ours and its first line of output; ended with the context."""
    command = [measured.PYTHON, "-m", *words]
    process = subprocess.Popen(command, env=measured.child_environment(**env), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process over all its threads, to the ns where the kernel tells it."""
    spent = (Path(task, "schedstat").read_text().split()[0] for task in _tasks(pid))
    return sum(map(int, spent)) / 1e9


def _tasks(pid: int) -> list[str]:
    return [entry.path for entry in os.scandir(f"/proc/{pid}/task")]


def trades_of(line: str) -> int:
    """Trades the server at the address in its first line has committed."""
    url = next(word for word in line.split() if word.startswith("http"))
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    return int(float(next(line for line in text.splitlines() if line.startswith("tapewick_trades_total")).split()[1]))


async def recorded(files: list[Path]) -> dict[str, int]:
    """Trades per instrument in a recording. Raises ``AssertionError`` for a hole."""
    source = ReplaySource(files, speed=None)
    counts: dict[str, int] = defaultdict(int)
    newest: dict[str, int] = {}
    async for event in source.events():
        if isinstance(event, TradeBatch) and len(event):
            assert newest.get(event.instrument, int(event.trade_id[0]) - 1) == int(event.trade_id[0]) - 1
            newest[event.instrument] = int(event.trade_id[-1])
            counts[event.instrument] += len(event)
    return counts


def main() -> None:
    options = arguments(__doc__)
    rate, window, rounds, warm_up = (20, 0.5, 1, 1.0) if options.tiny else (300, 10.0, options.rounds, WARM_UP)
    bench = Bench("record", (__doc__ or "").partition("\n\n")[2].strip())
    costs: dict[str, list[float]] = {"plain": [], "recording": []}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        venue = ("tapewick.sim.venue", "--rate", str(rate), "--symbols", *SYMBOLS)
        rest, ws = stack.enter_context(child(*venue))[1].split()
        servers = {}
        for name in costs:
            words = ["tapewick", "serve", "--port", "0", "--data", f"{folder}/{name}", "--no-config"]
            words += ["--source", *(f"binance:{symbol}" for symbol in SYMBOLS)]
            words += ["--record", f"{folder}/frames"] if name == "recording" else []
            servers[name] = stack.enter_context(
                child(*words, TAPEWICK_BINANCE__REST_URL=rest, TAPEWICK_BINANCE__WS_URL=ws)
            )
        while not all(trades_of(line) for _, line in servers.values()):
            time.sleep(0.2)
        time.sleep(warm_up)
        for _ in range(rounds):
            before = {name: cpu_seconds(process.pid) for name, (process, _) in servers.items()}
            time.sleep(window)
            for name, (process, _) in servers.items():
                costs[name].append((cpu_seconds(process.pid) - before[name]) / window * 100)
        stack.pop_all().close()
        files = sorted(Path(folder, "frames").glob("*.zst"))
        counts, size = asyncio.run(recorded(files)), sum(path.stat().st_size for path in files)
        assert len(counts) == len(SYMBOLS), counts
    if options.tiny:
        return
    for name, rates in costs.items():
        bench.figure(f"{name}: CPU", "% of a core", rates)
    added = [after / plain - 1 for plain, after in zip(costs["plain"], costs["recording"], strict=True)]
    bench.figure("recorded", "bytes per trade", [size / sum(counts.values())])
    bench.ratio("CPU that recording adds, %", median(added) * 100, 5.0, at_most=True)
    sys.stdout.write(json.dumps({"trades recorded": dict(counts)}) + "\n")
    bench.write()


if __name__ == "__main__":
    main()
