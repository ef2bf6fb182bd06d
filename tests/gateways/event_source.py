"""An EventSource for tests: HTTP/1.1 chunks and event streams, parsed as browsers do, over a plain socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

__all__ = ["Event", "EventSource", "opened"]


class Event(NamedTuple):
    kind: str
    id: str
    data: dict[str, Any]


class EventSource:
    """One response's events. ``last_id`` is what a browser would send when it reconnects; ``budget``: bytes of the body
    after which it reads no more."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last_id: str = "", budget: int | None = None
    ) -> None:
        self._reader, self._writer, self._budget = reader, writer, budget
        self.status, self.headers = 0, dict[str, str]()
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.retry = self.last_id = last_id
        self.ended = self.whole = False
        self._news = asyncio.Event()
        self._text = b""
        self._kind, self._id, self._data = "", last_id, list[str]()
        self._reading: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Read the head, then events until the stream ends."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(await self._reader.readuntil(b"\r\n"), 16):
                    self._feed((await self._reader.readexactly(size + 2))[:-2])
                self.whole = await self._reader.readexactly(2) == b"\r\n"
            else:
                while data := await self._reader.read(65_536):
                    self._feed(data)
        except (asyncio.IncompleteReadError, ConnectionError, EOFError):
            pass  # cut off: ``whole`` stays false
        self.ended = True
        self._news.set()

    def _feed(self, data: bytes) -> None:
        data = data[: self._budget]
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            self._line(line.decode())
        self._news.set()
        if self._budget is not None:
            self._budget -= len(data)
            if not self._budget:
                raise EOFError

    def _line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            self.last_id = self._id
            if self._data:
                self.events.append(Event(self._kind or "message", self._id, json.loads("\n".join(self._data))))
            self._kind, self._data = "", []
        elif not name:
            self.comments.append(value)
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        elif name == "event":
            self._kind = value
        elif name == "retry":
            self.retry = value

    async def until(self, done: Callable[[Self], object], seconds: float = 20) -> Any:
        """Wait for ``done(self)`` to be true; its value."""
        async with asyncio.timeout(seconds):
            while not (value := done(self)):
                self._news.clear()
                await self._news.wait()
        return value

    def of(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """The data of all events of a kind that have these fields."""
        return [e.data for e in self.events if e.kind == kind and all(e.data.get(k) == v for k, v in fields.items())]

    async def got(self, kind: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for ``count`` events of a kind; all of them so far."""
        found: list[dict[str, Any]] = await self.until(lambda s: len(found := s.of(kind, **fields)) >= count and found)
        return found

    def rows(self, ch: str, *kinds: str) -> list[dict[str, Any]]:
        """The rows of all events of a channel, in order."""
        return [row for e in self.events if e.data.get("ch") == ch and e.kind in kinds for row in e.data["data"]]

    async def cut(self) -> None:
        """End the connection without a word; what has not been read is lost."""
        self._writer.transport.abort()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})


@asynccontextmanager
async def opened(
    url: str,
    channels: str,
    last_id: str = "",
    *,
    version: str = "1.1",
    headers: str = "",
    budget: int | None = None,
    **options: Any,
) -> AsyncIterator[EventSource]:
    """``GET /v1/sse`` for ``channels`` with ``options`` in the query, resumed behind ``last_id``."""
    query = "".join(f"&{name}={value}" for name, value in options.items())
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    resume = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
    host = urlsplit(url).netloc
    head = f"GET /v1/sse?channels={channels}{query} HTTP/{version}\r\nHost: {host}\r\n{resume}{headers}\r\n"
    writer.write(head.encode())
    source = EventSource(reader, writer, last_id, budget)
    try:
        await source.begin()
        yield source
    finally:
        await source.cut()
