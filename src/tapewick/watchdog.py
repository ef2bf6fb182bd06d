"""Which streams have gone silent, judged by what each one is used to and by how its siblings do.

A connection can live, answer pings and deliver a hundred streams while one of them is dead.
No fixed number finds that: a major pair is suspicious after seconds, a rare one not after an hour.
So each (instrument, channel) remembers its longest gap, in time and in arrivals of its siblings.

A stream is ``learning`` until it has shown ``LEARN_GAPS`` gaps in ``LEARN_TIME``, then ``fresh``. When it is silent for
more than ``FACTOR`` times its longest gap it is

- ``stale`` if its siblings went on for ``FACTOR`` times what it ever missed of them, or are all silent too,
- ``late`` if its siblings are slow as well, and stale after ``PATIENCE`` times that silence.

The longest gap is that of the last 256 to 512 gaps and of 10 minutes at least. For memoryless arrivals a stream that
has shown n gaps is reported falsely at most 24/n⁴ times per gap (n = 32: 2.3e-5, n = 256: 5.6e-9). Where the longest
gap grows R-fold at once, at most 1 + log2(R) reports follow: each reported gap doubles what counts as usual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from tapewick.model import Health

__all__ = ["Findings", "StreamHealth", "StreamState", "Watchdog"]

SECOND = 10**9
FACTOR = 4
PATIENCE = 4
FLOOR = 3 * SECOND  # a pause of the machine or the network is no silence of a stream
LEARN_GAPS = 32
LEARN_TIME = 60 * SECOND
BLOCK_GAPS = 256
BLOCK_TIME = 600 * SECOND
MUTE_TIME = 900 * SECOND  # a subscription that brought nothing yet is tried again, never called stale
MUTE_TICKS = 256
LEAST_TICKS = 8
RETRY_FIRST = 30 * SECOND
RETRY_CAP = 3600 * SECOND
RETRIES_PER_CHECK = 50

StreamState: TypeAlias = Literal["learning", "fresh", "late", "stale"]


class StreamHealth(NamedTuple):
    """One stream's state at ``ts``: how long it has been silent, and which silence is usual (s; 0: unknown)."""

    source: str
    instrument: str
    channel: str
    state: StreamState
    ts: int
    age: float
    usual: float

    @property
    def detail(self) -> str:
        """For people: what is silent and for how long."""
        if self.state in ("fresh", "learning"):
            return f"{self.channel}: data flow"
        usual = f"its longest gap was {self.usual:.1f} s" if self.usual else "it never brought any"
        return f"{self.channel}: {self.state}, no data for {self.age:.1f} s, {usual}"

    def health(self) -> Health:
        """As an event of the source: ``stale``, or ``connected`` with the ``detail``."""
        state: Literal["connected", "stale"] = "stale" if self.state == "stale" else "connected"
        return Health(source=self.source, state=state, ts=self.ts, detail=self.detail, instrument=self.instrument)


class Findings(NamedTuple):
    """What a check found: streams whose state changed, and (instrument, channel) to subscribe to anew."""

    changes: list[StreamHealth]
    resubscribe: list[tuple[str, str]]


@dataclass(slots=True)
class _Longest:
    """The greatest of the last one to two blocks of values."""

    now: int = 0
    before: int = 0

    @property
    def value(self) -> int:
        return max(self.now, self.before)

    def add(self, value: int) -> None:
        if value > self.now:
            self.now = value

    def rotate(self) -> None:
        self.now, self.before = 0, self.now


class _Group:
    """Streams that are siblings; ``ticks`` counts arrivals of all of them."""

    def __init__(self) -> None:
        self.ticks = 0
        self.streams: list[_Stream] = []


@dataclass(slots=True, eq=False)
class _Stream:
    """What is known of one stream.

    ``first``: when it became known; ``since``: its silence counts from here; ``heard``: the last arrival, 0 if none;
    ``mark``: ticks of its siblings at that time; ``spoke``: whether it did after it was called stale.
    """

    instrument: str
    channel: str
    group: _Group
    first: int
    since: int
    mark: int = 0
    state: StreamState = "learning"
    heard: int = 0
    spoke: bool = False
    down: bool = False
    gaps: int = 0
    block: int = 0
    block_start: int = 0
    time: _Longest = field(default_factory=_Longest)
    ticks: _Longest = field(default_factory=_Longest)
    stale_at: int = 0
    retries: int = 0
    retry_at: int = 0

    @property
    def limit(self) -> int:
        """Silence (ns) above which the stream is suspicious."""
        return max(FLOOR, FACTOR * self.time.value)

    @property
    def learned(self) -> bool:
        return self.gaps >= LEARN_GAPS and self.since - self.first >= LEARN_TIME

    def learn(self, gap: int, ticks: int, ts: int) -> None:
        """Take in one gap: its length and what the siblings did meanwhile."""
        if self.state == "stale":  # an outage is not usual; but what comes back slower must be learned
            gap = min(gap, 2 * max(self.time.value, FLOOR // FACTOR))
            ticks = min(ticks, 2 * max(self.ticks.value, LEAST_TICKS))
        self.time.add(gap)
        self.ticks.add(ticks)
        self.gaps += 1
        self.block += 1
        if self.block >= BLOCK_GAPS and ts - self.block_start >= BLOCK_TIME:
            self.time.rotate()
            self.ticks.rotate()
            self.block, self.block_start = 0, ts


class Watchdog:
    """Watches the streams of ``source``. Pure: it knows only the times (UTC ns) it is given."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._all = _Group()
        self._groups: dict[str, _Group] = {}
        self._streams: dict[tuple[str, str], _Stream] = {}

    def expect(self, instrument: str, channel: str, ts: int) -> None:
        """A stream was subscribed to."""
        if (instrument, channel) not in self._streams:
            self._add(instrument, channel, ts)

    def forget(self, instrument: str, channel: str) -> None:
        """A stream was unsubscribed from."""
        stream = self._streams.pop((instrument, channel), None)
        if stream is not None:
            self._all.streams.remove(stream)
            stream.group.streams.remove(stream)
            for each in stream.group.streams if len(stream.group.streams) == 1 else ():
                each.ticks, each.mark = _Longest(), self._all.ticks

    def saw(self, instrument: str, channel: str, ts: int) -> None:
        """Data arrived at ``ts``; to be called once per batch. An unexpected stream is watched from now on."""
        stream = self._streams.get((instrument, channel)) or self._add(instrument, channel, ts)
        siblings = self._siblings(stream)
        if stream.heard and ts >= stream.since and not stream.down:
            stream.learn(ts - stream.since, siblings.ticks - stream.mark, ts)
        stream.group.ticks += 1
        self._all.ticks += 1
        stream.heard = max(stream.heard, ts)
        stream.since = max(stream.since, ts)
        stream.mark = siblings.ticks
        stream.spoke = True
        stream.down = False

    def linked(self, up: bool, ts: int, streams: Iterable[tuple[str, str]] | None = None) -> None:
        """The connection that carries ``streams`` (None: all) came or went.

        Without one nothing is judged, its loss being known already; with a new one silence counts from now.
        """
        for key in self._streams if streams is None else streams:
            stream = self._streams.get(key)
            if stream is None:
                continue
            if up and stream.down:
                stream.since = max(stream.since, ts)
                stream.mark = self._siblings(stream).ticks
            stream.down = not up

    def check(self, now: int) -> Findings:
        """What has changed by ``now``; to be called about once a second."""
        findings = Findings([], [])
        for stream in self._streams.values():
            if stream.down:
                continue
            state = self._judged(stream, now)
            if state != stream.state:
                self._change(stream, state, now)
                findings.changes.append(self._told(stream, now))
            if self._due(stream, now) and len(findings.resubscribe) < RETRIES_PER_CHECK:
                self._put_off(stream, now)
                findings.resubscribe.append((stream.instrument, stream.channel))
        return findings

    def streams(self, now: int) -> Iterator[StreamHealth]:
        """Every stream as the last check left it, with its age at ``now``."""
        return (self._told(stream, now) for stream in self._streams.values())

    def _add(self, instrument: str, channel: str, ts: int) -> _Stream:
        group = self._groups.setdefault(instrument, _Group())
        stream = self._streams[instrument, channel] = _Stream(instrument, channel, group, ts, ts, block_start=ts)
        for each in group.streams if len(group.streams) == 1 else ():
            each.ticks, each.mark = _Longest(), group.ticks  # from now on measured by its own siblings
        group.streams.append(stream)
        self._all.streams.append(stream)
        stream.mark = self._siblings(stream).ticks
        return stream

    def _siblings(self, stream: _Stream) -> _Group:
        """The other channels of its instrument; without any, all other streams of the source."""
        return stream.group if len(stream.group.streams) > 1 else self._all

    def _judged(self, stream: _Stream, now: int) -> StreamState:
        silent = now - stream.since
        missed = self._siblings(stream).ticks - stream.mark
        if stream.state == "stale" and not stream.spoke:
            return "stale"
        if not stream.learned:
            mute = not stream.heard and silent > MUTE_TIME and missed > MUTE_TICKS
            return "late" if mute else "learning"
        if silent <= stream.limit:
            return "fresh"
        others_went_on = missed > FACTOR * max(stream.ticks.value, LEAST_TICKS)
        if others_went_on or silent > PATIENCE * stream.limit or not self._flows(stream, now):
            return "stale"
        return "late"

    def _flows(self, stream: _Stream, now: int) -> bool:
        """Whether any sibling of ``stream`` delivers as it is used to."""
        return any(
            now - each.since <= each.limit
            for each in self._siblings(stream).streams
            if each is not stream and each.heard and not each.down
        )

    def _change(self, stream: _Stream, state: StreamState, now: int) -> None:
        stream.state = state
        if state == "stale":
            stream.stale_at, stream.spoke = now, False

    def _due(self, stream: _Stream, now: int) -> bool:
        wanting = stream.state == "stale" or (stream.state == "late" and not stream.heard)
        return wanting and now >= stream.retry_at

    def _put_off(self, stream: _Stream, now: int) -> None:
        """Set when the stream may be subscribed to anew the next time."""
        if stream.stale_at > stream.retry_at:  # it had been well for as long as the last wait asked
            stream.retries = 0
        wait = max(RETRY_FIRST, stream.limit) << min(stream.retries, 16)
        stream.retries += 1
        stream.retry_at = now + min(RETRY_CAP, wait)

    def _told(self, stream: _Stream, now: int) -> StreamHealth:
        usual = stream.time.value / SECOND if stream.heard else 0.0
        age = (now - (stream.heard or stream.first)) / SECOND
        return StreamHealth(self._source, stream.instrument, stream.channel, stream.state, now, age, usual)
