"""One channel held as a table that keeps itself up to date: the rows a chart or a model looks at."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self, cast

import msgspec

from tapewick._client_frames import Notice, Rows, StreamGap
from tapewick._client_rows import Candle, Trade
from tapewick._client_stream import Stream
from tapewick._client_table import Decimals, Library, Table
from tapewick.errors import SourceError, TapewickError, TooManyRequests
from tapewick.formats.table import Field

__all__ = ["KEEP", "Live"]

KEEP = 10_000  # rows held where nothing else is said

Backlog = Callable[[], Awaitable[Table[Any]]]


class Live:
    """The newest ``keep`` rows of a ``trade``, ``candle``, ``ticker`` or ``bbo`` channel.

    Of candles the newest version of each open time is held, the open one included as it moves; of trades each once,
    by ``seq``; of the others the present row. ``version`` rises with every change, ``connected`` tells whether data
    flow, ``gaps`` holds what could not be resumed exactly: the rows were read again then, so the table is whole.
    """

    def __init__(
        self, stream: Stream, fields: tuple[Field, ...], backlog: Backlog | None, keep: int, *, read_first: bool = False
    ) -> None:
        """``read_first``: begin with ``backlog`` instead of the stream's own snapshot."""
        self._stream, self._fields, self._backlog, self._keep = stream, fields, backlog, keep
        self._candles: dict[int, Candle] = {}
        self._others: deque[msgspec.Struct] = deque(maxlen=keep)
        self._changed = asyncio.Event()
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error: TapewickError | None = None
        self._stale = read_first
        self.version = 0
        self.connected = False
        self.gaps: list[StreamGap] = []

    async def __aenter__(self) -> Self:
        """Wait for the first rows. Raises what ``Stream`` raises."""
        self._task = asyncio.create_task(self._run(), name="tapewick live")
        try:
            await self._filled.wait()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if self._error is not None:
            await self.aclose()
            raise self._error
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Follow no longer; the table stays as it is."""
        self._stream.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def table(self) -> Table[Any]:
        """The rows as they are now, ascending by time. Raises what ended the stream, if something did."""
        if self._error is not None:
            raise self._error
        rows: list[msgspec.Struct] = [self._candles[time] for time in sorted(self._candles)] or list(self._others)
        return Table(self._fields, rows, position=next(iter(self._stream.positions.values()), ""))

    def frame(self, library: Library | None = None, *, decimals: Decimals = "exact") -> Any:
        """``table()`` as a frame of ``library``: see ``Table.frame``."""
        return self.table().frame(library, decimals=decimals)

    async def changed(self, after: int | None = None) -> int:
        """Wait until ``version`` is above ``after`` (None: what it is now); the new one."""
        after = self.version if after is None else after
        while self.version <= after and self._error is None:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error
        return self.version

    # -- inside ------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async for item in self._stream:
                if isinstance(item, Rows):
                    await self._take(item)
                elif isinstance(item, StreamGap):
                    self.gaps.append(item)
                    self._stale = True
                elif isinstance(item, Notice) and item.code in ("connected", "disconnected"):
                    self.connected = item.code == "connected"
        except TapewickError as error:
            self._error = error
        finally:
            self.connected = False
            self._tell()
            self._filled.set()

    async def _refill(self) -> None:
        """What is held may belong to another tape, and what was missed is unknown: read it again."""
        rows: list[msgspec.Struct] = []
        while self._backlog is not None:
            with suppress(SourceError, TooManyRequests):
                rows = list((await self._backlog()).rows)
                break
            await asyncio.sleep(1)
        self._candles.clear()
        self._others.clear()
        self._add(rows, provisional=False)

    async def _take(self, item: Rows) -> None:
        self.connected = True
        if self._stale and item.kind != "snapshot":
            return
        if self._stale:  # only now: what is read after the snapshot was made reaches at least as far
            await self._refill()
            self._stale = False
        if item.kind != "history" or item.position:  # the last page has a position
            self._filled.set()
        if item.raw:
            self._add(cast(list[msgspec.Struct], item.rows), provisional=item.kind == "update")
            self._tell()

    def _add(self, rows: list[msgspec.Struct], *, provisional: bool) -> None:
        for row in rows:
            if isinstance(row, Candle):
                self._add_candle(row, provisional=provisional)
            elif isinstance(row, Trade):
                newest = self._others[-1] if self._others else None
                if not isinstance(newest, Trade) or row.seq > newest.seq:
                    self._others.append(row)
            else:
                self._others.clear()
                self._others.append(row)
        while len(self._candles) > self._keep:
            del self._candles[min(self._candles)]

    def _add_candle(self, row: Candle, *, provisional: bool) -> None:
        """The higher ``pos``, then ``rev``, wins; at the same ones an open row is replaced by the last that came."""
        held = self._candles.get(row.open_time)
        if held is not None and held.state == "open":
            if row.pos < held.pos:
                return
        elif held is not None and (provisional or (row.pos, row.rev) <= (held.pos, held.rev)):
            return
        self._candles[row.open_time] = row

    def _tell(self) -> None:
        self.version += 1
        self._changed.set()
