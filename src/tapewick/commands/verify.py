"""``verify``: compare our candles with the venue's own klines, field by field."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tapewick.commands.options import Parser, flag, moment, option, settings_of, timeframe
from tapewick.commands.output import coloured, note, paint, plural, table, write
from tapewick.commands.output import moment as as_text
from tapewick.commands.reading import Reader, as_json, opened, reading
from tapewick.errors import ConfigError, NotFound
from tapewick.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tapewick.sources.venue_klines import VenueKlines
    from tapewick.timeframe import Timeframe
    from tapewick.verify import Folded, Own, Report

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick verify binance:BTCUSDT --data ./d                         # the last day of the tape, 1m and 1h",
    "tapewick verify binance:BTCUSDT --tf 1m,1d --start 2024-08-01 --end 2024-08-09 --data ./d",
    "tapewick verify sim:BTCUSDT --last 1h --url http://127.0.0.1:8080  # the candles of a running server",
)
MS = 1_000_000
FAILED = 4  # exit code: the integrity check failed
SERVER_SPAN = 1000 * 10**9  # seconds candles a server gives in one answer
FOLDER_SPAN = 86_400 * 10**9
UNLIMITED = 10**9  # weight per minute of the simulated venue
NEWEST_SECONDS = 600  # among which one has closed: many are open while trades may come late
LISTED = 200  # differences printed for people; JSON holds all
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="INSTRUMENT", help="venue:symbol, for example binance:BTCUSDT")
    option(parser, "--tf", "timeframes to compare", default="1m,1h", metavar="TF,…")
    option(parser, "--start", "first open time, ms since 1970 or ISO 8601", type=moment, metavar="MS|ISO")
    option(parser, "--end", "open times before this", type=moment, metavar="MS|ISO")
    option(parser, "--last", "without --start: how far back from the end", default="1d", type=span, metavar="1d|6h|…")
    flag(parser, "--strict", "candles not proven complete are mismatches too")
    flag(parser, "--no-trades", "do not sum the stored trades again: quicker, finds less")
    option(parser, "--rest-url", "address of the venue's REST interface", shown_default="the venue's", metavar="URL")
    reading(parser, limited=False)


def span(text: str) -> int:
    """Nanoseconds of a length of time such as ``1d`` or ``90m``."""
    matched = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if matched is None or not int(matched[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write it like 90m, 6h or 1d")
    return int(matched[1]) * _UNITS[matched[2]] * 10**9


def run(args: argparse.Namespace) -> int:
    """Print the comparison; 0 when all is equal, 4 on any mismatch.

    Raises ``SourceError`` (exit 3) when the venue does not answer, ``NotFound`` when there is nothing to compare.
    """
    from tapewick.commands.running import run as run_until_signal

    settings = settings_of(args)
    frames = [timeframe(name.strip()) for name in args.tf.split(",") if name.strip()]
    if not frames:
        raise ConfigError("--tf names no timeframe: write it like --tf 1m,1h")
    if args.start is not None and args.end is not None and args.end <= args.start:
        raise ConfigError("--end must lie after --start")

    async def work() -> int:
        async with _venue(settings, args.instrument, args.rest_url) as venue, opened(args, settings) as reader:
            reports = await _compared(reader, venue, frames, args)
        _print(args, reports)
        return FAILED if any(report.mismatches for report in reports) else 0

    return run_until_signal(work())


@asynccontextmanager
async def _venue(settings: Settings, id: str, rest_url: str | None) -> AsyncIterator[VenueKlines]:
    """Who to ask; the simulated venue is run again where no address is given: its past follows from its seed."""
    from tapewick.verify import klines

    name = id.partition(":")[0]
    if name == "sim" and not rest_url:
        from tapewick import venue_edge

        async with venue_edge.venue(settings) as simulated:
            async with klines(name, rest_url=simulated.rest_url, limit=UNLIMITED) as venue:
                yield venue
        return
    own = settings.repair
    address, limit = rest_url or settings.binance.rest_url, UNLIMITED if name == "sim" else own.weight_limit
    async with klines(name, rest_url=address, share=own.weight_share, limit=limit) as venue:
        yield venue


async def _compared(
    reader: Reader, venue: VenueKlines, frames: list[Timeframe], args: argparse.Namespace
) -> list[Report]:
    """One report per timeframe. Raises ``NotFound`` when none holds a bar."""
    from tapewick.sources.venue_klines import FIELDS
    from tapewick.verify import Report, compare

    for tf in frames:
        venue.require(tf)
    known = set(await reader.instruments())
    if args.instrument not in known:
        raise NotFound(f"no tape of {args.instrument!r}; there are {' '.join(sorted(known)) or 'none'}")
    now = await venue.now()
    reports = [Report(tf, *await _window(reader, tf, now, args), strict=args.strict) for tf in frames]
    folded = None if args.no_trades else await _folded(reader, reports, args)
    for report in reports:
        if report.start >= report.end:
            continue
        tf = report.tf
        theirs = await venue.bars(args.instrument.partition(":")[2], tf, report.start, report.end)
        ours = await _own(reader, args.instrument, tf.name, report.start, report.end)
        if not tf.index:
            ours = _outside_gaps(ours, (await reader.coverage(args.instrument))["gaps"])
        trades = folded.bars(tf) if folded is not None and tf.index else None
        compare(report, ours, theirs, trades, venue.fields or FIELDS)
    if not any(report.compared or report.mismatches or report.incomplete for report in reports):
        raise NotFound(f"no closed candle of {args.instrument} to compare here: nothing was verified")
    return reports


async def _window(reader: Reader, tf: Timeframe, now: int, args: argparse.Namespace) -> tuple[int, int]:
    """The bars to compare: as asked, else up to the last one we have closed, and none before our first."""
    from tapewick.timeframe import bucket, bucket_end
    from tapewick.verify import SETTLE

    settled = bucket(tf, now - SETTLE)
    newest = await _own(reader, args.instrument, tf.name, None, None, limit=3 if tf.index else NEWEST_SECONDS)
    closed = [t for t, own in newest.items() if not own.open]
    if args.end is not None:
        end = min(settled, bucket(tf, args.end + tf.length - 1))
    else:
        end = min(settled, bucket_end(tf, closed[-1])) if closed else 0
    if args.start is not None:
        return bucket(tf, args.start + tf.length - 1), end
    start = bucket(tf, max(0, end - max(args.last, tf.length)))
    if start >= end:  # no bar of this frame has closed yet
        return end, end
    first = await _own(reader, args.instrument, tf.name, start, end, limit=1)
    return max(start, min(first, default=end)), end


async def _own(reader: Reader, id: str, tf: str, start: int | None, end: int | None, limit: int = 0) -> dict[int, Own]:
    from tapewick.verify import own_bars

    found: dict[int, Own] = {}
    async for lines, _ in reader.candles(id, tf, start=start, end=end, limit=limit):
        found |= own_bars(b"[" + b",".join(lines.splitlines()) + b"]")
    return found


def _outside_gaps(seconds: dict[int, Own], gaps: list[dict[str, Any]]) -> dict[int, Own]:
    """Seconds with what is known of them: they are not stored, so nobody else says whether a gap touches one."""
    holes = [((gap["left_ts"] or 0) * MS, (gap["right_ts"] or 2**53) * MS) for gap in gaps]
    return {
        t: own._replace(complete=not any(left < t + 10**9 and t <= right for left, right in holes))
        for t, own in seconds.items()
    }


async def _folded(reader: Reader, reports: list[Report], args: argparse.Namespace) -> Folded:
    """What the stored trades of all windows add up to, timeframe by timeframe."""
    from tapewick.verify import Folded

    wide = [report for report in reports if report.tf.index and report.start < report.end]
    folded = Folded(report.tf for report in wide)
    step = SERVER_SPAN if args.url else FOLDER_SPAN
    at, end = min((report.start for report in wide), default=0), max((report.end for report in wide), default=0)
    while at < end:
        until = min(end, (at // step + 1) * step)
        folded.add(await _own(reader, args.instrument, "1s", at, until))
        at = until
    return folded


# What is printed.


def _print(args: argparse.Namespace, reports: list[Report]) -> None:
    _advise(args, reports)
    if as_json(args):
        import msgspec

        write(msgspec.json.encode(_object(args.instrument, reports)) + b"\n")
        return
    on = coloured(args.color, sys.stdout)
    heads = ("tf", "from", "to", "compared", "equal", "differing", "missing here", "missing there", "incomplete here")
    write(table(heads, map(_row, reports), colour=on).encode())
    differences = [each for report in reports for each in report.differences]
    for each in differences[:LISTED]:
        behind = " (sum of the stored trades)" if each.of == "trades" else ""
        values = f"ours {each.ours or 'none'}, venue {each.venue or 'none'}{behind}"
        write(f"{each.tf} {as_text(each.open_time // MS)[:19]} {each.field}: {values}\n".encode())
    if len(differences) > LISTED:
        note(f"{len(differences) - LISTED:,} more differences; --json lists them all")
    total = sum(report.mismatches for report in reports)
    verdict = paint("all equal", "green", on) if not total else paint(plural(total, "mismatch"), "red", on)
    unseen = [report.tf.name for report in reports if not (report.compared or report.mismatches)]
    rest = f"; nothing of {', '.join(unseen)} was compared" if unseen else ""
    write(f"{args.instrument}: {verdict}{rest}\n".encode())


def _row(report: Report) -> tuple[str, ...]:
    if report.start >= report.end:
        return report.tf.name, "–", "nothing closed", *("–" for _ in _counts(report))
    window = (as_text(at // MS)[:16] for at in (report.start, report.end))
    return report.tf.name, *window, *(f"{count:,}" for count in _counts(report).values())


def _advise(args: argparse.Namespace, reports: list[Report]) -> None:
    """Where stored trades are not the venue's though the ledger vouches for them: what fetches them again."""
    from tapewick.timeframe import bucket_end

    spans = [(d.open_time, bucket_end(r.tf, d.open_time)) for r in reports for d in r.differences if d.of == "trades"]
    if spans:
        first, last = min(start for start, _ in spans) // MS, max(end for _, end in spans) // MS
        note(
            f"stored trades are missing or wrong: with no server on the folder, `tapewick repair {args.instrument} "
            f"--from {first} --to {last} --force` compares them with the venue's and puts back lost ones"
        )


def _counts(report: Report) -> dict[str, int]:
    names = ("compared", "equal", "differing", "missing_here", "missing_there", "incomplete")
    return {name: getattr(report, name) for name in names}


def _ends(report: Report) -> dict[str, int | None]:
    """The window in ms; null where nothing has closed."""
    empty = report.start >= report.end
    return {"start": None if empty else report.start // MS, "end": None if empty else report.end // MS}


def _object(instrument: str, reports: list[Report]) -> dict[str, Any]:
    """The comparison as one JSON object; times in ms."""
    return {
        "instrument": instrument,
        "equal": not any(report.mismatches for report in reports),
        "mismatches": sum(report.mismatches for report in reports),
        "timeframes": [{"tf": report.tf.name, **_ends(report), **_counts(report)} for report in reports],
        "differences": [
            {**each._asdict(), "open_time": each.open_time // MS} for report in reports for each in report.differences
        ],
    }
