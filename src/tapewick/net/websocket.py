"""One WebSocket feed that survives: it reconnects, answers pings, notices silence and renews itself.

A ``Feed`` runs until cancelled. It puts wake-ups of raw frames and its own changes of state
into an ``Inbox``, in the order they happened, and never waits for whoever reads them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from picows import WSError, WSFrame, WSInvalidStatusError, WSListener, WSMsgType, WSTransport, ws_connect
from python_socks import ProxyError

from tapewick.clock import Clock, RealClock
from tapewick.errors import Disconnected, SourceError, VenueRefused
from tapewick.net.address import proxy_for, shown
from tapewick.net.backoff import Backoff, limiter_for
from tapewick.net.http import waiting_time
from tapewick.net.inbox import FRAME_OVERHEAD, Inbox, Wakeup

__all__ = ["Feed", "LinkChange"]

FRAME_CAP = 1 << 20
STABLE = 30.0  # a connection that lived so long starts the back-off anew
SENDS_PER_SECOND = 3  # the venue closes at 5 incoming messages per second, pongs included

# Every failure reaches the consumer as a LinkChange; the library's own log lines would repeat it.
_quiet = logging.getLogger("tapewick.picows")
_quiet.setLevel(logging.CRITICAL + 1)


class LinkChange(NamedTuple):
    """A feed's connection came or went; ``status`` is the HTTP status of a refusal, else 0."""

    feed: Feed
    state: Literal["connected", "disconnected", "refused"]
    detail: str
    status: int
    ts: int


class _Link(WSListener):
    """One connection, from its upgrade to its end; hands what it hears to the feed."""

    def __init__(self, feed: Feed, *, successor: bool) -> None:
        self._feed = feed
        self._successor = successor
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._size = 0
        self._recv = 0
        self._parts: list[bytes] = []
        self.transport: WSTransport | None = None
        self.abandoned = False
        self.greeting: asyncio.Task[None] | None = None
        self.heard = self._loop.time()
        self.closed = asyncio.Event()
        self.spoke = asyncio.Event()
        self.cause = "closed by the venue"

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if self.abandoned:  # who waited for the handshake was cancelled meanwhile
            transport.disconnect(graceful=False)
        elif not self._successor:
            self._feed.report("connected", self._feed.host)  # ahead of the first frame, which may be here already

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.heard = self._loop.time()
        kind = frame.msg_type
        if frame.payload_size > FRAME_CAP:
            self._oversize()
        elif frame.fin and (kind == WSMsgType.TEXT or kind == WSMsgType.BINARY):
            self._take(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            if not self.abandoned:  # else the venue only answers an end that was ours
                self.cause = f"closed by the venue with code {frame.get_close_code():d}"
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind != WSMsgType.PONG:
            self._fragment(frame)
        if frame.last_in_buffer and self._frames:
            self._flush()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._frames:
            self._flush()
        if self.greeting is not None:
            self.greeting.cancel()
        self.closed.set()

    def close(self, *, at_once: bool = False) -> None:
        """End the connection: with a close frame, or without waiting for the peer."""
        self.abandoned = True
        if self.transport is not None and not self.transport.is_disconnected:
            if not at_once:
                self.transport.send_close()
            self.transport.disconnect(graceful=not at_once)

    async def finish(self) -> str:
        """Wait for the end; what brought it about."""
        await self.closed.wait()
        if self.transport is not None:
            try:
                await self.transport.wait_disconnected()
            except WSError as error:
                if "max allowed size" in str(error):
                    self._oversize()
                else:
                    self.cause = f"protocol error: {error}"
            except OSError as error:
                self.cause = str(error)
        return self.cause

    def _take(self, payload: bytes) -> None:
        if not self._frames:
            self._recv = self._feed.clock.now()
        self._frames.append(payload)
        self._size += len(payload) + FRAME_OVERHEAD

    def _fragment(self, frame: WSFrame) -> None:
        self._parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self._parts)) > FRAME_CAP:
            self._oversize()
        elif frame.fin:
            self._take(b"".join(self._parts))
            self._parts.clear()

    def _oversize(self) -> None:
        self._parts.clear()
        if not self.cause.startswith("a frame"):
            self.cause = f"a frame larger than {FRAME_CAP} bytes"
            self._feed.oversize += 1
        self.close(at_once=True)

    def _flush(self) -> None:
        self._feed.inbox.offer(Wakeup(self._feed, self._frames, self._recv, self._size))
        self._frames, self._size = [], 0
        self.spoke.set()


class Feed:
    """A connection to the first of ``urls`` that works, kept up until ``run`` is cancelled.

    ``greeting``: messages sent after each connect, paced. ``idle``: seconds without any frame
    or ping after which the peer counts as dead. ``lifetime``: seconds after which, and on
    ``renew()``, a second connection is opened, overlaps, and replaces the first.
    """

    def __init__(
        self,
        urls: Sequence[str],
        inbox: Inbox[Any],
        *,
        greeting: Sequence[bytes] = (),
        clock: Clock | None = None,
        idle: float = 60.0,
        lifetime: float = 23.5 * 3600,
        overlap: float = 5.0,
        timeout: float = 10.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.inbox = inbox
        self.clock = clock or RealClock()
        self.oversize = 0
        self.connects = 0
        self._urls = urls
        self._current = 0
        self._greeting = greeting
        self._idle = idle
        # Feeds that start together must not all renew together.
        self._lifetime = lifetime * (1.0 - 0.1 * random.random())
        self._overlap = overlap
        self._timeout = timeout
        self._backoff = backoff or Backoff()
        self._renewal = asyncio.Event()
        self._standby: _Link | None = None
        self._reported: tuple[str, str] = ("", "")

    @property
    def host(self) -> str:
        """Scheme, host and port now in use."""
        return shown(self._urls[self._current])

    def take_oversize(self) -> int:
        """Frames refused for their size since the last call."""
        count, self.oversize = self.oversize, 0
        return count

    def renew(self) -> None:
        """Replace the connection by a new one without a pause: the venue announced its end."""
        self._renewal.set()

    async def run(self) -> None:
        """Stay connected. Ends only by cancellation."""
        loop = asyncio.get_running_loop()
        while True:
            link = await self._connected()
            since = loop.time()
            cause = await self._serve(link)
            self.report("disconnected", f"{self.host}: {cause}")
            if loop.time() - since >= STABLE:
                self._backoff.reset()
            await self.clock.sleep(self._backoff.delay())

    async def _connected(self) -> _Link:
        """A new connection, however long it takes."""
        while True:
            try:
                link = await self._open()
            except SourceError as error:
                refused = isinstance(error, VenueRefused)
                self.report("refused" if refused else "disconnected", str(error), getattr(error, "status", 0))
                self._current = (self._current + 1) % len(self._urls)
                await self.clock.sleep(self._backoff.delay(getattr(error, "retry_after", None)))
            else:
                return link

    async def _open(self, *, successor: bool = False) -> _Link:
        """One attempt. Raises ``VenueRefused`` or ``Disconnected``."""
        url = self._urls[self._current]
        await limiter_for(urlsplit(url).netloc).take(self.clock)
        link = _Link(self, successor=successor)
        try:
            async with asyncio.timeout(self._timeout):
                await ws_connect(
                    lambda request, response: link,
                    url,
                    ssl_context=ssl.create_default_context() if url.startswith("wss") else None,
                    websocket_handshake_timeout=self._timeout,
                    enable_auto_pong=False,  # pings must reach on_ws_frame: they are signs of life
                    max_frame_size=FRAME_CAP,
                    max_redirects=0,
                    proxy=proxy_for(url),
                    logger_name=_quiet,
                    extra_headers={"User-Agent": "tapewick"},
                )
        except WSInvalidStatusError as error:
            raise _refusal(url, error) from error
        except TimeoutError as error:
            raise Disconnected(f"{shown(url)} did not answer within {self._timeout:g} s") from error
        except (WSError, OSError, ProxyError) as error:
            raise Disconnected(f"{shown(url)} cannot be reached: {str(error) or type(error).__name__}") from error
        except asyncio.CancelledError:
            link.close(at_once=True)
            raise
        if link.transport is None:
            raise Disconnected(f"{shown(url)} closed the connection during the handshake")
        self.connects += 1
        link.greeting = asyncio.create_task(self._greet(link))
        return link

    async def _serve(self, link: _Link) -> str:
        """Stay with ``link`` and its replacements; what ended the last one."""
        while True:
            end = asyncio.create_task(self._watch(link))
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

    async def _watch(self, link: _Link) -> str:
        """Wait for the end of ``link``, ending it after ``idle`` seconds of silence."""
        loop = asyncio.get_running_loop()
        while (quiet := link.heard + self._idle - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(quiet):
                    return await link.finish()
        link.cause = f"silent for {self._idle:g} s, neither a frame nor a ping"
        link.close(at_once=True)
        return await link.finish()

    async def _greet(self, link: _Link) -> None:
        for number, message in enumerate(self._greeting):
            if number:
                await asyncio.sleep(1 / SENDS_PER_SECOND)
            if link.transport is not None and not link.transport.is_disconnected:
                link.transport.send(WSMsgType.TEXT, message)

    async def _replacement(self) -> None:
        """When it is time, open a second connection and let both run until the new one speaks."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lifetime):
                await self._renewal.wait()
        self._renewal.clear()
        backoff = Backoff()
        while self._standby is None:
            try:
                link = await self._open(successor=True)
            except SourceError as error:
                await self.clock.sleep(backoff.delay(getattr(error, "retry_after", None)))
            else:
                self._standby = link
        with suppress(TimeoutError):
            async with asyncio.timeout(self._overlap):
                await self._standby.spoke.wait()
        await asyncio.sleep(min(1.0, self._overlap))

    def report(self, state: Literal["connected", "disconnected", "refused"], detail: str, status: int = 0) -> None:
        """Tell the consumer, unless the same was said last."""
        if (state, detail) != self._reported:
            self._reported = (state, detail)
            self.inbox.put(LinkChange(self, state, detail, status, self.clock.now()))


def _refusal(url: str, error: WSInvalidStatusError) -> VenueRefused:
    response = error.response
    assert response is not None  # this kind of error always carries it
    status = int(response.status)
    return VenueRefused(
        f"{shown(url)} refused the stream with HTTP {status}",
        status=status,
        retry_after=waiting_time(status, response.headers.get("Retry-After")),
    )


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel ``tasks`` and wait until they have ended; an error of one is raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
