"""A reader of a running server: history over REST, live data over one WebSocket with exact resume.

This one is for asyncio; ``tapewick.connect`` gives the same to scripts and notebooks. Prices stay exact decimals
from the server to the reader's table; times are UTC ns.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar
from urllib.parse import quote

import msgspec

from tapewick._client_address import address, authorization, trust
from tapewick._client_channels import followed
from tapewick._client_fields import Time, fields_of, milliseconds, nanoseconds, whole_ms
from tapewick._client_frames import Item, Notice, Rows, Skip, StreamGap
from tapewick._client_link import Link, dial
from tapewick._client_live import KEEP, Live
from tapewick._client_pages import PAGE, gathered, pages
from tapewick._client_rest import File, Rest
from tapewick._client_rows import Book, Candle, Price, Quote, Row, Ticker, Trade
from tapewick._client_stream import Stream
from tapewick._client_table import Decimals, Library, Table
from tapewick.channel import Channel
from tapewick.errors import ConfigError, NotFound
from tapewick.model import Instrument
from tapewick.net.address import shown

__all__ = [
    "Book",
    "Candle",
    "Client",
    "Decimals",
    "FileFormat",
    "Item",
    "Library",
    "Live",
    "Notice",
    "Page",
    "Price",
    "Quote",
    "Row",
    "Rows",
    "Skip",
    "Stream",
    "StreamGap",
    "Table",
    "Ticker",
    "Time",
    "Trade",
    "Update",
]

T = TypeVar("T")
FileFormat = Literal["jsonl", "csv", "arrow", "parquet"]
Mode = Literal["all", "conflate", "latest"]

MOST_AT_ONCE = 1000  # rows of a snapshot


class Page(NamedTuple):
    """Rows of one answer as JSON objects, ascending, and the position they stand for."""

    rows: list[msgspec.Raw]
    position: str


class Update(NamedTuple):
    """One live frame as the server wrote it. ``kind``: snapshot, event, update, gap, skip or notice.

    ``position`` is the resume token after this frame, empty on the provisional lane.
    """

    kind: str
    position: str
    rows: list[msgspec.Raw]
    detail: str = ""


class _Instruments(msgspec.Struct):
    instruments: list[Instrument]


class Client:
    """``async with Client("http://127.0.0.1:8080") as client``.

    ``token``: what a server with tokens wants to see; it goes into the ``Authorization`` header, never into an
    address. ``tls``: a CA file or an ``ssl.SSLContext`` for an ``https`` server no public authority vouches for.
    ``timeout``: seconds until a request, or a connection being opened, counts as failed.

    Requests raise ``SourceError`` when the server cannot be reached, ``BadRequest``, ``NotFound``, ``Unauthorized`` or
    ``TooManyRequests`` when it refuses what was asked. A ``limit`` of 0 means all.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | str | Path | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._url, self._timeout = address(url), timeout
        self._headers = {"User-Agent": "tapewick", **authorization(token)}
        self._tls = trust(tls)
        self._rest = Rest(self._url, timeout=timeout, headers=self._headers, tls=self._tls)
        self._known: dict[str, Instrument] = {}

    @property
    def url(self) -> str:
        """The server's address, without a user part."""
        return shown(self._url)

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._rest.aclose()

    # -- history -----------------------------------------------------------------------------

    async def instruments(self) -> list[Instrument]:
        """All instruments with a tape, by id."""
        found = (await self._rest.get("/v1/instruments", _Instruments)).instruments
        self._known = {one.id: one for one in found}
        return found

    async def instrument(self, id: str) -> Instrument:
        """One of them. Raises ``NotFound``."""
        if id not in self._known:
            await self.instruments()
        if id not in self._known:
            few = ", ".join(sorted(self._known)[:20]) or "none yet"
            raise NotFound(f"no instrument {id[:80]!r}; there are: {few}", field="instrument")
        return self._known[id]

    async def candles(
        self,
        instrument: str,
        tf: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        limit: int = 500,
        fill: Literal["none", "prev", "null"] = "none",
    ) -> Table[Candle]:
        """Candles with ``start`` ≤ open_time < ``end``, ascending, the open one included: ``Candle`` rows.

        Without ``start`` the newest ``limit``, else the first. ``fill``: what stands for buckets without trades.
        """
        own = await self.instrument(instrument)
        asked: dict[str, Any] = {"instrument": instrument, "tf": tf, "end": milliseconds(end), "times": "ns"}
        asked |= {"start": 0 if start is None and not limit else milliseconds(start)}
        asked |= {"fill": None if fill == "none" else fill}
        found = await gathered(self._rest, "candles", asked, limit)
        rows = [msgspec.json.decode(row, type=Candle, strict=False) for row in found.rows]
        return Table(fields_of("candle", own), rows, position=found.position, complete=found.complete)

    async def trades(
        self,
        instrument: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        since: str | int | None = None,
        limit: int = 500,
    ) -> Table[Trade]:
        """Trades after position ``since``, or with ``start`` ≤ ts_event < ``end``, ascending by seq: ``Trade`` rows.

        Without ``since`` and ``start`` the newest ``limit``.
        """
        own = await self.instrument(instrument)
        if since is None and start is None:
            held = (await self.coverage(instrument))["trades"]
            since = max(0, int(held) - limit) if limit else 0
        asked: dict[str, Any] = {"instrument": instrument, "since": since, "times": "ns"}
        asked |= {"start": milliseconds(start), "end": milliseconds(end)}
        found = await gathered(self._rest, "trades", asked, limit)
        rows = [msgspec.json.decode(row, type=Trade, strict=False) for row in found.rows]
        return Table(fields_of("trade", own), rows, position=found.position)

    async def ticker(self, instrument: str) -> Ticker:
        """Last price, 24 hours, session."""
        return await self._rest.get(f"/v1/ticker/{quote(instrument, safe='')}", Ticker)

    async def price(self, instrument: str, at: Time | None = None) -> Price:
        """The last trade at or before ``at`` (now), and whether that is proven. Raises ``NotFound`` if none."""
        return await self._rest.get(f"/v1/price/{quote(instrument, safe='')}", Price, {"at": _floor(at)})

    async def book(self, instrument: str, *, levels: int = 100, at: Time | None = None) -> Book:
        """The order book; with ``at`` the one stored at or before that time."""
        return await self._rest.get(self._book(instrument), Book, {"levels": levels, "at": _floor(at)})

    async def coverage(self, instrument: str) -> dict[str, Any]:
        """What the tape holds: ``instrument trades ranges gaps``, and more; gap times in ms."""
        return await self._rest.get(f"/v1/coverage/{quote(instrument, safe='')}", dict[str, Any])

    def export(
        self,
        instrument: str,
        tf: str | None = None,
        *,
        format: FileFormat = "parquet",
        start: Time | None = None,
        end: Time | None = None,
    ) -> AbstractAsyncContextManager[File]:
        """``async with … as file``: trades, or candles of ``tf``, as ``file.chunks`` of a file, made while it is read.

        ``file.position`` is where it stands: the ``since`` of what comes later.
        """
        return self.export_file(instrument, tf, format=format, start=nanoseconds(start), end=nanoseconds(end))

    async def save(
        self,
        instrument: str,
        path: str | Path,
        tf: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
    ) -> str:
        """``export`` into a file whose ending (jsonl, csv, arrow, parquet) is the format; its position.

        The file appears when it is whole. Raises ``ConfigError`` for another ending.
        """
        target = Path(path)
        format: Any = target.suffix.removeprefix(".")
        if format not in ("jsonl", "csv", "arrow", "parquet"):
            raise ConfigError(f"{target.name} does not tell a format by its ending: jsonl, csv, arrow or parquet")
        part = target.with_name(target.name + ".part")
        try:
            async with self.export(instrument, tf, format=format, start=start, end=end) as made:
                with open(part, "wb") as file:  # noqa: ASYNC230  # pages of a file, between chunks of the network
                    async for chunk in made.chunks:
                        file.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return made.position

    # -- live --------------------------------------------------------------------------------

    def stream(
        self,
        /,
        *channels: str,
        snapshot: int | None = None,
        start: Time | None = None,
        since: str | int | Mapping[str, str] | None = None,
        **options: Any,
    ) -> Stream:
        """``async for item in client.stream("trade@sim:BTCUSDT", "candle@sim:BTCUSDT@1m")``: see ``Stream``.

        Each channel begins with the newest ``snapshot`` rows (0–1000, the server's default if None), with all rows
        from ``start`` on, or behind position ``since`` (a mapping: per channel, such as ``Stream.positions``).
        ``options``: ``levels`` of books, ``backfill`` ``"all"``/``"skip"`` of trades, ``mode`` and ``max_rate`` of
        values that newer ones replace; each goes to the channels that take it.
        """
        options |= {"snapshot": snapshot, "times": "ns"}
        return Stream(self._dial, self._rest, followed(channels, options, since, start))

    async def live(self, /, channel: str, *, rows: int = 500, start: Time | None = None, **options: Any) -> Live:
        """``async with await client.live("candle@sim:BTCUSDT@1m") as live``: a table kept up to date, see ``Live``.

        It holds the newest ``rows``, or those from ``start`` on (at most 10 000). ``options`` as in ``stream``.
        """
        named = Channel.parse(channel)
        own = await self.instrument(named.instrument)
        fields = fields_of(named.kind, own)
        if not named.durable:
            return Live(self.stream(channel, **options), fields, None, 1)

        async def backlog() -> Table[Any]:
            if named.tf is not None:
                return await self.candles(own.id, named.tf.name, start=start, limit=0 if start else rows)
            return await self.trades(own.id, start=start, limit=0 if start else rows)

        if named.tf is not None and named.tf.index == 0:  # not stored: the server cannot join pages of them exactly
            seconds = self.stream(channel, snapshot=1, **options)
            return Live(seconds, fields, backlog, KEEP if start is not None else rows, read_first=True)
        many = start is None and rows > MOST_AT_ONCE
        begin = start
        if many and len(found := await backlog()):
            begin = found.rows[0].open_time if named.tf else found.rows[0].ts_event
        stream = self.stream(channel, snapshot=min(rows, MOST_AT_ONCE), start=begin, **options)
        return Live(stream, fields, backlog, KEEP if start is not None else rows)

    # -- as the command line asks: times are UTC ns of any year, rows as the server wrote them ---

    def export_file(
        self, instrument: str, tf: str | None, *, format: FileFormat, start: int | None, end: int | None
    ) -> AbstractAsyncContextManager[File]:
        """As ``export``."""
        asked = {"instrument": instrument, "tf": tf, "format": format, "start": whole_ms(start), "end": whole_ms(end)}
        return self._rest.file(f"/v1/export/{'candles' if tf else 'trades'}", asked)

    async def repair(self, instrument: str, ids: tuple[int, int] | None = None) -> None:
        """Have the server fetch these ids, or all that is missing, from the venue; it goes on by itself."""
        asked = {} if ids is None else {"from_id": ids[0], "to_id": ids[1]}
        await self._rest.post(f"/v1/repair/{quote(instrument, safe='')}", asked)

    async def candle_pages(
        self, instrument: str, tf: str, *, start: int | None = None, end: int | None = None, limit: int = 500
    ) -> AsyncIterator[Page]:
        """Candles as in ``candles``, page by page and undecoded; times in ms."""
        asked: dict[str, Any] = {"instrument": instrument, "tf": tf, "end": whole_ms(end)}
        if start is None and 0 < limit <= PAGE:
            async for page in pages(self._rest, "candles", asked, limit, newest=True):
                yield Page(page.rows, page.position)
            return
        async for page in pages(self._rest, "candles", {**asked, "start": whole_ms(start or 0)}, limit):
            yield Page(page.rows, page.position)

    async def trade_pages(self, instrument: str, *, since: int | None = None, limit: int = 500) -> AsyncIterator[Page]:
        """Trades with ``seq`` > ``since``, ascending, page by page and undecoded; without ``since`` the newest."""
        newest = since is None and 0 < limit <= PAGE
        asked: dict[str, Any] = {"instrument": instrument, "since": None if newest else since or 0}
        async for page in pages(self._rest, "trades", asked, limit, newest=newest):
            yield Page(page.rows, page.position)

    async def book_row(self, instrument: str, *, levels: int = 100, at: int | None = None) -> msgspec.Raw:
        """The order book undecoded; times in ms."""
        return await self._rest.get(
            self._book(instrument), msgspec.Raw, {"levels": levels, "at": at and at // 1_000_000}
        )

    async def tail(
        self, channel: str, *, snapshot: int | None = 10, since: str | None = None, levels: int | None = None
    ) -> AsyncGenerator[Update, None]:
        """One channel as in ``stream``, undecoded; times in ms."""
        wanted = followed([channel], {"snapshot": snapshot, "levels": levels}, since, None)
        async with Stream(self._dial, self._rest, wanted) as stream:
            async for item in stream:
                if isinstance(item, Rows):
                    yield Update(item.kind, item.position, item.raw, item.reason)
                elif isinstance(item, StreamGap):
                    yield Update("gap", item.last, [], item.reason)
                elif isinstance(item, Skip):
                    yield Update("skip", item.position, [])
                elif item.code != "connected":
                    yield Update("notice", "", [], item.detail)

    # -- inside ------------------------------------------------------------------------------

    async def _dial(self) -> Link:
        address = "ws" + self._url.removeprefix("http") + "/v1/ws"
        return await dial(address, within=self._timeout, headers=self._headers, tls=self._tls)

    def _book(self, instrument: str) -> str:
        return f"/v1/book/{quote(instrument, safe='')}"


def _floor(time: Time | None) -> int | None:
    """The last whole ms at or before ``time``."""
    ns = nanoseconds(time)
    return None if ns is None else ns // 1_000_000
