"""``python -m tapewick.sim.venue``: the simulated venue by itself."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tapewick.sim.lapse import LapseClock
from tapewick.sim.script import faults

if TYPE_CHECKING:
    from tapewick.sim.venue import SimVenue

__all__ = ["run"]


def run(venue: type[SimVenue], arguments: Sequence[str] | None) -> None:
    """Serve until interrupted; the two addresses are the first line of output, the end of a script another."""
    asyncio.run(_serve(venue, _parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tapewick.sim.venue", description="A simulated venue.")
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 lets the system choose")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same trades, books and faults")
    parser.add_argument("--rate", type=float, default=20.0, help="trades per second and symbol")
    parser.add_argument("--origin", type=int, help="UTC ms of the first trade; default: now, less --past")
    parser.add_argument("--past", type=float, default=0.0, help="minutes of history without --origin")
    parser.add_argument("--symbols", nargs="+", default=("BTCUSDT", "ETHUSDT", "SOLUSDT"), help="symbols to list")
    parser.add_argument("--capture", nargs="+", type=Path, default=(), help="serve these recordings instead")
    parser.add_argument("--speed", type=float, help="times real time; recordings: default as fast as clients read")
    parser.add_argument("--start", type=int, help="UTC ms the venue's clock begins at; default now")
    parser.add_argument("--product", choices=("spot", "futures"), default="spot", help="whose dialect to speak")
    parser.add_argument("--lifetime", type=float, default=24 * 3600.0, help="seconds a connection may last")
    parser.add_argument("--weight-limit", type=int, help="request weight per minute; default unlimited")
    parser.add_argument("--candid", action="store_true", help="list symbols as simulated, as no real venue does")
    parser.add_argument("--faults", type=int, default=0, help="how many random faults to inject")
    parser.add_argument("--fault-span", type=float, help="venue seconds over which they happen; default one each")
    parser.add_argument("--fault-kinds", nargs="+", help="only these kinds of fault")
    return parser


async def _serve(make: type[SimVenue], options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    clock = None
    if options.start is not None:
        clock = LapseClock(options.speed or 1.0, options.start * 1_000_000)
    venue = make(
        options.symbols,
        seed=options.seed,
        rate=options.rate,
        origin=options.origin,
        catch_up=options.past,
        captures=options.capture,
        speed=options.speed,
        clock=clock,
        faults=faults(options.seed, options.faults, span=options.fault_span, kinds=options.fault_kinds),
        port=options.port,
        product=options.product,
        lifetime=options.lifetime,
        weight_limit=options.weight_limit,
        candid=options.candid,
    )
    async with venue:
        sys.stdout.write(f"{venue.rest_url} {venue.ws_url}\n")
        sys.stdout.flush()
        if options.faults:
            await _first(venue.script_done, stopped)
            sys.stdout.write(f"{sum(venue.injected.values())} faults, seed {options.seed}\n")
            sys.stdout.flush()
        await stopped.wait()


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
