"""Keep an order book from depth frames: ours, our Python reference, cryptofeed.

Work: one REST snapshot and the depth frames of one symbol, in memory; one unit is one frame parsed and
applied, ours to the update that goes to clients. With TAPEWICK_TESTDATA the frames are the recorded ones
(spot BTCUSDT at 100 ms, 36 changed levels each; USD-M BTCUSDT, 68 levels), else 5,000 generated ones
of 36 levels (seed 1). CPU time. cryptofeed's snapshot request and callback are stubbed and its check for
crossed books is off, as by default; its ``message_handler`` runs whole. The final books are compared
level by level.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
from collections.abc import Callable
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from harness import Bench, arguments, interleave
from tapewick.engine import _book_reference, _book_sync, _codec, _native
from tapewick.engine import book as ours
from tapewick.engine.book import BookSync, parse_snapshot

SCALES = {"spot": (2, 5), "futures": (2, 3)}
RECORDED = {"spot": ["spot_btcusdt_20240808", "spot_btcusdt_20240809"], "futures": ["usdm_btcusdt_20240808"]}


class Recording(NamedTuple):
    """``frames`` follow ``snapshot`` or are older; ``early`` of them came before it."""

    rule: str
    snapshot: bytes
    early: int
    frames: list[bytes]


def recorded(rule: str, folder: Path) -> Recording:
    frames: list[bytes] = []
    snapshot, early = b"", 0
    for name in RECORDED[rule]:
        for line in gzip.decompress((folder / f"{name}.gz").read_bytes()).splitlines():
            frame = line.partition(b" ")[2]
            if frame.startswith(b'{"lastUpdateId"'):
                snapshot, early = frame, len(frames)
            elif b'"e":"depthUpdate"' in frame:
                frames.append(frame)
    return Recording(rule, snapshot, early, frames)


def generated(count: int) -> Recording:
    """A book of 1,000 levels a side around a wandering middle; a third of the changes remove a level."""
    rng = random.Random(1)
    middle, id = 6_000_000, 1_000

    def level(price: int, size: int) -> str:
        return f'["{price / 100:.8f}","{size / 100_000:.8f}"]'

    def side(sign: int, levels: int, step: int) -> str:
        prices = sorted({middle + sign * rng.randint(1, levels * step) for _ in range(levels)}, reverse=sign < 0)
        sizes = (0 if step == 1 and rng.random() < 0.35 else rng.randint(1, 900_000) for _ in prices)
        return ",".join(map(level, prices, sizes))

    snapshot = f'{{"lastUpdateId":{id},"bids":[{side(-1, 1000, 3)}],"asks":[{side(1, 1000, 3)}]}}'
    frames = []
    for _ in range(count):
        last = id + rng.randint(1, 40)
        data = f'"e":"depthUpdate","E":1700000000000,"s":"BTCUSDT","U":{id + 1},"u":{last},'
        body = f'{data}"b":[{side(-1, 18, 1)}],"a":[{side(1, 18, 1)}]'
        frames.append(f'{{"stream":"btcusdt@depth@100ms","data":{{{body}}}}}'.encode())
        id = last
    return Recording("spot", snapshot.encode(), 1, frames)


def tapewick(recording: Recording, size: int, codec: Any, levels: Any) -> Callable[[], BookSync]:
    """Decode and sync in batches of ``size`` frames, with the parts of one engine."""

    def run() -> BookSync:
        _book_sync.Levels, ours.read_snapshot = levels, codec.read_snapshot  # type: ignore[misc]
        scales = dict(zip(("price_scale", "size_scale"), SCALES[recording.rule], strict=True))
        decoder = codec.Decoder(books=True)
        decoder.set_scale("BTCUSDT", *scales.values())
        sync = BookSync("bench:BTCUSDT", rule=recording.rule, run="bench", **scales)  # type: ignore[arg-type]
        for batch in batches(recording, size):
            if isinstance(batch, bytes):
                sync.snapshot(parse_snapshot(batch, **scales), 1)
            else:
                for group in decoder.frames(batch, 1).depth:
                    sync.depth(group)
        assert sync.state == "live" and sync.counters["applied"] + sync.counters["dropped"] == len(recording.frames)
        return sync

    return run


def batches(recording: Recording, size: int) -> list[bytes | list[bytes]]:
    frames = recording.frames
    later = [frames[at : at + size] for at in range(recording.early, len(frames), size)]
    return [frames[: recording.early], recording.snapshot, *later]


def cryptofeed(recording: Recording) -> Callable[[], Any]:
    """cryptofeed's feed with its request for the snapshot and its callback stubbed."""
    from cryptofeed.defines import L2_BOOK
    from cryptofeed.exchanges.binance import Binance
    from cryptofeed.exchanges.binance_futures import BinanceFutures

    loop = asyncio.new_event_loop()

    async def snapshot(*_: Any) -> bytes:
        return recording.snapshot

    async def taken(*_: Any) -> None:
        pass

    class Stub:
        read = staticmethod(snapshot)
        route = staticmethod(lambda *_: "{} {}")

    async def follow() -> Any:
        kind = Binance if recording.rule == "spot" else BinanceFutures
        feed = kind.__new__(kind)
        feed.requires_authentication = feed.cross_check = feed.sandbox = False
        feed.exchange_symbol_to_std_symbol = lambda symbol: symbol
        feed.http_conn, feed.rest_endpoints, feed.max_depth = Stub, [Stub], 0
        feed.callbacks = {L2_BOOK: [taken]}
        feed._l2_book, feed.last_update_id = {}, {}
        for frame in recording.frames:
            await feed.message_handler(frame, None, 0.0)
        return feed._l2_book["BTCUSDT"]

    return lambda: loop.run_until_complete(follow())


def check(recording: Recording, theirs: Callable[[], Any] | None) -> None:
    """All ways lead to the same book."""
    native = tapewick(recording, 64, _native, _native.Levels)()
    columns = [column.tolist() for column in native.levels()]
    for size, codec, levels in ((1, _native, _native.Levels), (64, _codec, _book_reference.Levels)):
        other = tapewick(recording, size, codec, levels)()
        assert [column.tolist() for column in other.levels()] == columns
    if theirs is None:
        return
    book = theirs().book
    up = [-native.price_scale, -native.size_scale]
    for side, prices, sizes in ((book.bids, *columns[:2]), (book.asks, *columns[2:])):
        levels = {Decimal(p).scaleb(up[0]): Decimal(q).scaleb(up[1]) for p, q in zip(prices, sizes, strict=True)}
        assert levels == side.to_dict()


def compare(bench: Bench, recording: Recording, name: str, rounds: int) -> None:
    peer = f"{name}: cryptofeed message_handler"
    contenders = {
        f"{name}: native, batches of 64": tapewick(recording, 64, _native, _native.Levels),
        f"{name}: native, frame by frame": tapewick(recording, 1, _native, _native.Levels),
        f"{name}: reference, batches of 64": tapewick(recording, 64, _codec, _book_reference.Levels),
        peer: cryptofeed(recording),
    }
    ns = {
        what: bench.figure(what, "ns/frame", [s / len(recording.frames) * 1e9 for s in all_])
        for what, all_ in interleave(contenders, rounds).items()
    }
    batched, single, reference, _ = ns
    bench.ratio(f"book, {name}, native batch vs cryptofeed", ns[peer] / ns[batched], 10)
    bench.ratio(f"book, {name}, native frame by frame vs cryptofeed", ns[peer] / ns[single], 5)
    bench.ratio(f"book, {name}, native batch vs reference", ns[reference] / ns[batched], 4)


def main() -> None:
    args = arguments(__doc__)
    testdata = os.environ.get("TAPEWICK_TESTDATA")
    recordings = {"generated": generated(200 if args.tiny else 5_000)}
    if testdata and not args.tiny:
        folder = Path(testdata) / "binance-ws-2024-08"
        recordings = {"recorded spot": recorded("spot", folder), "recorded USD-M": recorded("futures", folder)}
    for recording in recordings.values():
        peer = find_spec("cryptofeed") is not None or not args.tiny
        check(recording, cryptofeed(recording) if peer else None)
    if args.tiny:
        return
    bench = Bench("book", __doc__ or "")
    for name, recording in recordings.items():
        compare(bench, recording, name, args.rounds)
    bench.write()


if __name__ == "__main__":
    main()
