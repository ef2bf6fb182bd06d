"""Decode a Binance trade frame to columns: ours, our msgspec fallback, cryptofeed.

Work: 20,000 combined-stream frames of 172 bytes on average, 100 symbols, seed 1, in memory;
one unit is one frame brought to columns (symbol, time, price, size, side, id) in memory. CPU time.
"cut per symbol" adds making eight arrays for each of the 100 symbols of every batch.
cryptofeed takes aggTrade frames of the same values (it knows no ``@trade``); its callback and
symbol map are stubbed, its ``message_handler`` runs whole.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np

from harness import Bench, arguments, interleave
from tapewick.engine import _codec, _native

SYMBOLS = 100
RECV = 1_700_000_000_000_000_000


def make_frames(count: int) -> tuple[list[bytes], list[str]]:
    rng = random.Random(1)
    ours, theirs, ts = [], [], 1_700_000_000_000
    for i in range(count):
        ts += rng.randint(0, 5)
        symbol = f"SYM{rng.randrange(SYMBOLS)}USDT"
        price, size, m = rng.uniform(1, 70_000), rng.uniform(0.001, 10), rng.choice(("true", "false"))
        head = f'{{"stream":"{symbol.lower()}@'
        tail = f'"p":"{price:.8f}","q":"{size:.8f}","T":{ts},"m":{m},"M":true}}}}'
        id = 3_000_000_000 + i
        ours.append(f'{head}trade","data":{{"e":"trade","E":{ts + 1},"s":"{symbol}","t":{id},{tail}'.encode())
        agg = f'"a":{id},"f":{id},"l":{id},'
        theirs.append(f'{head}aggTrade","data":{{"e":"aggTrade","E":{ts + 1},"s":"{symbol}",{agg}{tail}')
    return ours, theirs


def cryptofeed_parser() -> Any:
    """cryptofeed's Binance feed with its callback and symbol look-up stubbed."""
    from cryptofeed.exchanges.binance import Binance

    feed = Binance.__new__(Binance)
    feed.requires_authentication = False
    feed.exchange_symbol_to_std_symbol = lambda symbol: symbol
    seen = []

    async def callback(_kind: str, trade: Any, _timestamp: float) -> None:
        seen.append(trade)

    feed.callback = callback
    return feed, seen


def main() -> None:
    args = arguments(__doc__)
    frames, agg = make_frames(500 if args.tiny else 20_000)
    feed, seen = cryptofeed_parser()
    loop = asyncio.new_event_loop()

    def batches(module: Any, size: int, *, split: bool = False) -> Any:
        """Decode all; ``split`` also asks every symbol's group for its eight arrays."""

        def run() -> int:
            decoder, found = module.Decoder(), 0
            for at in range(0, len(frames), size):
                for group in decoder.frames(frames[at : at + size], RECV).groups:
                    found += len(group)
                    if split:
                        group.trade_id, group.first_id, group.count, group.ts_event  # noqa: B018
                        group.ts_recv, group.price, group.size, group.side  # noqa: B018
            return found

        return run

    async def parse_all() -> None:
        seen.clear()
        for frame in agg:
            await feed.message_handler(frame, None, 0.0)

    native, fallback = _native.Decoder().frames(frames, RECV), _codec.Decoder().frames(frames, RECV)
    assert sum(len(g.trade_id) for g in native.groups) == len(frames)
    for a, b in zip(native.groups, fallback.groups, strict=True):
        assert a.symbol == b.symbol and np.array_equal(a.price, b.price) and np.array_equal(a.size, b.size)
    loop.run_until_complete(parse_all())
    assert len(seen) == len(frames)
    if args.tiny:
        return
    seconds = interleave(
        {
            "native, batches of 256": batches(_native, 256),
            "native, batches of 256, cut per symbol": batches(_native, 256, split=True),
            "native, whole, cut per symbol": batches(_native, len(frames), split=True),
            "msgspec fallback, batches of 256": batches(_codec, 256),
            "cryptofeed message_handler": lambda: loop.run_until_complete(parse_all()),
        },
        args.rounds,
    )
    bench = Bench("decode", __doc__ or "")
    ns = {name: bench.figure(name, "ns/frame", [s / len(frames) * 1e9 for s in all_]) for name, all_ in seconds.items()}
    ours = ns["native, batches of 256"]
    bench.ratio("decode, native batch vs cryptofeed", ns["cryptofeed message_handler"] / ours, 10)
    split = ns["native, whole, cut per symbol"]
    bench.ratio("decode, native, cut per symbol, vs cryptofeed", ns["cryptofeed message_handler"] / split, 10)
    bench.ratio("decode, native batch vs msgspec fallback", ns["msgspec fallback, batches of 256"] / ours, 4)
    bench.write()


if __name__ == "__main__":
    main()
