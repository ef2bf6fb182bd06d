"""Fold trades into candles: our engine (tape included) against nautilus_trader's aggregators.

Work: 2 M trades over 3 days (random walk in cents, sizes to 1e5 × 1e-5, seed 1), of 1 symbol or
spread over 100; 13 timeframes for nautilus (12 aggregators: it has no calendar month), all
17 of ours. Ours runs the whole tape: screening, dedupe against the ledger, numbering,
folding, ``take`` after every batch of 65,536. nautilus and the reference take the first 200 k;
TradeTick objects are prebuilt. CPU time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import Bench, arguments, interleave
from tapewick.engine import _native, _reference
from tapewick.timeframe import SECOND

BATCH = 65_536
T0 = 1_700_006_400 * SECOND
MINUTES = (1, 3, 5, 15, 30, 45, 60, 120, 180, 240, 1440, 7 * 1440)


def make_trades(count: int, symbols: int) -> list[dict[str, np.ndarray]]:
    """Columns of each symbol's trades, sorted by time; together ``count`` over three days."""
    rng = np.random.default_rng(1)
    span = 3 * 86_400 * SECOND * count // 2_000_000
    ts = np.sort(rng.integers(0, span, count)) + T0
    owner = rng.integers(0, symbols, count)
    price = 6_000_000 + np.cumsum(rng.integers(-5, 6, count))
    size = rng.integers(1, 100_001, count)
    side = rng.choice(np.array([-1, 1], np.int8), count)
    out = []
    for symbol in range(symbols):
        mine = np.flatnonzero(owner == symbol)
        ids = np.arange(1, len(mine) + 1, dtype=np.int64)
        out.append({
            "trade_id": ids, "first_id": ids, "count": np.ones(len(mine), np.int32), "ts_event": ts[mine],
            "price": np.maximum(price[mine], 1), "size": size[mine], "side": side[mine],
        })  # fmt: skip
    return out


def fold(module: Any, data: list[dict[str, np.ndarray]], batch: int = BATCH) -> list[Any]:
    """Every symbol's batches in turn, as time would bring them; returns the cores."""
    cores = [module.TapeCore(i, 2 * SECOND, 60 * SECOND, 600 * SECOND) for i in range(len(data))]
    size = max(batch // len(data), 1)
    longest = max(len(columns["trade_id"]) for columns in data)
    for at in range(0, longest, size):
        for core, columns in zip(cores, data, strict=True):
            core.ingest(*(column[at : at + size] for column in columns.values()))
            core.take()
    return cores


def nautilus(data: list[dict[str, np.ndarray]]) -> Any:
    """A run of 12 TimeBarAggregators per symbol over prebuilt TradeTicks."""
    from nautilus_trader.common.component import TestClock
    from nautilus_trader.data.aggregation import TimeBarAggregator
    from nautilus_trader.model.data import BarSpecification, BarType, TradeTick
    from nautilus_trader.model.enums import AggressorSide, BarAggregation, PriceType
    from nautilus_trader.model.identifiers import TradeId
    from nautilus_trader.model.objects import Price, Quantity
    from nautilus_trader.test_kit.providers import TestInstrumentProvider

    instrument = TestInstrumentProvider.btcusdt_binance()
    ticks = sorted(
        (
            (int(ts), symbol, TradeTick(
                instrument.id, Price(p / 100, 2), Quantity(q / 1e5, 6),
                AggressorSide.BUYER if s > 0 else AggressorSide.SELLER, TradeId(str(i)), int(ts), int(ts)))
            for symbol, c in enumerate(data)
            for i, (ts, p, q, s) in enumerate(zip(c["ts_event"], c["price"], c["size"], c["side"], strict=True))
        ),
        key=lambda item: item[0],
    )  # fmt: skip

    def spec(minutes: int) -> BarSpecification:
        if minutes % 1440 == 0:
            return BarSpecification(minutes // 1440, BarAggregation.DAY, PriceType.LAST) if minutes == 1440 else (
                BarSpecification(1, BarAggregation.WEEK, PriceType.LAST))  # fmt: skip
        if minutes % 60 == 0:
            return BarSpecification(minutes // 60, BarAggregation.HOUR, PriceType.LAST)
        return BarSpecification(minutes, BarAggregation.MINUTE, PriceType.LAST)

    def run() -> int:
        bars: list[Any] = []
        sets = []
        for _ in data:
            clock = TestClock()  # timer names are unique per clock
            clock.set_time(T0)
            aggregators = [
                TimeBarAggregator(instrument, BarType(instrument.id, spec(m)), bars.append, clock)
                for m in MINUTES if m != 45
            ]  # fmt: skip
            sets.append(aggregators)
        for _, symbol, tick in ticks:
            for aggregator in sets[symbol]:
                aggregator.handle_trade_tick(tick)
        return len(bars)

    return run


def main() -> None:
    args = arguments(__doc__)
    count = 20_000 if args.tiny else 2_000_000
    few = count // 10
    bench = Bench("candles", __doc__ or "")
    for symbols, goal in ((1, 100), (100, 40)):
        data = make_trades(count, symbols)
        short = [{k: v[: few // symbols] for k, v in columns.items()} for columns in data]
        check(short)
        if args.tiny:
            continue
        taken = sum(len(c["trade_id"]) for c in short)
        run = nautilus(short)
        seconds = interleave(
            {
                "native": lambda d=data: fold(_native, d),
                "reference": lambda s=short: fold(_reference, s),
                "nautilus, 11 aggregators": run,
            },
            args.rounds if symbols == 1 else max(args.rounds - 2, 3),
        )
        units = {"native": count}
        rate = {
            name: bench.figure(
                f"{name}, {symbols} symbol(s)", "k trades/CPU-s", [units.get(name, taken) / s / 1e3 for s in all_]
            )
            for name, all_ in seconds.items()
        }
        peer = rate["nautilus, 11 aggregators"]
        bench.ratio(f"17 timeframes, native vs nautilus, {symbols} symbol(s)", rate["native"] / peer, goal)
        bench.ratio(f"17 timeframes, reference vs nautilus, {symbols} symbol(s)", rate["reference"] / peer, 10)
    if not args.tiny:
        bench.write()


def check(data: list[dict[str, np.ndarray]]) -> None:
    """Both engines give the same bytes on the benchmark's own data."""
    for a, b in zip(fold(_native, data), fold(_reference, data), strict=True):
        assert (a.seq, a.pos, a.watermark) == (b.seq, b.pos, b.watermark)
        assert a.ranges().tobytes() == b.ranges().tobytes() and a.live().tobytes() == b.live().tobytes()


if __name__ == "__main__":
    main()
