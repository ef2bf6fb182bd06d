"""A client of a running server: history over REST, live data over one WebSocket with exact resume.

Rows come as the server wrote them (``msgspec.Raw`` JSON objects), so nothing is rounded or
reordered on the way to a script.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import NamedTuple, Self, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from tapewick.errors import BadRequest, ConfigError, NotFound, SourceError, VenueRefused
from tapewick.net.backoff import Backoff
from tapewick.net.http import JsonClient
from tapewick.net.inbox import Inbox, Wakeup
from tapewick.net.websocket import Feed, LinkChange

__all__ = ["Client", "Page", "Update"]

T = TypeVar("T")

PAGE = 1000  # rows asked for at once
RETRY_CAP = 5.0  # seconds between attempts to reach a server that went away; it is ours, no venue that bans


class Page(NamedTuple):
    """Rows of one answer as JSON objects, ascending, and the position they stand for."""

    rows: list[msgspec.Raw]
    position: str


class Update(NamedTuple):
    """One live frame. ``kind``: snapshot, event, update, gap, skip, notice or error; ``rows`` as in ``Page``.

    ``position`` is the resume token after this frame, empty on the provisional lane.
    """

    kind: str
    position: str
    rows: list[msgspec.Raw]
    detail: str = ""


class _Answer(msgspec.Struct):
    position: str = ""
    candles: list[msgspec.Raw] = []
    trades: list[msgspec.Raw] = []


class _Instrument(msgspec.Struct):
    id: str


class _Instruments(msgspec.Struct):
    instruments: list[_Instrument]


class _OpenTime(msgspec.Struct):
    open_time: int


class _Seq(msgspec.Struct):
    seq: int


class _Frame(msgspec.Struct):
    type: str
    pos: str = ""
    msg: str = ""
    reason: str = ""
    data: list[msgspec.Raw] = []
    errors: list[dict[str, object]] = []


_FRAMES = msgspec.json.Decoder(list[_Frame])
_FRAME = msgspec.json.Decoder(_Frame)


class Client:
    """``async with Client("http://127.0.0.1:8080") as client``.

    Requests raise ``SourceError`` when the server cannot be reached, ``BadRequest`` or ``NotFound``
    when it refuses what was asked.
    """

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ConfigError(f"{url!r} is no server address: write it like http://127.0.0.1:8080")
        self._url = url.rstrip("/")
        self._http = JsonClient(self._url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def instruments(self) -> list[str]:
        """Ids of all instruments with a tape."""
        return [one.id for one in (await self._get("/v1/instruments", _Instruments)).instruments]

    async def candles(
        self, instrument: str, tf: str, *, start: int | None = None, end: int | None = None, limit: int = 500
    ) -> AsyncIterator[Page]:
        """Candles with ``start`` ≤ open_time < ``end`` (UTC ns), ascending, in pages.

        ``limit`` 0: all. Without ``start`` the newest ``limit``, else the first.
        """
        fixed: dict[str, str | int] = {"instrument": instrument, "tf": tf}
        if end is not None:
            fixed["end"] = -(-end // 1_000_000)
        if start is None and 0 < limit <= PAGE:
            answer = await self._get("/v1/candles", _Answer, {**fixed, "limit": limit})
            yield Page(answer.candles, answer.position)
            return
        after, left = -(-(start or 0) // 1_000_000), limit
        while True:
            size = min(PAGE, left) if limit and start is not None else PAGE
            answer = await self._get("/v1/candles", _Answer, {**fixed, "start": after, "limit": size})
            rows = answer.candles
            if rows:
                yield Page(rows, answer.position)
                after = msgspec.json.decode(rows[-1], type=_OpenTime).open_time + 1
            left -= len(rows)
            if len(rows) < size or (limit and left <= 0):
                return

    async def trades(self, instrument: str, *, since: int | None = None, limit: int = 500) -> AsyncIterator[Page]:
        """Trades with ``seq`` > ``since``, ascending, in pages; ``limit`` 0: all, without ``since`` the newest."""
        if since is None and 0 < limit <= PAGE:
            answer = await self._get("/v1/trades", _Answer, {"instrument": instrument, "limit": limit})
            yield Page(answer.trades, answer.position)
            return
        after, left = since or 0, limit
        while True:
            size = min(PAGE, left) if limit else PAGE
            asked: dict[str, str | int] = {"instrument": instrument, "since": after, "limit": size}
            answer = await self._get("/v1/trades", _Answer, asked)
            if answer.trades:
                yield Page(answer.trades, answer.position)
                after = msgspec.json.decode(answer.trades[-1], type=_Seq).seq
            left -= len(answer.trades)
            if len(answer.trades) < size or (limit and left <= 0):
                return

    async def coverage(self, instrument: str) -> dict[str, object]:
        """What the tape holds: ``instrument trades ranges gaps``, and more."""
        return await self._get(f"/v1/coverage/{quote(instrument, safe='')}", dict[str, object])

    async def book(self, instrument: str, *, levels: int = 100, at: int | None = None) -> msgspec.Raw:
        """The order book as the server wrote it; with ``at`` (UTC ns) the one stored at or before that time."""
        asked: dict[str, str | int] = {"levels": levels} if at is None else {"levels": levels, "at": at // 1_000_000}
        return await self._get(f"/v1/book/{quote(instrument, safe='')}", msgspec.Raw, asked)

    async def tail(
        self, channel: str, *, snapshot: int | None = 10, since: str | None = None, levels: int | None = None
    ) -> AsyncIterator[Update]:
        """``channel`` (``trade@ID``, ``candle@ID@TF``, …) from a snapshot or position on, live.

        ``snapshot`` None and ``levels``: as channels of books take them.

        Reconnects and resumes by itself: every durable record comes once, or a ``gap`` tells that
        it cannot. Raises ``SourceError`` if the server never answers, ``BadRequest`` if it refuses the channel.
        """
        url = "ws" + self._url.removeprefix("http") + "/v1/ws"
        greeting = [_subscribe(channel, snapshot, since, levels)]
        inbox: Inbox[LinkChange] = Inbox()
        feed = asyncio.create_task(Feed([url], inbox, greeting=greeting, backoff=Backoff(cap=RETRY_CAP)).run())
        met = False
        try:
            while True:
                item = await inbox.get()
                if isinstance(item, LinkChange):
                    met = met or item.state == "connected"
                    if not met:
                        raise SourceError(f"{item.detail}; is a server running there?")
                    if item.state != "connected":
                        yield Update("notice", "", [], item.detail)
                    continue
                for update in _updates(item):
                    if update.position:
                        greeting[0] = _subscribe(channel, snapshot, update.position, levels)
                    yield update
        finally:
            feed.cancel()
            await asyncio.wait([feed])

    async def _get(self, path: str, type: type[T], params: dict[str, str | int] | None = None) -> T:
        try:
            return await self._http.get(path, type, params)
        except VenueRefused as error:
            detail = re.search(r'"detail":"(.*?)"[,}]', str(error))
            text = detail[1].replace("\\'", "'") if detail else str(error)
            if error.status == 404:
                raise NotFound(text) from error
            if 400 <= error.status < 429:
                raise BadRequest(text) from error
            raise


def _subscribe(channel: str, snapshot: int | None, since: str | None, levels: int | None) -> bytes:
    options = {"snapshot": snapshot, "since": since, "levels": levels}
    wanted = {"ch": channel, **{name: value for name, value in options.items() if value is not None}}
    return msgspec.json.encode({"op": "subscribe", "id": 1, "channels": [wanted]})


def _updates(item: Wakeup) -> list[Update]:
    """The frames of one wake-up. Raises ``BadRequest`` for a refused subscription."""
    updates = []
    for text in item.frames:
        for frame in _FRAMES.decode(text) if text[:1] == b"[" else [_FRAME.decode(text)]:
            if frame.errors:
                raise BadRequest(str(frame.errors[0].get("msg", frame.errors[0])))
            if frame.type == "error":
                raise BadRequest(frame.msg)
            if frame.type in ("snapshot", "event", "update", "gap", "skip", "notice"):
                updates.append(Update(frame.type, frame.pos, frame.data, frame.reason or frame.msg))
    return updates
