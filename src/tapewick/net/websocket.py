"""One WebSocket feed that survives: it reconnects, notices silence, renews itself and changes its streams.

A ``Feed`` runs until cancelled. It puts wake-ups of raw frames and its own changes of state
into an ``Inbox``, in the order they happened, and never waits for whoever reads them.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from tapewick.clock import Clock, RealClock
from tapewick.errors import ConfigError, SourceError, VenueRefused
from tapewick.net.address import shown
from tapewick.net.backoff import Backoff
from tapewick.net.control import STREAMS_PER_MESSAGE, Control
from tapewick.net.inbox import Inbox, Wakeup
from tapewick.net.link import Link, connect

__all__ = ["Feed", "LinkChange", "LinkEnded", "StreamsBegun", "StreamsRefused"]

STABLE = 30 * 10**9  # ns: a connection that lived so long starts the back-off anew
MAX_STREAMS = 1024  # the venue's limit per connection

FeedState: TypeAlias = Literal["connected", "disconnected", "refused"]


class LinkChange(NamedTuple):
    """A feed's connection came or went; ``status`` is the HTTP status of a refusal, else 0."""

    feed: Feed
    state: FeedState
    detail: str
    status: int
    ts: int


class LinkEnded(NamedTuple):
    """Connection number ``link`` delivers no more; its frames are all in front of this."""

    feed: Feed
    link: int
    ts: int


class StreamsBegun(NamedTuple):
    """``streams`` are delivered from here on, perhaps again: no connection of the feed carried them just before."""

    feed: Feed
    streams: tuple[str, ...]
    ts: int


class StreamsRefused(NamedTuple):
    """The venue refused, or did not acknowledge, the subscription of ``streams``; the connection goes on."""

    feed: Feed
    streams: tuple[str, ...]
    detail: str
    ts: int


class Feed:
    """A connection to the first of ``urls`` that works, kept up until ``run`` is cancelled.

    ``streams``: what it carries, as of now; ``subscribe`` and its siblings change it at run time. The first hundred
    are named in the URL as ``streams=a/b``, others by control messages. ``greeting``: messages sent after each connect.
    ``tap`` is given every ``Wakeup`` before it is queued, also one the inbox then drops; it neither waits nor raises.
    ``redundant``: two connections deliver everything twice; they differ by ``Wakeup.link``, which also tells
    a renewed connection from the one it replaces. ``tell_links``: the end of each is put in line as ``LinkEnded``, and
    what streams begin as ``StreamsBegun``.
    ``idle``: seconds without any frame or ping after which the peer counts as dead; one that answers pings does after
    ten, with one unanswered. ``lifetime``: seconds after which, and on ``renew()``, a second connection is opened,
    overlaps, and replaces the first.
    """

    def __init__(
        self,
        urls: Sequence[str],
        inbox: Inbox[Any],
        *,
        streams: Iterable[str] = (),
        greeting: Sequence[bytes] = (),
        tap: Callable[[Wakeup], None] | None = None,
        redundant: bool = False,
        tell_links: bool = False,
        clock: Clock | None = None,
        idle: float = 60.0,
        lifetime: float = 23.5 * 3600,
        overlap: float = 5.0,
        timeout: float = 10.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.inbox = inbox
        self.clock = clock or RealClock()
        self.tap = tap
        self.oversize = 0
        self.connects = 0
        self.urls = urls
        self.greeting = greeting
        self.idle = idle
        self.lifetime = lifetime
        self.overlap = overlap
        self.timeout = timeout
        self.wanted: dict[str, None] = {}
        self._tell_links = tell_links
        first = backoff or Backoff()
        self._lanes = [_Lane(self, 0, first), _Lane(self, 1, first.twin())] if redundant else [_Lane(self, 0, first)]
        self._open: set[Link] = set()
        self._up: set[_Lane] = set()
        self._reported: tuple[str, str] = ("", "")
        self.subscribe(streams)

    @property
    def host(self) -> str:
        """Scheme, host and port now in use."""
        return self._lanes[0].host

    @property
    def streams(self) -> tuple[str, ...]:
        """What the feed shall carry now."""
        return tuple(self.wanted)

    def subscribe(self, streams: Iterable[str]) -> None:
        """Carry ``streams`` too, also after reconnects. Raises ``ConfigError`` above 1024 in all."""
        merged = self.wanted | dict.fromkeys(streams)
        if len(merged) > MAX_STREAMS:
            raise ConfigError(f"{len(merged)} streams are too many for one connection: open a feed per {MAX_STREAMS}")
        self.wanted.update(merged)
        self._nudge()

    def unsubscribe(self, streams: Iterable[str]) -> None:
        """Carry ``streams`` no longer."""
        for stream in streams:
            self.wanted.pop(stream, None)
        self._nudge()

    def resubscribe(self, streams: Iterable[str]) -> None:
        """Unsubscribe ``streams`` and subscribe them again: they went silent while others flow."""
        wanted = [stream for stream in streams if stream in self.wanted]
        for link in self._open:
            link.control.force(wanted)

    def take_oversize(self) -> int:
        """Frames refused for their size since the last call."""
        count, self.oversize = self.oversize, 0
        return count

    def renew(self) -> None:
        """Replace each connection by a new one without a pause: the venue announced its end."""
        for lane in self._lanes:
            lane.renewal.set()

    async def run(self) -> None:
        """Stay connected. Ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run())

    def _nudge(self) -> None:
        for link in self._open:
            link.control.nudge()

    # What connections tell.

    def new_link(self, lane: _Lane, has: Iterable[str], *, successor: bool) -> Link:
        """A connection of ``lane`` about to be opened."""
        number, self.connects = self.connects, self.connects + 1
        control = Control(self.wanted, has, self._refused, lambda streams: self.begun(control, streams))
        return Link(lane, control, number=number, successor=successor)

    def opened(self, link: Link) -> None:
        """``link`` may be talked to, unless it has ended already."""
        if not link.over:
            self._open.add(link)
            link.talk(self.greeting)

    def ended(self, link: Link) -> None:
        """``link`` delivers no more."""
        self._open.discard(link)
        if self._tell_links:
            self.inbox.put(LinkEnded(self, link.number, self.clock.now()))

    def arrived(self, lane: _Lane) -> None:
        """``lane`` has a connection."""
        self._up.add(lane)
        self._report("connected", lane.host, 0)

    def begun(self, control: Control, streams: Iterable[str]) -> None:
        """The connection of ``control`` carries ``streams`` now; told of those that no other one carries."""
        if not self._tell_links:
            return
        others = [link.control.carried for link in self._open if link.control is not control]
        fresh = tuple(stream for stream in streams if not any(stream in carried for carried in others))
        if fresh:
            self.inbox.put(StreamsBegun(self, fresh, self.clock.now()))

    def failed(self, lane: _Lane, state: FeedState, detail: str, status: int = 0) -> None:
        """``lane`` has none, or could not get one; with another up the feed still is connected."""
        self._up.discard(lane)
        if self._up:
            state, detail = "connected", f"{len(self._up)} of {len(self._lanes)} connections: {detail}"
        self._report(state, detail, status)

    def _report(self, state: FeedState, detail: str, status: int) -> None:
        """Tell the consumer, unless the same was said last."""
        if (state, detail) != self._reported:
            self._reported = (state, detail)
            self.inbox.put(LinkChange(self, state, detail, status, self.clock.now()))

    def _refused(self, streams: Sequence[str], detail: str) -> None:
        self.inbox.put(StreamsRefused(self, tuple(streams), detail, self.clock.now()))


class _Lane:
    """One of the connections a feed keeps up, with the successor that overlaps it during renewal."""

    def __init__(self, feed: Feed, number: int, backoff: Backoff) -> None:
        self._feed = feed
        # A second connection prefers a second address: what breaks one often spares the other.
        self._current = number % len(feed.urls)
        self._backoff = backoff
        # Feeds that start together must not all renew together.
        self._lifetime = feed.lifetime * (1.0 - 0.1 * random.random())
        self._standby: Link | None = None
        self.clock = feed.clock
        self.renewal = asyncio.Event()

    @property
    def host(self) -> str:
        """Scheme, host and port now in use."""
        return shown(self._feed.urls[self._current])

    # What connections tell.

    def arrived(self, link: Link) -> None:
        if not link.successor:
            self._feed.arrived(self)
        self._feed.begun(link.control, link.control.carried)

    def deliver(self, link: Link, frames: list[bytes], recv: int, size: int) -> None:
        wakeup = Wakeup(self._feed, frames, recv, size, link.number)
        if self._feed.tap is not None:
            self._feed.tap(wakeup)
        self._feed.inbox.offer(wakeup)

    def ended(self, link: Link) -> None:
        self._feed.ended(link)

    def oversized(self) -> None:
        self._feed.oversize += 1

    # How a connection is kept up.

    async def run(self) -> None:
        """Stay connected. Ends only by cancellation."""
        while True:
            link = await self._connected()
            since = self.clock.now()
            cause = await self._serve(link)
            self._feed.failed(self, "disconnected", f"{self.host}: {cause}")
            if self.clock.now() - since >= STABLE:
                self._backoff.reset()
            await self.clock.sleep(self._backoff.delay())

    async def _connected(self) -> Link:
        """A new connection, however long it takes."""
        while True:
            try:
                return await self._open()
            except SourceError as error:
                state: FeedState = "refused" if isinstance(error, VenueRefused) else "disconnected"
                self._feed.failed(self, state, str(error), getattr(error, "status", 0))
                self._current = (self._current + 1) % len(self._feed.urls)
                await self.clock.sleep(self._backoff.delay(getattr(error, "retry_after", None)))

    async def _open(self, *, successor: bool = False) -> Link:
        """One attempt. Raises ``VenueRefused`` or ``Disconnected``."""
        head = list(itertools.islice(self._feed.wanted, STREAMS_PER_MESSAGE))
        link = self._feed.new_link(self, head, successor=successor)
        url = _with_streams(self._feed.urls[self._current], head)
        await connect(url, link, clock=self.clock, within=self._feed.timeout)
        self._feed.opened(link)
        return link

    async def _serve(self, link: Link) -> str:
        """Stay with ``link`` and its replacements; what ended the last one."""
        while True:
            end = asyncio.create_task(link.watch(self._feed.idle))
            renewal = asyncio.create_task(self._replacement())
            try:
                await asyncio.wait({end, renewal}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                for each in (link, self._standby):
                    if each is not None:
                        each.close(at_once=True)
                raise
            finally:
                await _cancelled(end, renewal)
            successor, self._standby = self._standby, None
            if successor is None:
                return end.result()
            link.close()
            link = successor

    async def _replacement(self) -> None:
        """When it is time, open a second connection and let both run until the new one carries all streams."""
        called, over = asyncio.create_task(self.renewal.wait()), asyncio.create_task(self._lived())
        try:
            await asyncio.wait({called, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(called, over)
        self.renewal.clear()
        backoff = Backoff()
        while self._standby is None:
            try:
                link = await self._open(successor=True)
            except SourceError as error:
                await self.clock.sleep(backoff.delay(getattr(error, "retry_after", None)))
            else:
                self._standby = link
        await self._standby.carries(self._feed.overlap)
        await asyncio.sleep(min(1.0, self._feed.overlap))

    async def _lived(self) -> None:
        """Until the connection is as old as it may get, by the clock the venue cuts by."""
        await self.clock.sleep(self._lifetime)


def _with_streams(url: str, streams: Sequence[str]) -> str:
    if not streams:
        return url
    return f"{url}{'&' if '?' in url else '?'}streams={'/'.join(quote(stream, safe='@!') for stream in streams)}"


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel ``tasks`` and wait until they have ended; an error of one is raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
