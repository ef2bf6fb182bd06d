"""A client without ``await``: for notebooks, scripts and the interpreter's prompt.

``connect`` starts a thread with an event loop of its own, so it works inside a running loop (Jupyter) as well as
without one. It ends with ``close()``, with the ``with`` block, or with the interpreter.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from tapewick.client import (
    Book,
    Candle,
    Client,
    Decimals,
    Item,
    Library,
    Live,
    Price,
    Stream,
    StreamGap,
    Table,
    Ticker,
    Time,
    Trade,
)
from tapewick.errors import ConfigError
from tapewick.model import Instrument

__all__ = ["Connection", "Feed", "LiveTable", "connect"]

T = TypeVar("T")


class Loop:
    """A thread that runs an event loop; ``run`` waits for a coroutine there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock, self._closed, self._process = threading.Lock(), False, os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tapewick client", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it takes no more work: it has been closed, or a fork left its thread behind."""
        return self._closed or self._process != os.getpid()

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """The outcome of ``work``. Raises ``TimeoutError``; that, as Ctrl-C does, cancels it."""
        future = self._begun(work)
        try:
            return future.result(timeout)
        except Late:
            if not future.done():
                future.cancel()
                raise TimeoutError(f"nothing came within {timeout:g} s") from None
            raise
        except CancelledError:
            raise ConfigError("this connection was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def _begun(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._process == os.getpid():  # elsewhere the lock may be held for ever
            with self._lock:
                if not self._closed:
                    return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        why = "is closed" if self._process == os.getpid() else "belongs to the process that opened it"
        raise ConfigError(f"this connection {why}: open another with tapewick.connect")

    def close(self, last: Callable[[], Awaitable[None]] | None = None) -> None:
        """End everything that runs on it, after that do ``last`` there, and end the thread. Of several threads that
        call this one does it."""
        if self.closed:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ending = asyncio.run_coroutine_threadsafe(_end_tasks(last), self._loop)
        try:
            ending.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Connection:
    """A server, as ``Client`` knows it: the same methods with the same arguments, answers instead of awaitables.

    May be used from several threads. ``close()`` also ends its feeds and live tables.
    """

    def __init__(self, client: Callable[[], Client]) -> None:
        self._loop = Loop()
        self._open: list[Feed | LiveTable] = []
        try:
            self._client = self._loop.run(_call(client))
        except BaseException:
            self._loop.close()
            raise
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<connection to {self._client.url}{', closed' if self._loop.closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all that is open; may be called again."""
        atexit.unregister(self.close)
        if self._loop.closed:
            return
        for one in self._open:
            one.closed = True  # who waits for it meets its end, not an error
        self._loop.close(self._end)

    async def _end(self) -> None:
        for one in self._open:
            await one.aclose()
        await self._client.__aexit__(None, None, None)

    def instruments(self) -> list[Instrument]:
        """All instruments with a tape, by id."""
        return self._loop.run(self._client.instruments())

    def candles(
        self,
        instrument: str,
        tf: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        limit: int = 500,
        fill: Literal["none", "prev", "null"] = "none",
    ) -> Table[Candle]:
        """Candles with ``start`` ≤ open_time < ``end``, ascending; without ``start`` the newest ``limit`` (0: all)."""
        return self._loop.run(self._client.candles(instrument, tf, start=start, end=end, limit=limit, fill=fill))

    def trades(
        self,
        instrument: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        since: str | int | None = None,
        limit: int = 500,
    ) -> Table[Trade]:
        """Trades after position ``since``, or with ``start`` ≤ ts_event < ``end``, or the newest ``limit`` (0: all)."""
        return self._loop.run(self._client.trades(instrument, start=start, end=end, since=since, limit=limit))

    def ticker(self, instrument: str) -> Ticker:
        """Last price, 24 hours, session."""
        return self._loop.run(self._client.ticker(instrument))

    def price(self, instrument: str, at: Time | None = None) -> Price:
        """The last trade at or before ``at`` (now), and whether that is proven."""
        return self._loop.run(self._client.price(instrument, at))

    def book(self, instrument: str, *, levels: int = 100, at: Time | None = None) -> Book:
        """The order book; with ``at`` the one stored at or before that time."""
        return self._loop.run(self._client.book(instrument, levels=levels, at=at))

    def coverage(self, instrument: str) -> dict[str, Any]:
        """What the tape holds and what it lacks."""
        return self._loop.run(self._client.coverage(instrument))

    def save(
        self,
        instrument: str,
        path: str | Path,
        tf: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
    ) -> str:
        """Trades, or candles of ``tf``, into a jsonl, csv, arrow or parquet file; the position it stands for."""
        return self._loop.run(self._client.save(instrument, path, tf, start=start, end=end))

    def stream(
        self,
        *channels: str,
        snapshot: int | None = None,
        start: Time | None = None,
        since: str | int | Mapping[str, str] | None = None,
        **options: Any,
    ) -> Feed:
        """``for item in connection.stream("trade@sim:BTCUSDT")``: see ``Client.stream``."""
        made = self._loop.run(
            _call(lambda: self._client.stream(*channels, snapshot=snapshot, start=start, since=since, **options))
        )
        return self._kept(Feed(self._loop, made))

    def live(self, channel: str, *, rows: int = 500, start: Time | None = None, **options: Any) -> LiveTable:
        """A table kept up to date in the background, once it has its first rows: see ``Client.live``."""

        async def opened() -> Live:
            live = await self._client.live(channel, rows=rows, start=start, **options)
            return await live.__aenter__()

        return self._kept(LiveTable(self._loop, self._loop.run(opened())))

    def _kept(self, one: T) -> T:
        self._open = [each for each in self._open if not each.closed]
        self._open.append(one)  # type: ignore[arg-type]
        return one


class Feed:
    """A ``Stream`` to iterate over without ``await``; iterating waits."""

    def __init__(self, loop: Loop, stream: Stream) -> None:
        self._loop, self._stream = loop, stream
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return self.take()

    @property
    def positions(self) -> dict[str, str]:
        """By channel, the token behind the last item handed out."""
        return dict(self._stream.positions)

    def take(self, timeout: float | None = None) -> Item:
        """The next item. Raises ``TimeoutError`` after so many seconds, which loses nothing; ``StopIteration`` when
        the feed was closed."""
        if self.closed:
            raise StopIteration
        try:
            item = self._loop.run(_next(self._stream), timeout)
        except ConfigError:
            if not self.closed:  # else another thread closed it while this one waited
                raise
            item = None
        if item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        """End the connection."""
        if not self.closed and not self._loop.closed:
            self.closed = True
            self._loop.run(self.aclose())

    async def aclose(self) -> None:
        """``close``, on the loop's own thread."""
        self._stream.close()


class LiveTable:
    """A ``Live`` table to read without ``await``."""

    def __init__(self, loop: Loop, live: Live) -> None:
        self._loop, self._live = loop, live
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<live, version {self.version}{'' if self.connected else ', disconnected'}> {self.table()!r}"

    def _repr_html_(self) -> str:
        """The cell a notebook shows: the rows as they are now."""
        return self.table()._repr_html_()

    @property
    def version(self) -> int:
        """Rises with every change."""
        return self._live.version

    @property
    def connected(self) -> bool:
        """Whether data flow."""
        return self._live.connected

    @property
    def gaps(self) -> list[StreamGap]:
        """What could not be resumed exactly; the rows were read again then."""
        return list(self._live.gaps)

    def table(self) -> Table[Any]:
        """The rows as they are now, ascending by time."""
        if self._loop.closed:
            return self._live.table()
        return self._loop.run(_call(self._live.table))

    def frame(self, library: Library | None = None, *, decimals: Decimals = "exact") -> Any:
        """They as a frame of ``library`` (polars if installed, else pandas): see ``Table.frame``."""
        return self.table().frame(library, decimals=decimals)

    def wait(self, timeout: float | None = None, *, after: int | None = None) -> int:
        """Wait until ``version`` is above ``after`` (None: what it is now); the new one. Raises ``TimeoutError``."""
        return self._loop.run(self._live.changed(after), timeout)

    def close(self) -> None:
        """Follow no longer; the table stays as it is."""
        if not self.closed and not self._loop.closed:
            self.closed = True
            self._loop.run(self.aclose())

    async def aclose(self) -> None:
        """``close``, on the loop's own thread."""
        await self._live.aclose()


def connect(
    url: str = "http://127.0.0.1:8080",
    *,
    token: str | None = None,
    tls: ssl.SSLContext | str | Path | None = None,
    timeout: float = 10.0,
) -> Connection:
    """A connection to the server at ``url``, which is asked once: raises ``SourceError`` when none answers there and
    ``Unauthorized`` when it wants another ``token``. Arguments as of ``Client``."""
    made = Connection(lambda: Client(url, token=token, tls=tls, timeout=timeout))
    try:
        made.instruments()
    except BaseException:
        made.close()
        raise
    return made


async def _call(work: Callable[[], T]) -> T:
    """``work`` on the loop's own thread."""
    return work()


async def _next(stream: Stream) -> Item | None:
    """The next item, None at the end: a ``StopAsyncIteration`` cannot leave a coroutine."""
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return None


async def _end_tasks(last: Callable[[], Awaitable[None]] | None) -> None:
    rest: list[Awaitable[Any]] = []
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
            rest.append(task)
    await asyncio.gather(*rest, return_exceptions=True)
    if last is not None:
        await last()
