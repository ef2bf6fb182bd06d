"""What can go wrong at a venue, callable at any time and by name from a script.

Times and durations are the venue's. Nothing here touches what happened: the trades, bars and books
that REST tells and ``truth`` holds stay right, except where the venue itself gives ids away (``void``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from tapewick.clock import Clock
from tapewick.sim.client import Client, ws_frame
from tapewick.sim.http import Reply
from tapewick.sim.outlet import Outlet
from tapewick.sim.rest import Rest
from tapewick.sim.streams import BookStreams, TradeStreams

__all__ = ["Damage", "Fault", "Faults", "Malformed"]

Damage: TypeAlias = Literal["gzip", "cut", "html", "json", "empty"]
Malformed: TypeAlias = Literal["json", "utf8", "nan", "overflow", "deep", "unknown", "foreign", "empty", "huge"]

HUGE = 10 << 20
_HTML = b"<html><head><title>502 Bad Gateway</title></head><body>try again later</body></html>"
_MALFORMED: Mapping[str, bytes] = {
    "json": b'{"e":"trade","E":17000000000',
    "utf8": b'{"e":"trade","s":"BTC\xff\xfe","t":1}',
    "deep": b"[" * 5_000,
    "unknown": b'{"e":"mystery","E":1700000000000,"s":"BTCUSDT"}',
    "foreign": b'{"e":"trade","E":1,"s":"N\xc3\x96PE","t":1,"p":"1","q":"1","T":1,"m":true,"M":true}',
    "empty": b"",
    "nan": b'{"e":"trade","E":%d,"s":"%b","t":%d,"p":"NaN","q":"1.0","T":%d,"m":true,"M":true}',
    "overflow": b'{"e":"trade","E":%d,"s":"%b","t":%d,"p":"1e400","q":"1.0","T":%d,"m":true,"M":true}',
}


class Fault(NamedTuple):
    """``action`` is the name of a fault method of ``SimVenue``, called ``after`` seconds."""

    after: float
    action: str
    args: Mapping[str, Any] = {}


class _Trouble:
    """What becomes of answers to requests or upgrades, ``left`` times (None: any) or ``until`` a time (ns).

    ``refuses``: nothing of the good answer is left.
    """

    def __init__(self, change: Callable[[Reply], Reply], *, left: int | None, until: int | None, refuses: bool) -> None:
        self.change, self.refuses = change, refuses
        self.left, self._until = left, until

    def over(self, now: int) -> bool:
        return self.left == 0 or (self._until is not None and now >= self._until)


class Faults:
    """The fault methods of the venue; what they change is read where frames and answers are made."""

    speed: float
    outlet: Outlet
    rest: Rest
    _clock: Clock
    _trades: dict[str, TradeStreams]
    _books: dict[str, BookStreams]
    _stalled_until = 0.0

    def _init_faults(self) -> None:
        self._trouble: dict[str, list[_Trouble]] = {"rest": [], "ws": []}

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        async def act() -> None:
            await self._clock.sleep(seconds)
            action()

        self._spawn(act())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        raise NotImplementedError

    # Connections.

    def drop_connections(self, *, fin: bool = True, most: int | None = None) -> None:
        """Cut socket clients off, all or the ``most`` first: closed, or (without ``fin``) silent for ever and open."""
        for client in list(self.outlet.clients)[:most]:
            if fin:
                client.abort()
            else:
                client.mute = True

    def expire(self) -> None:
        """End every socket connection with a close frame, as the venue does after 24 hours."""
        for client in list(self.outlet.clients):
            client.close()

    def shut_down(self, *, close_after: float | None = None) -> None:
        """Announce the end of all connections the way the venue does since 2026, and (if given) end them."""
        event = b'{"e":"serverShutdown","E":%d}' % (self._clock.now() // 1_000_000)
        doomed = list(self.outlet.clients)
        for client in doomed:
            wrapped = b'{"stream":"!serverShutdown","data":%b}' % event
            client.queue(ws_frame(wrapped if client.combined else event))
        self.flush()
        if close_after is not None:
            self._later(close_after, lambda: _close(doomed))

    def stall(self, seconds: float) -> None:
        """Send nothing on any socket for so long; what is due comes afterwards."""
        self._stalled_until = asyncio.get_running_loop().time() + seconds / self.speed

    # Frames.

    def skip_ids(self, count: int, *, symbol: str | None = None) -> None:
        """Let the next ``count`` trades (of one or every symbol) happen without sending them."""
        for name in self._trades if symbol is None else (symbol,):
            self._trades[name].skip += count

    def void(self, count: int, *, symbol: str | None = None) -> None:
        """Give ``count`` of the coming ids away without a trade: they are shown with price and size 0."""
        for name in self._trades if symbol is None else (symbol,):
            self._trades[name].void(count, self._clock.now() // 1_000_000 + 1)

    def late(self, count: int, *, seconds: float) -> None:
        """Send the next ``count`` trade frames of each symbol so much later."""
        for streams in self._trades.values():
            streams.late, streams.delay = count, int(seconds * 1000)

    def duplicate(self, count: int) -> None:
        """Send each of the next ``count`` frames twice."""
        self.outlet.duplicate += count

    def reorder(self, count: int) -> None:
        """Keep the next ``count`` frames, then send them in another order; after 2 s at the latest."""
        self.outlet.reorder(count)
        self._later(2.0, self.outlet.release)

    def microseconds(self, seconds: float) -> None:
        """Send times in µs for so long, whatever the clients asked for."""
        self.outlet.unit = 1000
        self._later(seconds, lambda: setattr(self.outlet, "unit", 0))

    def malformed(self, kind: Malformed, *, count: int = 1) -> None:
        """Send ``count`` damaged frames to every client, beside the good ones."""
        name, streams = next(iter(self._trades.items()))
        now = self._clock.now() // 1_000_000
        payload = b'{"pad":"%b"}' % (b"x" * HUGE) if kind == "huge" else _MALFORMED[kind]
        if kind in ("nan", "overflow"):
            payload %= (now, name.encode(), max(streams.sent, 1), now)
        for _ in range(count):
            self.send_raw(payload)

    def send_raw(self, payload: bytes) -> None:
        """Send ``payload`` as one text frame to every client, whatever it holds."""
        for client in list(self.outlet.clients):
            client.queue(ws_frame(payload))
        self.flush()

    # Books.

    def skip_depth(self, count: int, *, symbol: str | None = None) -> None:
        """Leave out the next ``count`` diffs of one or every book: a break in the chain."""
        for name in self._books if symbol is None else (symbol,):
            self._books[name].skip += count

    def cross_book(self, count: int = 1, *, symbol: str | None = None) -> None:
        """Put a bid above the best ask into the next ``count`` diffs."""
        for name in self._books if symbol is None else (symbol,):
            self._books[name].cross += count

    def stale_snapshots(self, count: int, *, seconds: float = 60.0) -> None:
        """Answer the next ``count`` depth requests with a book so old that its diffs are gone."""
        self.rest.stale.extend([int(seconds * 1000)] * count)

    # REST.

    def refuse(
        self,
        status: int | None,
        *,
        retry_after: float | None = None,
        body: bytes = b"",
        on: str = "rest ws",
        count: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Answer REST and/or socket upgrades with ``status``, ``count`` times or for ``seconds``; None ends it."""
        headers = {"Content-Type": "text/html" if body.startswith(b"<") else "application/json"}
        if retry_after is not None:
            headers["Retry-After"] = f"{retry_after:g}"
        for surface in on.split():
            self._trouble[surface].clear()
            if status is not None:
                reply = Reply(status, body or b"{}", headers)
                self._add_trouble(surface, _instead(reply), count=count, seconds=seconds, refuses=True)

    def damage(self, kind: Damage, *, count: int = 1, seconds: float | None = None) -> None:
        """Spoil the next ``count`` REST answers: a truncated gzip body, a connection cut in mid-answer, a
        page of HTML, half of a JSON text, or nothing, each with status 200."""

        def change(reply: Reply) -> Reply:
            if kind == "html":
                return reply._replace(status=200, body=_HTML, headers={"Content-Type": "text/html"})
            if kind == "json":
                return reply._replace(body=reply.body[: len(reply.body) // 2])
            if kind == "empty":
                return reply._replace(body=b"")
            return reply._replace(cut=1) if kind == "cut" else reply._replace(broken=True)

        self._add_trouble("rest", change, count=count, seconds=seconds)

    def slow(self, delay: float, *, count: int = 1) -> None:
        """Give the next ``count`` REST answers only after ``delay`` seconds."""
        self._add_trouble("rest", lambda reply: reply._replace(delay=delay / self.speed), count=count)

    def skew(self, seconds: float) -> None:
        """Tell a wrong time on ``/time`` from now on."""
        self.rest.skew = int(seconds * 1000)

    def _add_trouble(
        self,
        on: str,
        change: Callable[[Reply], Reply],
        *,
        count: int | None = None,
        seconds: float | None = None,
        refuses: bool = False,
    ) -> None:
        until = None if seconds is None else self._clock.now() + int(seconds * 1e9)
        self._trouble[on].append(_Trouble(change, left=count, until=until, refuses=refuses))

    def _troubled(self, on: str) -> _Trouble | None:
        """The oldest trouble that applies to a request made now; it counts as used."""
        now = self._clock.now()
        waiting = self._trouble[on] = [trouble for trouble in self._trouble[on] if not trouble.over(now)]
        if waiting and waiting[0].left is not None:
            waiting[0].left -= 1
        return waiting[0] if waiting else None

    def flush(self) -> None:
        """Write what is queued for the clients, unless the venue stalls."""
        if asyncio.get_running_loop().time() >= self._stalled_until:
            for client in list(self.outlet.clients):
                client.flush()


def _instead(reply: Reply) -> Callable[[Reply], Reply]:
    return lambda _: reply


def _close(clients: Iterable[Client]) -> None:
    for client in clients:
        client.close()
