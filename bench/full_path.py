"""The full path: recorded file, decode, tape, 17 stored timeframes, durable DuckDB; against cryptofeed's parse alone.

Work: recorder lines ``<receive ns> <frame>`` with the trade frames of decode.py (172 bytes on
average, seed 1, T advancing 0 to 5 ms), 400,000 trades of 1 symbol or of 100, plain text.
Ours is the whole command ``tapewick replay FILE --speed max`` into an empty folder in a process
of its own, from interpreter start to exit: its CPU time counts all threads, its wall time
everything. Each file also comes 8 times as long, which shows the rate without the start and
whether memory depends on the length.
cryptofeed parses the first 100,000 of the same trades as aggTrade frames in memory: no file, no
tape, no candles, no store (callback and symbol map stubbed, as in decode.py). CPU time.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measured
from harness import Bench, arguments

COUNT = 400_000
LONG = 8
PARSED = 100_000


def trades(count: int, symbols: int) -> Iterator[tuple[int, str, str, str]]:
    """Receive time (ns), stream prefix, symbol part and the values both forms of a frame share."""
    rng = random.Random(1)
    ts = 1_700_000_000_000
    for id in range(3_000_000_000, 3_000_000_000 + count):
        ts += rng.randint(0, 5)
        symbol = f"SYM{rng.randrange(symbols)}USDT" if symbols > 1 else "BTCUSDT"
        maker = "true" if rng.random() < 0.5 else "false"
        price, size = rng.uniform(1, 70_000), rng.uniform(0.001, 10)
        values = f'"p":"{price:.8f}","q":"{size:.8f}","T":{ts},"m":{maker},"M":true}}}}'
        yield ts * 1_000_000 + 1_500_000, symbol, str(id), values


def write_recording(path: Path, count: int, symbols: int) -> None:
    """The trades as recorder lines. Ids are contiguous per symbol, as at the venue."""
    ids: dict[str, int] = {}
    with path.open("w") as file:
        for recv, symbol, _, values in trades(count, symbols):
            id = ids[symbol] = ids.get(symbol, 3_000_000_000) + 1
            body = f'"e":"trade","E":{recv // 1_000_000},"s":"{symbol}","t":{id},{values}'
            file.write(f'{recv} {{"stream":"{symbol.lower()}@trade","data":{{{body}\n')


def aggregate_frames(count: int, symbols: int) -> list[str]:
    """The same trades as cryptofeed takes them."""
    return [
        f'{{"stream":"{symbol.lower()}@aggTrade","data":{{"e":"aggTrade","E":{recv // 1_000_000},"s":"{symbol}",'
        f'"a":{id},"f":{id},"l":{id},{values}'
        for recv, symbol, id, values in trades(count, symbols)
    ]


def replay(path: Path, count: int) -> measured.Cost:
    """One replay into an empty folder; what was stored is checked by number."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["replay", str(path), "--venue", "binance", "--speed", "max", "--data", folder]
        cost = measured.run([*words, "--json", "--no-progress"])
    told = json.loads(cost.output)
    assert (told["trades"], told["duplicates"], told["gaps"], told["rejects"]) == (count, 0, 0, {}), told
    return cost


def peer(frames: list[str]) -> Any:
    """One pass of cryptofeed's parser over ``frames``; CPU seconds."""
    from decode import cryptofeed_parser

    feed, seen = cryptofeed_parser()
    loop = asyncio.new_event_loop()

    async def parse_all() -> None:
        seen.clear()
        for frame in frames:
            await feed.message_handler(frame, None, 0.0)

    def run() -> float:
        started = time.process_time()
        loop.run_until_complete(parse_all())
        took = time.process_time() - started
        assert len(seen) == len(frames)
        return took

    return run


def check(folder: Path) -> None:
    """Candles of a short replay equal plain sums over the generated trades."""
    path, count = folder / "check.txt", 3000
    write_recording(path, count, 1)
    data = str(folder / "data")
    words = ["--venue", "binance", "--speed", "max", "--data", data, "--json", "--no-progress"]
    assert json.loads(measured.run(["replay", str(path), *words]).output)["trades"] == count
    lines = measured.run(["candles", "binance:BTCUSDT", "1h", "--data", data, "--limit", "0", "--json"]).output
    rows = [json.loads(line) for line in lines.splitlines()]
    sizes = [int(values.split('"')[7].replace(".", "")) for *_, values in trades(count, 1)]
    assert sum(row["trades"] for row in rows) == count
    assert sum(round(float(row["volume"]) * 1e8) for row in rows) - sum(sizes) in (-1, 0, 1)
    assert all(row["complete"] is not None for row in rows)


def measure(bench: Bench, folder: Path, symbols: int, rounds: int) -> None:
    """Interleaved rounds for one number of symbols."""
    short, long = folder / f"{symbols}.txt", folder / f"{symbols}-long.txt"
    write_recording(short, COUNT, symbols)
    write_recording(long, LONG * COUNT, symbols)
    parse = peer(aggregate_frames(PARSED, symbols))
    parse()
    costs: dict[int, list[measured.Cost]] = {1: [], LONG: []}
    parsed: list[float] = []
    for number in range(rounds):
        costs[1].append(replay(short, COUNT))
        parsed.append(parse())
        if number % 2 == 0:
            costs[LONG].append(replay(long, LONG * COUNT))
            parsed.append(parse())
    long.unlink()
    label = f"{symbols} symbol(s)"
    base = bench.figure(f"cryptofeed parse only, {label}", "k trades/CPU-s", [PARSED / s / 1e3 for s in parsed])
    for length, all_ in costs.items():
        name, total = f"{length}x file, {label}", length * COUNT / 1e3
        cpu = bench.figure(f"{name}, by CPU", "k trades/CPU-s", [total / cost.cpu for cost in all_])
        wall = bench.figure(f"{name}, by wall", "k trades/s", [total / cost.wall for cost in all_])
        peak = bench.figure(f"{name}, peak memory", "MB", [cost.peak_mb for cost in all_])
        bench.ratio(f"{name}: CPU rate vs cryptofeed parse only", cpu / base, 2.5)
        bench.ratio(f"{name}: wall rate vs cryptofeed parse only", wall / base, 2.5)
        bench.ratio(f"{name}: peak memory, MB", peak, 300, at_most=True)


def main() -> None:
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as name:
        folder = Path(name)
        check(folder)
        if args.tiny:
            return
        bench = Bench("full_path", __doc__ or "")
        for symbols in (1, 100):
            measure(bench, folder, symbols, max(args.rounds - 2, 3))
        bench.write()


if __name__ == "__main__":
    main()
