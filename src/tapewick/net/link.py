"""One WebSocket connection, from its upgrade to its end: frames, pings, silence, the size cap."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from picows import WSError, WSFrame, WSInvalidStatusError, WSListener, WSMsgType, WSTransport, ws_connect
from python_socks import ProxyError

from tapewick.clock import Clock
from tapewick.errors import Disconnected, VenueRefused
from tapewick.net.address import proxy_for, shown
from tapewick.net.backoff import limiter_for
from tapewick.net.control import Control
from tapewick.net.http import waiting_time
from tapewick.net.inbox import FRAME_OVERHEAD

__all__ = ["Link", "Owner", "connect"]

FRAME_CAP = 1 << 20
FIRST_PING = 1.0  # seconds: does the peer answer any? Not at once, when streams are subscribed to
SUSPICIOUS = 5.0  # seconds of silence after which a peer is pinged, and again after which it must have answered

# Every failure reaches the consumer of the feed; the library's own log lines would repeat it.
_quiet = logging.getLogger("tapewick.picows")
_quiet.setLevel(logging.CRITICAL + 1)

TEXT, BINARY = WSMsgType.TEXT, WSMsgType.BINARY  # looked up once: thousands of frames come each second


class Owner(Protocol):
    """Who a connection tells what it hears."""

    clock: Clock

    def arrived(self, link: Link) -> None:
        """The handshake is done; frames may follow at once."""
        ...

    def deliver(self, link: Link, frames: list[bytes], recv: int, size: int) -> None:
        """The frames of one wake-up. Must not wait."""
        ...

    def ended(self, link: Link) -> None:
        """It delivers no more."""
        ...

    def oversized(self) -> None:
        """A frame above the cap costs this connection."""
        ...


class Link(WSListener):
    """``number``: which connection of its feed it is. ``successor``: it replaces one that still runs."""

    def __init__(self, owner: Owner, control: Control, *, number: int, successor: bool) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._size = 0
        self._recv = 0
        self._parts: list[bytes] = []
        self._talk: asyncio.Task[None] | None = None
        self._transport: WSTransport | None = None
        self._heard = self._since = self._loop.time()
        self._pinged: float | None = None
        self._closed = asyncio.Event()
        self._answers = False
        self._abandoned = False
        self.control = control
        self.number = number
        self.successor = successor
        self.spoke = asyncio.Event()
        self.cause = "closed by the venue"

    @property
    def connected(self) -> bool:
        """Whether the handshake came to its end."""
        return self._transport is not None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._closed.is_set()

    def talk(self, greeting: Sequence[bytes]) -> None:
        """Begin to send ``greeting`` and control messages."""
        self._talk = asyncio.create_task(self.control.run(self._send, greeting))

    def close(self, *, at_once: bool = False) -> None:
        """End the connection: with a close frame, or without waiting for the peer."""
        self._abandoned = True
        if self._transport is not None and not self._transport.is_disconnected:
            if not at_once:
                self._transport.send_close()
            self._transport.disconnect(graceful=not at_once)

    async def watch(self, idle: float) -> str:
        """Wait for the end, bringing it about after ``idle`` seconds of silence; what the cause was.

        A peer that has answered a ping before is dead sooner: when it leaves one unanswered for ``SUSPICIOUS`` seconds.
        """
        while True:
            deadline, ask = self._due(idle)
            if (rest := deadline - self._loop.time()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        return await self._finish()
            elif ask:
                self._ping()
            else:
                break
        self.cause = f"silent for {self._loop.time() - self._heard:.1f} s, neither a frame nor a ping"
        self.close(at_once=True)
        return await self._finish()

    def _due(self, idle: float) -> tuple[float, bool]:
        """When something is due by what is known now, and whether that is a ping: else the peer is dead then."""
        end = self._heard + idle
        if self._pinged is None:
            ping, ask = self._since + FIRST_PING, True
        elif not self._answers:
            return min(end, self._loop.time() + SUSPICIOUS), False  # it may answer yet
        elif self._heard >= self._pinged:
            ping, ask = self._heard + SUSPICIOUS, True
        else:
            ping, ask = self._pinged + SUSPICIOUS, False
        return (ping, ask) if ping < end else (end, False)

    def _ping(self) -> None:
        self._pinged = self._loop.time()
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_ping(b"")
            self.control.count_pong()

    async def carries(self, wait: float) -> None:
        """Wait until everything wanted has been subscribed to and data flow, ``wait`` seconds for each."""
        for event in (self.control.settled, self.spoke):
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await event.wait()

    # What the library calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        if self._abandoned:  # who waited for the handshake was cancelled meanwhile
            transport.disconnect(graceful=False)
        else:
            self._owner.arrived(self)  # ahead of the first frame, which may be here already

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if not self._frames:  # the others of this wake-up came with it
            self._heard = self._loop.time()
        kind = frame.msg_type
        if frame.payload_size > FRAME_CAP:
            self._oversize()
        elif frame.fin and (kind is TEXT or kind is BINARY):  # comparing them costs as much as all else here
            self._take(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self.control.count_pong()
        elif kind == WSMsgType.CLOSE:
            if not self._abandoned:  # else the venue only answers an end that was ours
                self.cause = f"closed by the venue with code {frame.get_close_code():d}"
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind == WSMsgType.PONG:
            self._answers = True
        else:
            self._fragment(frame)
        if frame.last_in_buffer and self._frames:
            self._flush()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._frames:
            self._flush()
        if self._talk is not None:
            self._talk.cancel()
        self._owner.ended(self)
        self._closed.set()

    # The inside.

    async def _finish(self) -> str:
        await self._closed.wait()
        if self._transport is not None:
            try:
                await self._transport.wait_disconnected()
            except WSError as error:
                if "max allowed size" in str(error):
                    self._oversize()
                else:
                    self.cause = f"protocol error: {error}"
            except OSError as error:
                self.cause = str(error)
        return self.cause

    def _send(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send(WSMsgType.TEXT, message)

    def _take(self, payload: bytes) -> None:
        if not self._frames:
            self._recv = self._owner.clock.now()
        self._frames.append(payload)
        self._size += len(payload) + FRAME_OVERHEAD
        if self.control.pending:
            self.control.heard(payload)

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
            self._owner.oversized()
        self.close(at_once=True)

    def _flush(self) -> None:
        self._owner.deliver(self, self._frames, self._recv, self._size)
        self._frames, self._size = [], 0
        self.spoke.set()


async def connect(url: str, link: Link, *, clock: Clock, within: float) -> None:
    """One attempt to open ``link`` to ``url`` within seconds. Raises ``VenueRefused`` or ``Disconnected``."""
    await limiter_for(urlsplit(url).netloc).take(clock)
    try:
        async with asyncio.timeout(within):
            await ws_connect(
                lambda request, response: link,
                url,
                ssl_context=ssl.create_default_context() if url.startswith("wss") else None,
                websocket_handshake_timeout=within,
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
        raise Disconnected(f"{shown(url)} did not answer within {within:g} s") from error
    except (WSError, OSError, ProxyError) as error:
        raise Disconnected(f"{shown(url)} cannot be reached: {str(error) or type(error).__name__}") from error
    except asyncio.CancelledError:
        link.close(at_once=True)
        raise
    if not link.connected:
        raise Disconnected(f"{shown(url)} closed the connection during the handshake")


def _refusal(url: str, error: WSInvalidStatusError) -> VenueRefused:
    response = error.response
    assert response is not None  # this kind of error always carries it
    status = int(response.status)
    return VenueRefused(
        f"{shown(url)} refused the stream with HTTP {status}",
        status=status,
        retry_after=waiting_time(status, response.headers.get("Retry-After")),
    )
