"""The archive side of ``import``: the venue's public daily and monthly files, by name, by date or from this disk."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tapewick.commands.options import timeframe
from tapewick.commands.output import Progress, configure_logs, note, plural, write
from tapewick.errors import BadPayload, ConfigError, SourceError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapewick.model import I64, Instrument
    from tapewick.pipeline import Report
    from tapewick.sources.archives import Archive, Fetcher, Imported, Verified

__all__ = ["date", "run"]

CHANGED = 4  # exit code of --check: what was imported is not what is published


def date(text: str) -> tuple[dt.date, dt.date]:
    """First and last day of a date (``2024-08-09``) or a month (``2024-08``)."""
    try:
        if len(text) == 7:
            first = dt.date.fromisoformat(f"{text}-01")
            return first, (first + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: write it like 2024-08-09, or 2024-08") from None
    return day, day


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Import what ``args`` names; with ``--check`` only compare it with what is published.

    Raises ``ConfigError`` for what cannot be meant, ``BadPayload`` (exit 2) for a file whose content is not as
    published, ``SourceError`` (exit 3) for one that cannot be had.
    """
    from tapewick.commands.running import run as run_until_signal

    configure_logs(settings.log)
    wanted = _wanted(args)
    kinds = {(archive.instrument, archive.kind) for archive in wanted if archive.kind != "klines"}
    if len(kinds) > len({instrument for instrument, _ in kinds}):
        raise ConfigError("a tape holds single trades or aggregates, never both: import one --kind")
    return run_until_signal(_Import(settings, args).work(wanted))


def _wanted(args: argparse.Namespace) -> list[Archive]:
    """The files asked for, in order."""
    from tapewick.sources.archives import named, planned

    if args.files:
        for name in args.files:
            if "://" not in name and not Path(name).is_file():
                raise ConfigError(f"{name} is no file: check the path")
        return [named(name, args.instrument) for name in args.files]
    since, until = getattr(args, "from"), args.to
    if since is None:
        raise ConfigError("--archive needs --from, and --to where it is not one day or month: which days to import")
    first, last = since[0], (until or since)[1]
    if last < first:
        raise ConfigError("--to must not lie before --from")
    if (args.tf is None) == (args.kind == "klines"):
        raise ConfigError("--tf goes with --kind klines, and only with it: name the timeframe of the bars")
    tf = timeframe(args.tf) if args.tf else None
    today = dt.datetime.now(dt.UTC).date()
    return list(planned(args.archive, args.kind, tf, first, min(last, today), today))


class _Import:
    """One run of the command: which files to fetch, what came of each."""

    def __init__(self, settings: Settings, args: argparse.Namespace) -> None:
        from tapewick.sources.archives import Imports

        self._settings, self._args = settings, args
        self._folder = Path(settings.data.dir)
        self._imports = Imports(self._folder)
        self._outcomes: list[dict[str, str]] = []
        self._totals: dict[str, Any] = {}
        self._failures: list[SourceError] = []

    async def work(self, wanted: list[Archive]) -> int:
        from tapewick.sources.archives import Fetcher

        started = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        url = self._settings.binance.archive_url
        with TemporaryDirectory(prefix="incoming-", dir=self._folder) as incoming:
            async with Fetcher(Path(incoming), base_url=url) as fetcher:
                found = await self._new(wanted, fetcher)
                if not self._args.check:
                    await self._import(found, fetcher)
        self._print(time.monotonic() - started)
        if len(self._failures) == 1:
            raise self._failures[0]
        if self._failures:
            kinds = {type(failure) for failure in self._failures}
            raise (kinds.pop() if kinds == {BadPayload} else SourceError)("; ".join(map(str, self._failures)))
        changed = any(each["outcome"] == "changed" for each in self._outcomes)
        return CHANGED if self._args.check and changed else 0

    async def _new(self, wanted: Sequence[Archive], fetcher: Fetcher) -> list[tuple[Archive, str]]:
        """The files to import with the checksum of each: what is not there yet, or was published anew."""
        stored, imported = await self._stored(), self._imports.known()
        self._refuse_other_granularity(wanted, stored)
        found: list[tuple[Archive, str]] = []
        waiting = list(reversed(wanted))
        while waiting:
            archive = waiting.pop()
            sha256 = await fetcher.published(archive)
            known = imported.get(archive.path)
            if sha256 is None and not archive.origin and archive.has_days:
                waiting += reversed(archive.daily())
            elif sha256 is None:
                self._tell(archive, "absent")
                self._failures.append(SourceError(f"{archive.name} is not published"))
            elif self._args.check:
                self._tell(archive, "new" if known is None else "same" if known.sha256 == sha256 else "changed")
            elif self._held(known, sha256, stored.get(archive.instrument)) and not self._args.force:
                self._tell(archive, "same")
            else:
                found.append((archive, sha256))
        return found

    def _held(self, known: Imported | None, sha256: str, tape: tuple[Instrument, str] | None) -> bool:
        """Whether just this content was imported, and into the tape that is there now."""
        return known is not None and tape is not None and (known.sha256, known.epoch) == (sha256, tape[1])

    def _refuse_other_granularity(self, wanted: Sequence[Archive], stored: dict[str, tuple[Instrument, str]]) -> None:
        for archive in wanted:
            tape = stored.get(archive.instrument)
            granularity = "agg" if archive.kind == "aggTrades" else "raw"
            if archive.kind != "klines" and tape is not None and tape[0].granularity != granularity:
                right = "aggTrades" if tape[0].granularity == "agg" else "trades"
                raise ConfigError(f"the tape of {archive.instrument} holds {right}: import files of --kind {right}")

    async def _stored(self) -> dict[str, tuple[Instrument, str]]:
        """The instruments of the folder, and the epoch of each tape."""
        from tapewick import registry
        from tapewick.stores.duckdb import FILE

        if self._settings.store.kind == "duckdb" and not (self._folder / FILE).exists():
            return {}
        async with registry.store(self._settings, read_only=True) as store:
            return {
                instrument.id: (instrument, (await store.head(instrument.id)).epoch)
                for instrument in await store.instruments()
            }

    async def _import(self, found: Sequence[tuple[Archive, str]], fetcher: Fetcher) -> None:
        bars: dict[tuple[str, str], list[tuple[Archive, str]]] = defaultdict(list)
        for archive, sha256 in found:
            if archive.kind == "klines":
                bars[archive.instrument, archive.interval].append((archive, sha256))
        trades = [each for each in found if each[0].kind != "klines"]
        if trades:
            await self._import_trades(trades, fetcher)
        for group in bars.values():
            await self._import_bars(group, fetcher)

    async def _import_trades(self, found: Sequence[tuple[Archive, str]], fetcher: Fetcher) -> None:
        from tapewick import pipeline
        from tapewick.sources.archives import ArchiveTrades

        source = ArchiveTrades(found, fetcher, told=self._tell)
        bar = Progress("trade", shown=not self._args.no_progress)
        report: Report | None = None
        try:
            report = await pipeline.feed(self._settings, source, progress=lambda now: bar.update(now.trades))
        except SourceError as error:  # what came before it is committed
            self._failures.append(error)
        finally:
            bar.close()
        await self._note(source.done)
        if report is not None:
            self._totals |= {name: getattr(report, name) for name in ("trades", "duplicates", "rejects", "gaps")}

    async def _import_bars(self, found: Sequence[tuple[Archive, str]], fetcher: Fetcher) -> None:
        from tapewick.commands.import_ import import_bars
        from tapewick.sources.archives import fetched

        files, failures = await fetched(found, fetcher, self._tell)
        self._failures += failures
        if not files:
            return
        first = files[0].archive
        try:
            bars, coarser = await import_bars(
                self._settings, [each.path for each in files], first.tf, first.instrument, check=_of_its_day(files)
            )
        except SourceError as error:
            self._failures.append(error)
            for each in files:
                self._tell(each.archive, "damaged")
            return
        self._totals["bars"] = self._totals.get("bars", 0) + bars
        self._totals["rolled_up"] = self._totals.get("rolled_up", 0) + coarser
        for each in files:
            self._tell(each.archive, "imported")
        await self._note(files)

    async def _note(self, done: Sequence[Verified]) -> None:
        """Record what is committed."""
        from tapewick.sources.archives import Imported

        stored, now = await self._stored() if done else {}, time.time_ns()
        self._imports.add(
            Imported(each.archive.path, each.sha256, stored[each.archive.instrument][1], now)
            for each in done
            if each.archive.instrument in stored  # a file without a single trade makes no tape
        )

    def _tell(self, archive: Archive, outcome: str) -> None:
        self._outcomes.append({"name": archive.path, "outcome": outcome})
        if not self._args.json and not self._args.no_progress:
            note(f"{archive.name}: {_WORDS[outcome]}")

    def _print(self, seconds: float) -> None:
        if self._args.json:
            write(json.dumps({"files": self._outcomes, **self._totals, "seconds": round(seconds, 3)}).encode() + b"\n")
            return
        counts: dict[str, int] = defaultdict(int)
        for each in self._outcomes:
            counts[each["outcome"]] += 1
        files = ", ".join(f"{count:,} {_WORDS[outcome]}" for outcome, count in counts.items()) or "none"
        totals = [plural(self._totals[name], noun) for name, noun in _NOUNS.items() if name in self._totals]
        refused = sum(self._totals.get("rejects", {}).values())
        totals += [f"{refused:,} rejected"] if refused else []
        note(f"files: {files}; {', '.join(totals) or 'nothing new'} in {seconds:.1f} s")


def _of_its_day(files: Sequence[Verified]) -> Callable[[Path, I64], None]:
    """What refuses open times that lie outside the day or month a file is named after."""
    archives = {each.path: each.archive for each in files}

    def check(path: Path, times: I64) -> None:
        if (stray := archives[path].strays(times)) is not None:
            raise BadPayload(stray)

    return check


_WORDS = {
    "imported": "imported",
    "same": "as imported before",
    "changed": "published anew since it was imported",
    "new": "not imported yet",
    "absent": "not published",
    "refused": "refused",
    "damaged": "damaged",
}
_NOUNS = {"trades": "trade", "duplicates": "duplicate", "gaps": "gap", "bars": "bar", "rolled_up": "coarser bar"}
