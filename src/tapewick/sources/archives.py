"""The venue's public daily and monthly files: which were imported, and their trades as a source.

A file's content is held to its published checksum before a byte of it is read. What was imported is
noted in ``imports.jsonl`` in the data folder, beside the tapes: a table of the store would tie a record of
files, which only this folder's owner needs, to every store's schema.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from tapewick.errors import BadPayload, SourceError
from tapewick.model import Event, Instrument, TradeBatch
from tapewick.sources._archive_fetch import BASE_URL, Fetcher, Verified
from tapewick.sources._archive_names import KINDS, Archive, Kind, named, planned
from tapewick.sources._files import Rejects
from tapewick.sources._trade_csv import CsvTrades
from tapewick.sources.trade_files import threaded

__all__ = [
    "BASE_URL",
    "KINDS",
    "Archive",
    "ArchiveTrades",
    "Fetcher",
    "Imported",
    "Imports",
    "Kind",
    "Verified",
    "fetched",
    "named",
    "planned",
]

FILE = "imports.jsonl"


class Imported(msgspec.Struct, frozen=True):
    """One import: the file's path below the base address, its SHA-256, the tape's epoch, and when (UTC ns)."""

    name: str
    sha256: str
    epoch: str
    at: int


class Imports:
    """What was imported into a data folder; the newest line of a name counts."""

    def __init__(self, folder: Path | str) -> None:
        self._path = Path(folder) / FILE

    def known(self) -> dict[str, Imported]:
        """By name. A last line that a crash cut short is left out: its file is imported again, to no harm."""
        found: dict[str, Imported] = {}
        lines = self._path.read_bytes().split(b"\n") if self._path.is_file() else []
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=Imported)
            except msgspec.DecodeError:
                continue
            found[entry.name] = entry
        return found

    def add(self, entries: Iterable[Imported]) -> None:
        """Note imports whose rows are committed; durable when this returns."""
        data = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
        if data:
            with self._path.open("ab") as file:
                file.write(b"\n" + data)  # a line that was cut short must not swallow the next
                file.flush()
                os.fsync(file.fileno())


class ArchiveTrades:
    """``protocols.Source`` of the trades in ``archives``, which ``get`` brings onto this disk one after the other.

    A file vouches for every id from its first to its last; around rows that cannot be a trade, for the others'
    own ids only. ``done``: the files read whole. What is wrong with a file is raised at the end, once the others
    are through. Counters as in ``TradeFileSource``.
    """

    name = "import"
    pull = True

    def __init__(
        self, archives: Sequence[tuple[Archive, str]], fetcher: Fetcher, *, told: Callable[[Archive, str], None]
    ) -> None:
        self._archives, self._fetcher, self._told = archives, fetcher, told
        self._readers: dict[str, CsvTrades] = {}
        self._announced: set[str] = set()
        self._rejects = Rejects()
        self.others: Counter[str] = Counter()
        self.done: list[Verified] = []

    @property
    def rejects(self) -> Counter[str]:
        """Rows that could not be parsed, by reason."""
        return self._rejects.counts

    async def events(self) -> AsyncGenerator[Event, None]:
        """Each instrument before its first trade, then the trades, file by file.

        Raises ``SourceError`` or ``BadPayload`` at the end, naming each file that failed.
        """
        failures: list[SourceError] = []
        for archive, sha256 in self._archives:
            try:
                verified = await self._fetcher.get(archive, sha256)
            except SourceError as error:
                failures.append(error)
                self._told(archive, "refused")
                continue
            try:
                faults: list[str] = []
                async for event in self._read(verified, faults):
                    yield event
            finally:
                if verified.temporary:
                    verified.path.unlink(missing_ok=True)
            if faults:
                failures.append(BadPayload("; ".join(faults)))
                self._told(archive, "damaged")
            else:
                self.done.append(verified)
                self._told(archive, "imported")
        if failures:
            kinds = {type(failure) for failure in failures}
            kind = SourceError if len(kinds) > 1 or BadPayload not in kinds else BadPayload
            raise kind("; ".join(map(str, failures)))

    async def _read(self, verified: Verified, faults: list[str]) -> AsyncGenerator[Event, None]:
        archive = verified.archive
        id = archive.instrument
        if id not in self._readers:
            self._readers[id] = CsvTrades(id, self.others, self._rejects, aggregates=archive.kind == "aggTrades")
        batches = _vouched(self._readers[id].read(verified.path), self._rejects.counts)
        async with aclosing(threaded(batches, faults)) as read:
            async for batch in read:
                if (stray := archive.strays(batch.ts_event)) is not None:
                    faults.append(stray)
                    return
                if id not in self._announced and (len(batch) or batch.covers):
                    self._announced.add(id)
                    yield Instrument(
                        id=id,
                        venue=archive.venue,
                        symbol=archive.symbol,
                        price_scale=batch.price_scale,
                        size_scale=batch.size_scale,
                        granularity="agg" if archive.kind == "aggTrades" else "raw",
                    )
                yield batch


def _vouched(batches: Iterator[TradeBatch], rejects: Counter[str]) -> Iterator[TradeBatch]:
    """Batches of one file that together cover its ids from the first to the last.

    Ids missing between two good rows do not exist: the venue gave the whole range. Around refused rows
    nothing can be said.
    """
    reached: int | None = None
    before = rejects.total()
    for batch in batches:
        clean, before = rejects.total() == before, rejects.total()
        first, last = _span(batch)
        ascending = bool((batch.first_id[1:] > batch.trade_id[:-1]).all())
        if not clean or not ascending or last < first or (reached is not None and first <= reached):
            reached = None
        else:
            batch = replace(batch, covers=((first if reached is None else reached + 1, last),))
            reached = last
        yield batch


def _span(batch: TradeBatch) -> tuple[int, int]:
    """Lowest and highest id in a batch, void ones included; (0, -1) if it has none."""
    voids = np.array(batch.covers or (), np.int64).reshape(-1, 2)
    lows, highs = (np.concatenate(pair) for pair in ((batch.first_id, voids[:, 0]), (batch.trade_id, voids[:, 1])))
    return (int(lows.min()), int(highs.max())) if len(lows) else (0, -1)


async def fetched(
    archives: Sequence[tuple[Archive, str]], fetcher: Fetcher, told: Callable[[Archive, str], None]
) -> tuple[list[Verified], list[SourceError]]:
    """All that can be had, and what is wrong with the others: for files that are imported together."""
    found: list[Verified] = []
    failures: list[SourceError] = []
    for archive, sha256 in archives:
        try:
            found.append(await fetcher.get(archive, sha256))
        except SourceError as error:
            failures.append(error)
            told(archive, "refused")
        await asyncio.sleep(0)
    return found, failures
