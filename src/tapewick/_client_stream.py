"""Channels of a server as one endless, exact sequence: history, then live, across every reconnect.

Exact means: each trade once and in order, each version of a candle at most once, or a ``StreamGap`` that says where
that is impossible. Nothing is read from the socket faster than the reader takes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

import msgspec

from tapewick._client_follow import Followed, Hole
from tapewick._client_frames import Frame, Item, Notice, Rows, Skip, frames
from tapewick._client_link import Link
from tapewick._client_rest import Rest
from tapewick.errors import (
    BadPayload,
    BadRequest,
    Disconnected,
    NotFound,
    SourceError,
    TapewickError,
    TooManyRequests,
    Unauthorized,
    VenueRefused,
)
from tapewick.net.backoff import Backoff

__all__ = ["Stream"]

IDLE = 45.0  # seconds without a frame or ping after which a connection is dead; the server pings every 20
RETRY_CAP = 5.0  # seconds between attempts to reach a server that went away
AT_ONCE = 100  # channels in one message
TERMINAL = {1003, 1007, 1008, 1009}


class _Page(msgspec.Struct):
    position: str
    next: str | None = None
    candles: list[msgspec.Raw] = []
    trades: list[msgspec.Raw] = []


class Stream:
    """``async for item in stream``: ``Rows``, ``StreamGap``, ``Skip`` and ``Notice``, in the order they happened.

    ``positions`` holds, by channel, the token behind the last item handed out: pass it as ``since`` to go on there in
    another process. Close it, or use it as a context. Raises ``SourceError`` if the server cannot be reached at first
    (later it is tried again, at most 5 s apart), ``NotFound``, ``BadRequest`` or ``Unauthorized`` when it refuses.
    Cancelling a wait for the next item loses nothing.
    """

    def __init__(self, dial: Callable[[], Awaitable[Link]], rest: Rest, channels: Sequence[Followed]) -> None:
        self._dial, self._rest = dial, rest
        self._channels = {channel.name: channel for channel in channels}
        self._items: deque[Item] = deque()
        self._link: Link | None = None
        self._backoff = Backoff(base=0.1, cap=RETRY_CAP)
        self._due = 0.0  # of the loop's time, when to try again
        self._met = self._closed = False
        self._trouble = ""
        self._error: TapewickError | None = None
        self.positions: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            await self._step()
        item = self._items.popleft()
        if isinstance(item, Rows | Skip) and item.position:
            self.positions[item.channel] = item.position
        return item

    def close(self) -> None:
        """End the connection; iteration ends after the items that have come."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    # -- how it goes on ----------------------------------------------------------------------

    async def _step(self) -> None:
        """Wait for whatever comes next."""
        opening = next((channel for channel in self._channels.values() if channel.opening is not None), None)
        if opening is not None:
            await self._read_page(opening)
        elif self._link is None:
            await self._connect()
        else:
            texts = await self._link.receive(IDLE)
            if texts:
                self._take(texts)
            else:
                self._ended(self._link)

    async def _read_page(self, channel: Followed) -> None:
        assert channel.opening is not None
        await self._wait()
        try:
            page = await self._rest.get(channel.opening, _Page)
        except (Disconnected, VenueRefused, TooManyRequests) as error:
            self._failed(error)
            return
        self._met = True
        self._backoff.reset()
        rows = channel.history(page.trades or page.candles, page.position, page.next)
        if rows.raw or rows.position:
            self._items.append(rows)

    async def _connect(self) -> None:
        await self._wait()
        try:
            self._link = await self._dial()
        except (Disconnected, VenueRefused, TooManyRequests) as error:
            self._failed(error)
            return
        self._met = True
        wishes = [channel.wish() for channel in self._channels.values()]
        for first in range(0, len(wishes), AT_ONCE):
            message = {"op": "subscribe", "id": first // AT_ONCE, "channels": wishes[first : first + AT_ONCE]}
            self._link.send(msgspec.json.encode(message))

    async def _wait(self) -> None:
        await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))

    def _failed(self, error: SourceError | TooManyRequests) -> None:
        """The server could not be reached: raise the first time, else tell it once and try again."""
        if not self._met:
            raise error
        self._down(str(error), getattr(error, "retry_after", None))

    def _down(self, detail: str, wait: float | None = None) -> None:
        if not self._trouble:
            self._items.append(Notice("disconnected", "", detail))
        self._trouble = detail
        self._due = asyncio.get_running_loop().time() + self._backoff.delay(wait)

    def _ended(self, link: Link) -> None:
        """The connection is over: for good if the server says that trying again is no use."""
        self._link = None
        if self._closed:
            return
        if link.code in (4401, 4403):
            self._error = Unauthorized(f"{link.cause}; pass the right token")
        elif link.code in TERMINAL or 4400 <= link.code < 5000:
            self._error = BadRequest(link.cause)
        else:
            self._down(link.cause)

    # -- frames ------------------------------------------------------------------------------

    def _take(self, texts: list[bytes]) -> None:
        """All that came at once. After a hole the rest is dropped: the resume brings it again."""
        for text in texts:
            try:
                for frame in frames(text):
                    self._items += self._news(frame)
            except Hole:
                self._resume("records are missing before the ones that came")
                return
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._error = BadPayload(f"the server sent what is no frame of /v1/ws: {error}")
                return
            if self._error is not None or self._link is None:
                return

    def _resume(self, why: str) -> None:
        """Leave this connection and go on with another from where each channel stands."""
        if self._link is not None:
            self._link.close(at_once=True)
            self._link = None
        self._down(why)

    def _news(self, frame: Frame) -> list[Item]:
        channel = self._channels.get(frame.ch)
        if channel is not None and frame.type in ("snapshot", "event", "update", "gap", "skip"):
            return channel.take(frame)
        if frame.type == "subscribed":
            return self._subscribed(frame)
        if frame.type == "notice":
            detail = frame.msg or (f"{frame.dropped} replaced by newer ones" if frame.dropped else "")
            return [Notice(str(frame.code), frame.ch, detail)]
        if frame.type == "error":
            if frame.code == "bad_request":
                self._error = BadRequest(frame.msg)
            return [Notice(str(frame.code), frame.ch, frame.msg)]
        return []

    def _subscribed(self, frame: Frame) -> list[Item]:
        for one in frame.errors:
            known = self._channels.get(one.ch)
            if known is not None and known.accepted:  # a server that has just started may not know it yet
                self._resume(one.msg)
                return []
            self._error = NotFound(one.msg) if one.code == 4404 else BadRequest(one.msg)
            return []
        for admitted in frame.channels:
            if (own := self._channels.get(admitted.ch)) is not None:
                own.admitted(admitted.pos, recovered=admitted.recovered)
        self._backoff.reset()
        if self._trouble:
            self._trouble = ""
            return [Notice("connected", "", "")]
        return []
