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
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as Late
from functools import update_wrapper
from inspect import signature
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tapewick.client import (
    Client,
    Decimals,
    Item,
    Library,
    Live,
    Stream,
    StreamGap,
    Table,
)
from tapewick.errors import ConfigError

__all__ = ["Connection", "Feed", "LiveTable", "connect"]

T = TypeVar("T")
P = ParamSpec("P")


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


def _worded(made: Callable[..., Any], method: Callable[..., Any], returns: type | None = None) -> Any:
    """``made`` with the name, the arguments and the words of the client's ``method``, and what it ``returns``."""
    update_wrapper(made, method)
    told = signature(method)
    made.__signature__ = told.replace(return_annotation=returns) if returns else told  # type: ignore[attr-defined]
    made.__doc__ = f"As of ``Client``, without ``await``. {method.__doc__}"
    return made


def _waited(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Connection, P], T]:
    """The same method of a ``Connection``, which waits for the answer."""

    def waiting(self: Connection, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._client, *args, **kwargs))

    return _worded(waiting, method)  # type: ignore[no-any-return]


def _fed(method: Callable[Concatenate[Client, P], Stream]) -> Callable[Concatenate[Connection, P], Feed]:
    """The same method of a ``Connection``, whose stream is read without ``await``."""

    def feeding(self: Connection, *args: P.args, **kwargs: P.kwargs) -> Feed:
        made = self._loop.run(_call(lambda: method(self._client, *args, **kwargs)))
        return self._kept(Feed(self._loop, made))

    return _worded(feeding, method, Feed)  # type: ignore[no-any-return]


def _kept_live(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, Live]],
) -> Callable[Concatenate[Connection, P], LiveTable]:
    """The same method of a ``Connection``: its table keeps itself up to date, once it has its first rows."""

    def keeping(self: Connection, *args: P.args, **kwargs: P.kwargs) -> LiveTable:
        async def opened() -> Live:
            return await (await method(self._client, *args, **kwargs)).__aenter__()

        return self._kept(LiveTable(self._loop, self._loop.run(opened())))

    return _worded(keeping, method, LiveTable)  # type: ignore[no-any-return]


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

    instruments = _waited(Client.instruments)
    instrument = _waited(Client.instrument)
    candles = _waited(Client.candles)
    trades = _waited(Client.trades)
    ticker = _waited(Client.ticker)
    price = _waited(Client.price)
    book = _waited(Client.book)
    coverage = _waited(Client.coverage)
    save = _waited(Client.save)
    stream = _fed(Client.stream)
    live = _kept_live(Client.live)

    def _kept(self, one: T) -> T:
        self._open = [each for each in self._open if not each.closed]
        self._open.append(one)  # type: ignore[arg-type]
        return one


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
