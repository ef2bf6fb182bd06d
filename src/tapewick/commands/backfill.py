"""``backfill``: fetch a tape's past from its venue, newest first, until it reaches back to a given time."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapewick.commands.options import Parser, moment, option, settings_of
from tapewick.commands.output import Progress, configure_logs, note, plural, write
from tapewick.commands.repair import asking
from tapewick.errors import ConfigError, NotFound, SourceError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from tapewick.commands.mending import Mender
    from tapewick.model import Instrument
    from tapewick.sources._binance_repair import BinanceRepairer

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick backfill binance:BTCUSDT --from 2026-01-01 --data ./d       # into a folder no server owns",
    "tapewick backfill binance:BTCUSDT --from 2026-01-01T12:00Z --url http://127.0.0.1:8080 --token KEY",
    "tapewick backfill binance:SOLUSDT --from 2026-01-01 --to 2026-01-02 --data ./new",
)
FILE = "tape.duckdb"  # of a data folder that has been begun
PART = 100_000  # ids asked for at once: what is left of them after a stop is an ordinary gap


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="ID", help="venue:symbol, for example binance:BTCUSDT")
    option(parser, "--from", "how far back, as ms since 1970 or ISO 8601 (UTC)", type=moment, metavar="TIME")
    option(
        parser,
        "--to",
        "where an empty tape ends; another is filled up to where it starts",
        type=moment,
        shown_default="now",
        metavar="TIME",
    )
    asking(parser)


def run(args: argparse.Namespace) -> int:
    """Backfill. Raises ``ConfigError``, ``NotFound``, ``StoreBusy``, or ``SourceError`` for what the venue refuses."""
    from tapewick.commands.mending import mender
    from tapewick.commands.running import run as run_until_signal

    start, end = getattr(args, "from"), args.to
    if start is None:
        raise ConfigError("backfill needs --from: the time to go back to, for example --from 2026-01-01")
    if end is not None and end <= start:
        raise ConfigError("--to must be after --from")
    settings = settings_of(args)
    configure_logs(settings.log)
    there = settings.store.kind != "duckdb" or (Path(settings.data.dir) / FILE).exists()
    started = time.monotonic()

    async def work() -> int:
        async with _venue(settings, args.instrument) as venue:
            if not (args.url or there):  # what cannot be filled is not begun
                await _listed(venue, args.instrument)
            async with mender(settings, args, [args.instrument]) as tape:
                done = await _fill(tape, venue, args, start, end)
        _print({"instrument": args.instrument, **done, "seconds": round(time.monotonic() - started, 3)}, args.json)
        return 0

    return run_until_signal(work())


def _venue(settings: Settings, instrument: str) -> BinanceRepairer:
    from tapewick import venue_edge
    from tapewick.commands.mending import venue_of

    venue = venue_of(instrument)
    repairer = venue_edge.repairer(settings, venue)
    if repairer is None:
        if venue == "sim":
            raise ConfigError(
                "backfill does not reach the simulated venue: it runs inside the demo, which tells its last hours by "
                f"itself. `tapewick repair {instrument} --url URL` closes the gaps of a running demo"
            )
        raise ConfigError(
            f"{venue} cannot be asked for trades by id: backfill works for binance venues, and for one that speaks "
            "their protocol where TAPEWICK_BINANCE__REST_URL names its address"
        )
    return repairer


async def _fill(
    tape: Mender, venue: BinanceRepairer, args: argparse.Namespace, start: int, end: int | None
) -> dict[str, Any]:
    """Ask for part after part, each below the one before, and wait for it."""
    from tapewick.commands.mending import missing, reopened, until

    instrument: str = args.instrument
    ledger = await _ledger(tape, venue, instrument)
    low = await venue.first_id_at(instrument, start)
    if low is None:
        raise SourceError(f"the venue has no trades of {instrument} from then on; choose an earlier --from")
    if ledger["ranges"]:  # up to where an earlier backfill was to end, if it was interrupted
        high = max(ledger["ranges"][-1][1], *(gap["right_id"] - 1 for gap in ledger["gaps"]), 0)
    else:
        after = None if end is None else await venue.first_id_at(instrument, end)
        newest = await venue.newest_id(instrument)
        high = after - 1 if after is not None else newest if newest is not None else low
    total = sum(b - a + 1 for a, b in missing(ledger, low, high))
    bar = Progress("id", shown=not args.no_progress)

    def show(ledger: dict[str, Any]) -> None:
        left = sum(b - a + 1 for a, b in missing(ledger, low, high))
        bar.update(total - left, 1 - left / max(total, 1))

    try:
        while holes := missing(ledger, low, high):
            first, last = holes[-1]
            part = max(first, last - PART + 1), last
            await tape.ask(instrument, part)
            await reopened(tape, instrument, lambda now, part=part: not _given_up(now, part))  # type: ignore[misc]
            ledger = await until(tape, instrument, lambda now, part=part: _over(now, part), show)  # type: ignore[misc]
            if missing(ledger, *part):
                raise SourceError(
                    f"the venue does not give ids {part[0]} to {part[1]} of {instrument}; what was fetched stays, "
                    "run the same command again to go on"
                )
    finally:
        bar.close()
    return {"ids": total, "first_id": low, "last_id": high, "position": ledger["position"]}


async def _ledger(tape: Mender, venue: BinanceRepairer, instrument: str) -> dict[str, Any]:
    """What the tape holds; a new tape is begun where the folder has none."""
    from tapewick.commands.mending import FolderMender

    try:
        return await tape.coverage(instrument)
    except NotFound:
        if not isinstance(tape, FolderMender):
            raise
    await tape.announce(await _listed(venue, instrument))
    return await tape.coverage(instrument)


async def _listed(venue: BinanceRepairer, instrument: str) -> Instrument:
    """What the venue lists. Raises ``ConfigError`` for what it does not."""
    found = await venue.listing(instrument.partition(":")[2])
    if found is None:
        raise ConfigError(f"{venue.venue} does not list {instrument!r}; write the symbol as the venue does (BTCUSDT)")
    return found


def _over(ledger: dict[str, Any], part: tuple[int, int]) -> bool:
    """Whether ``part`` is there, or given up."""
    from tapewick.commands.mending import missing

    return not missing(ledger, *part) or _given_up(ledger, part)


def _given_up(ledger: dict[str, Any], part: tuple[int, int]) -> bool:
    return any(
        gap["state"] == "unrepairable" and gap["left_id"] < part[1] and part[0] < gap["right_id"]
        for gap in ledger["gaps"]
    )


def _print(outcome: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write(json.dumps(outcome).encode() + b"\n")
        return
    rate = outcome["ids"] / max(outcome["seconds"], 1e-9)
    note(f"{outcome['instrument']}: {plural(outcome['ids'], 'id')} in {outcome['seconds']:.1f} s ({rate:,.0f}/s)")
