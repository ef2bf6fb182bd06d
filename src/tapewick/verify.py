"""Our candles against the venue's own, field by field: what ``tapewick verify`` and the background verifier share.

Equality is exact: both sides are decimal text, compared as integers. A bucket without trades is the
same whether a side prints an empty bar or none. Nothing here makes a candle final or
changes one: verification is a report, and at most asks for missing ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import structlog

from tapewick import metrics
from tapewick.clock import Clock
from tapewick.errors import ConfigError, TapewickError
from tapewick.market import Market, Window
from tapewick.model import NO_TIME, TapeState, Wanted
from tapewick.net.venue_client import VenueClient
from tapewick.sources._binance_listing import PRODUCTS, addresses
from tapewick.sources.venue_klines import FIELDS, Bar, VenueKlines, exact, shown
from tapewick.timeframe import DAY, MINUTE, SECOND, Timeframe, bucket, bucket_end, parse

__all__ = ["Difference", "Folded", "Own", "Report", "Verifier", "compare", "klines", "missing_ids", "own_bars"]

log = structlog.get_logger()

MS = 1_000_000
FUTURES_LIMIT = 2400  # weight per minute
SETTLE = 10 * SECOND  # how long after its end a bar is left alone: late frames, and clocks that differ


class _Row(msgspec.Struct):
    """What is read of a candle as our surfaces print it."""

    open_time: int
    open: str | None
    high: str | None
    low: str | None
    close: str | None
    volume: str | None
    quote_volume: str | None
    trades: int
    taker_buy_volume: str | None
    taker_buy_quote_volume: str | None
    state: str
    complete: bool | None
    origin: str = "tape"


_ROWS = msgspec.json.Decoder(list[_Row])


class Own(NamedTuple):
    """A candle of ours; ``complete`` as in the model, ``imported`` when it is the venue's own bar from a file."""

    bar: Bar
    open: bool
    complete: bool | None
    imported: bool


class Difference(NamedTuple):
    """One field that differs, or a whole bar that one side lacks (``field`` is ``bar``).

    ``of``: ``candle`` for the stored candle, ``trades`` for the sum of the stored trades behind it.
    ``ours`` and ``venue`` are text as printed, empty where there is nothing. ``open_time`` is UTC ns.
    """

    tf: str
    open_time: int
    field: str
    ours: str
    venue: str
    of: str = "candle"


@dataclass(slots=True)
class Report:
    """One timeframe compared over ``start`` ≤ open time < ``end`` (UTC ns).

    ``compared`` = ``equal`` + ``differing``; buckets empty on both sides are equal. ``unproven`` holds the open
    times of closed bars of ours that are not proven whole: ``strict`` compares them too and fails on each.
    ``mismatches`` is what verification failed on.
    """

    tf: Timeframe
    start: int
    end: int
    equal: int = 0
    differing: int = 0
    missing_here: int = 0
    missing_there: int = 0
    strict: bool = False
    unproven: list[int] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def incomplete(self) -> int:
        """Closed bars of ours that are not proven whole."""
        return len(self.unproven)

    @property
    def compared(self) -> int:
        """Bars both sides have, equal or not."""
        return self.equal + self.differing

    @property
    def mismatches(self) -> int:
        """What verification fails on: bars that differ or that one side lacks; with ``strict`` unproven ones too."""
        return self.differing + self.missing_here + self.missing_there + (self.incomplete if self.strict else 0)


def own_bars(rows: bytes) -> dict[int, Own]:
    """Our candles by open time (ns), from the JSON array every surface prints (times in ms)."""
    return {
        row.open_time * MS: Own(_bar(row), row.state == "open", row.complete, row.origin == "import")
        for row in _ROWS.decode(rows)
    }


def _bar(row: _Row) -> Bar:
    values = (getattr(row, name) for name in FIELDS)
    return Bar(*(value if isinstance(value, int) else exact(value or "0") for value in values))


class Folded:
    """Sums stored trades, given as ``1s`` candles in order of time, to the bars of ``frames``."""

    def __init__(self, frames: Iterable[Timeframe]) -> None:
        self._bars: dict[Timeframe, dict[int, Bar]] = {tf: {} for tf in frames}

    def add(self, seconds: Mapping[int, Own]) -> None:
        """Add seconds that follow those added before."""
        for tf, bars in self._bars.items():
            for t, own in seconds.items():
                at = bucket(tf, t)
                known = bars.get(at)
                bars[at] = own.bar if known is None else _joined(known, own.bar)

    def bars(self, tf: Timeframe) -> dict[int, Bar]:
        """By open time (ns)."""
        return self._bars[tf]


def _joined(a: Bar, b: Bar) -> Bar:
    """Two bars of one bucket as one; ``b`` is the later one."""
    return Bar(
        a.open,
        max(a.high, b.high),
        min(a.low, b.low),
        b.close,
        a.volume + b.volume,
        a.quote_volume + b.quote_volume,
        a.trades + b.trades,
        a.taker_buy_volume + b.taker_buy_volume,
        a.taker_buy_quote_volume + b.taker_buy_quote_volume,
    )


def compare(
    report: Report,
    ours: Mapping[int, Own],
    venue: Mapping[int, Bar],
    trades: Mapping[int, Bar] | None = None,
    fields: Sequence[str] = FIELDS,
) -> Report:
    """Fill ``report`` from the bars of its window; ``trades``: what the stored trades add up to, if they were read.

    Candles that are still open are left out.
    """
    keys = {t for t in (*ours, *venue, *(trades or ())) if report.start <= t < report.end}
    for t in sorted(keys):
        own = ours.get(t)
        if own is not None and own.open:
            continue
        if own is not None and own.complete is False:
            report.unproven.append(t)
            if not report.strict:
                continue
        _compare_bar(report, t, own, venue.get(t), None if trades is None else trades.get(t, _NOTHING), fields)
    return report


_NOTHING = Bar(*(0 for _ in FIELDS))


def _compare_bar(
    report: Report, t: int, own: Own | None, theirs: Bar | None, trades: Bar | None, fields: Sequence[str]
) -> None:
    """Count one bucket, and note what differs."""
    here = own.bar if own is not None and own.bar.trades else None
    there = theirs if theirs is not None and theirs.trades else None
    found: list[Difference] = []
    if here is not None and there is not None:
        found = _differences(report.tf, t, here, there, fields, "candle")
    elif here is not None or there is not None:
        report.missing_here += here is None
        report.missing_there += there is None
        ours, venue = ("" if bar is None else f"{bar.trades} trades" for bar in (here, there))
        report.differences.append(Difference(report.tf.name, t, "bar", ours, venue))
        return
    if not found and trades is not None and not (own is not None and own.imported):
        found = _differences(report.tf, t, trades, there or _NOTHING, fields, "trades")
    report.differences += found
    report.differing += bool(found)
    report.equal += not found


def _differences(tf: Timeframe, t: int, ours: Bar, venue: Bar, fields: Sequence[str], of: str) -> list[Difference]:
    return [
        Difference(tf.name, t, name, shown(ours, name), shown(venue, name), of)
        for name in fields
        if getattr(ours, name) != getattr(venue, name)
    ]


def klines(venue: str, *, rest_url: str = "", share: float = 0.5, limit: int = 6000) -> VenueKlines:
    """The klines of ``venue`` from ``rest_url``, else from its own address.

    Any venue whose address is given speaks the spot protocol. ``share`` of ``limit`` is the request weight per
    minute that this process may use. Raises ``ConfigError`` for a venue without klines.
    """
    if venue not in PRODUCTS and not rest_url:
        raise ConfigError(f"{venue!r} has no klines to compare with: name the address that serves them: --rest-url")
    known = PRODUCTS[venue].rest if venue in PRODUCTS else ()
    limit = min(limit, FUTURES_LIMIT) if venue.startswith("binance-") else limit
    return VenueKlines(VenueClient(addresses(rest_url or None, known), share=share, limit=limit), venue=venue)


def missing_ids(state: TapeState, start: int, end: int) -> Wanted | None:
    """The ids the ledger lacks between trades on either side of ``[start, end)`` ns; None if it lacks none.

    Holes that were given up as unrepairable are left alone.
    """
    rows = state.ranges.tolist()
    given_up = {(gap.left_id, gap.right_id) for gap in state.gaps if gap.state == "unrepairable"}
    holes = [
        (a[1] + 1, b[0] - 1, a[3])
        for a, b in zip(rows, rows[1:], strict=False)
        if a[3] < end and b[2] >= start and (a[1], b[0]) not in given_up
    ]
    if not holes:
        return None
    return Wanted(
        instrument=state.instrument.id,
        ranges=tuple((first, last) for first, last, _ in holes),
        since=tuple(since for _, _, since in holes),
    )


class Verifier:
    """Compares, every ``interval`` seconds, what has closed since the last time, and reports.

    ``venues``: whose klines to ask, by the prefix of instrument ids; others are left alone. ``want`` is given
    the ids that a mismatching minute lacks. ``report`` is given every timeframe compared. Raises ``ConfigError`` for
    timeframes a venue lacks, ``UnknownTimeframe``.
    """

    def __init__(
        self,
        market: Market,
        venues: Mapping[str, VenueKlines],
        *,
        clock: Clock,
        interval: float,
        timeframes: Sequence[str] = ("1m", "1h"),
        want: Callable[[Wanted], object] | None = None,
        report: Callable[[str, Report], object] | None = None,
    ) -> None:
        self._market, self._venues, self._clock, self._interval = market, venues, clock, interval
        self._frames = [parse(name) for name in timeframes]
        for venue in venues.values():
            for tf in self._frames:
                venue.require(tf)
        self._want, self._report = want, report
        self._reached: dict[tuple[str, int], int] = {}
        self.trouble: str | None = None
        """Why the last round could not be finished; None when it could."""

    async def run(self) -> None:
        """Check until cancelled; what cannot be checked is logged, and tried again next time."""
        while True:
            await self._clock.sleep(self._interval)
            await self.check_all()

    async def check_all(self) -> list[Report]:
        """One round over every instrument of a known venue."""
        reports: list[Report] = []
        trouble = None
        for instrument in await self._market.instruments():
            if instrument.venue not in self._venues:
                continue
            try:
                reports += await self.check(instrument.id)
            except TapewickError as error:
                trouble = str(error)
        if trouble is not None and trouble != self.trouble:
            log.warning("verification could not be done", cause=trouble)
        self.trouble = trouble
        return reports

    async def check(self, id: str) -> list[Report]:
        """What has closed since the last check of ``id``, at most a day. Raises ``SourceError``, ``NotFound``."""
        venue = self._venues[id.partition(":")[0]]
        now = await venue.now() - SETTLE
        state = await self._market.coverage(id)
        head = await self._market.head(id)
        if not len(state.ranges) or head.watermark == NO_TIME:
            return []
        begin = int(state.ranges[:, 2].min())
        reports = []
        for tf in self._frames:
            report = Report(tf, *self._window(id, tf, begin, min(now, head.watermark)))
            if report.start >= report.end:
                continue
            theirs = await venue.bars(id.partition(":")[2], tf, report.start, report.end)
            answer = await self._market.candles(id, tf, Window(report.start, report.end, 0))
            compare(report, own_bars(self._market.encode(answer.batch)), theirs, fields=venue.fields)
            self._reached[id, tf.index] = report.end
            self._told(id, report, state)
            reports.append(report)
        return reports

    def _window(self, id: str, tf: Timeframe, begin: int, now: int) -> tuple[int, int]:
        """From where the last check ended, or one interval back, to the last bar that has settled."""
        end = bucket(tf, now)
        since = self._reached.get((id, tf.index), now - int(self._interval * 1e9))
        return bucket(tf, max(begin, since, end - max(DAY, tf.length))), end

    def _told(self, id: str, report: Report, state: TapeState) -> None:
        """Metrics, a log line, and a wish for the ids that mismatching minutes lack."""
        labels = id, report.tf.name
        metrics.verify_compared.labels(*labels).inc(report.compared)
        metrics.verify_mismatches.labels(*labels).inc(report.mismatches)
        total = report.compared + report.missing_here + report.missing_there
        if total:
            metrics.verify_equality.labels(*labels).set(report.equal / total)
        if report.mismatches:
            first = report.differences[0]
            log.warning(
                "candles differ from the venue's",
                instrument=id,
                tf=report.tf.name,
                mismatches=report.mismatches,
                compared=report.compared,
                first=f"{first.open_time // MS} {first.field}: {first.ours or 'none'}, venue {first.venue or 'none'}",
            )
        if report.tf.length == MINUTE and self._want is not None:
            minutes = sorted({*report.unproven, *(each.open_time for each in report.differences)})
            wishes = (missing_ids(state, t, bucket_end(report.tf, t)) for t in minutes)
            for wanted in dict.fromkeys(wish for wish in wishes if wish is not None):
                self._want(wanted)
        if self._report is not None:
            self._report(id, report)
