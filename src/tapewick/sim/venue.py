"""A venue on loopback that speaks Binance's trade protocol, for the demo, tests and load runs.

REST and WebSocket share one port. Trades come from a seeded market or from recordings, whether
or not anybody listens; faults are called by name, or listed beforehand as a script.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

from tapewick.clock import Clock, RealClock, RecordedClock
from tapewick.errors import ConfigError
from tapewick.sim.capture import CapturedFrame, Recorded, captured_trade, read_capture
from tapewick.sim.client import Client, ws_frame
from tapewick.sim.market import LISTING, Market, SimTrade
from tapewick.sim.rest import Answer, Tape, aggregate, answer, padded

__all__ = ["Fault", "SimVenue"]

DEFAULT_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
LONGEST_SLEEP_MS = 50
CATCH_UP_MS = 10_000  # after a suspended machine wakes, older trades are a hole, as at a real venue
PONG_DEADLINE = 60.0
CAPTURE_CHUNK = 256

_quiet = logging.getLogger("tapewick.picows")
_quiet.setLevel(logging.CRITICAL + 1)


class Fault(NamedTuple):
    """``action`` is the name of a fault method of ``SimVenue``, called ``after`` seconds."""

    after: float
    action: str
    args: Mapping[str, Any] = {}


class _Refusal(NamedTuple):
    status: int
    retry_after: float | None
    body: bytes


class SimVenue:
    """Serves while its context is open.

    ``rate``: trades per second and symbol. ``origin``: UTC ms at which trade 1 may happen; a fixed
    one makes a restarted venue continue its tape. Without it, ids begin ``catch_up`` minutes before
    now. ``captures``: recordings to serve instead, from the first subscription on, at
    ``speed`` times real time (None: as fast as the clients read).
    """

    def __init__(
        self,
        symbols: Sequence[str] = DEFAULT_SYMBOLS,
        *,
        seed: int = 1,
        rate: float = 20.0,
        origin: int | None = None,
        catch_up: float = 0.0,
        captures: Sequence[Path] = (),
        speed: float | None = None,
        faults: Sequence[Fault] = (),
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        ping_every: float = 20.0,
    ) -> None:
        self._clock = clock or RealClock()
        self._captures = captures
        self._speed = speed
        self._faults = faults
        self._address = host, port
        self._ping_every = ping_every
        start = self._clock.now() // 1_000_000 - int(catch_up * 60_000) if origin is None else origin
        self._tapes = {symbol: self._tape(symbol, seed, rate, start) for symbol in symbols}
        self._sent: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._subscribers: dict[str, set[Client]] = {}
        self._clients: set[Client] = set()
        self._subscribed = asyncio.Event()
        self._refusals: dict[str, _Refusal] = {}
        self._stalled_until = 0.0
        self._skip: dict[str, int] = {}
        self._weight = (0, 0)
        self._tasks: list[asyncio.Task[None]] = []
        self.played = asyncio.Event()
        self.requests: list[str] = []

    def _tape(self, symbol: str, seed: int, rate: float, origin: int) -> Tape:
        if self._captures:
            return Recorded(symbol)
        if symbol not in LISTING:
            raise ConfigError(f"the simulated venue does not list {symbol!r}; use any of {' '.join(LISTING)}")
        return Market(LISTING[symbol], seed=seed, rate=rate, origin=origin)

    async def __aenter__(self) -> Self:
        host, port = self._address
        self._server = await ws_create_server(self._accept, host, port, logger_name=_quiet, max_frame_size=1 << 16)
        self._address = self._server.sockets[0].getsockname()[:2]
        now = self._clock.now() // 1_000_000
        self._sent = {symbol: tape.last_id(now) for symbol, tape in self._tapes.items()}
        self._first = {symbol: last + 1 for symbol, last in self._sent.items()}
        feeder = self._play() if self._captures else self._generate()
        self._tasks = [asyncio.create_task(work) for work in (feeder, self._ping(), self._run_script())]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in list(self._clients):
            client.abort()
        self._server.close()
        await self._server.wait_closed()
        for result in ended:
            if isinstance(result, Exception):
                raise result

    @property
    def port(self) -> int:
        return int(self._address[1])

    @property
    def rest_url(self) -> str:
        return f"http://{self._address[0]}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self._address[0]}:{self.port}"

    @property
    def connections(self) -> int:
        """Socket clients the venue has not lost; muted ones count."""
        return len(self._clients)

    def truth(self, symbol: str) -> list[SimTrade]:
        """Every trade that happened since the venue opened, sent or not."""
        return self._tapes[symbol].trades(self._first[symbol], self._sent[symbol])

    def now(self) -> int:
        """The venue's time, UTC ms."""
        return self._clock.now() // 1_000_000

    def markets(self) -> dict[str, Market]:
        """The generated market of each symbol; none where recordings are served."""
        return dict(self._markets())

    # Faults, callable at any time and by name from a script.

    def drop_connections(self, *, fin: bool = True) -> None:
        """Cut every socket client off: closed, or (without ``fin``) silent for ever and still open."""
        for client in list(self._clients):
            if fin:
                client.abort()
            else:
                client.mute = True

    def stall(self, seconds: float) -> None:
        """Send nothing on any socket for so long; what is due comes afterwards."""
        self._stalled_until = asyncio.get_running_loop().time() + seconds

    def skip_ids(self, count: int, *, symbol: str | None = None) -> None:
        """Let the next ``count`` trades (of one or every symbol) happen without sending them."""
        for name in self._tapes if symbol is None else (symbol,):
            self._skip[name] = self._skip.get(name, 0) + count

    def refuse(
        self, status: int | None, *, retry_after: float | None = None, body: bytes = b"", on: str = "rest ws"
    ) -> None:
        """Answer REST and/or socket upgrades with ``status``; None ends it."""
        for surface in on.split():
            if status is None:
                self._refusals.pop(surface, None)
            else:
                self._refusals[surface] = _Refusal(status, retry_after, body)

    def send_raw(self, payload: bytes) -> None:
        """Send ``payload`` as one text frame to every client, whatever it holds."""
        for client in self._clients:
            client.queue(ws_frame(payload))
        self._flush()

    def shut_down(self) -> None:
        """Announce the end of all connections the way the venue does since 2026."""
        event = b'{"e":"serverShutdown","E":%d}' % (self._clock.now() // 1_000_000)
        for client in self._clients:
            wrapped = b'{"stream":"!serverShutdown","data":%b}' % event
            client.queue(ws_frame(wrapped if client.combined else event))
        self._flush()

    # What a client asks of its venue.

    def subscribe(self, client: Client, streams: list[str]) -> None:
        self._clients.add(client)
        for stream in streams:
            client.streams[stream] = None
            self._subscribers.setdefault(stream, set()).add(client)
        if streams:
            self._subscribed.set()

    def unsubscribe(self, client: Client, streams: list[str]) -> None:
        for stream in streams:
            client.streams.pop(stream, None)
            self._subscribers.get(stream, set()).discard(client)

    def forget(self, client: Client) -> None:
        self.unsubscribe(client, list(client.streams))
        self._clients.discard(client)

    # Requests.

    def _accept(self, request: WSUpgradeRequest) -> Client | WSUpgradeResponseWithListener:
        url = urlsplit(request.path.decode("latin-1"))
        self.requests.append(url.path)
        socket = "upgrade" in request.headers.get("Connection", "").lower()
        if refusal := self._refusals.get("ws" if socket else "rest"):
            headers = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
            headers["Content-Type"] = "text/html" if refusal.body.startswith(b"<") else "application/json"
            return _http(refusal.status, refusal.body or b"{}", headers)
        if socket:
            return self._upgrade(url.path, url.query)
        query = dict(parse_qsl(url.query))
        return self._respond(answer(self._tapes, self._clock.now() // 1_000_000, url.path, query))

    def _respond(self, reply: Answer) -> WSUpgradeResponseWithListener:
        minute = self._clock.now() // 60_000_000_000
        used = reply.weight + (self._weight[1] if self._weight[0] == minute else 0)
        self._weight = minute, used
        headers = {"Content-Type": "application/json;charset=UTF-8", "X-MBX-USED-WEIGHT-1M": str(used)}
        return _http(reply.status, reply.body, headers)

    def _upgrade(self, path: str, query: str) -> Client | WSUpgradeResponseWithListener:
        for tier in ("/public", "/market"):
            path = path.removeprefix(tier)
        if path == "/stream":
            listed = next((part[8:] for part in query.split("&") if part.startswith("streams=")), "")
            return Client(self, [s for s in unquote(listed).split("/") if s], combined=True)
        if path == "/ws" or path.startswith("/ws/"):
            return Client(self, [s for s in unquote(path[4:]).split("/") if "@" in s], combined=False)
        return _http(404, b'{"code":-1000,"msg":"Unknown path."}', {})

    # Trades.

    async def _generate(self) -> None:
        while True:
            now = self._clock.now() // 1_000_000
            # A millisecond is complete only once it has passed: its orders may fill several trades.
            for symbol, tape in self._tapes.items():
                self._emit(symbol, tape, now)
            self._flush()
            due = min((tape.time_of(self._sent[s] + 1) for s, tape in self._markets()), default=now)
            await self._clock.sleep(min(max(due + 1 - now, 1), LONGEST_SLEEP_MS) / 1000)

    def _markets(self) -> list[tuple[str, Market]]:
        return [(symbol, tape) for symbol, tape in self._tapes.items() if isinstance(tape, Market)]

    def _emit(self, symbol: str, tape: Tape, now: int) -> None:
        first, last = self._sent[symbol] + 1, tape.last_id(now)
        if last < first:
            return
        first = max(first, tape.first_id_at(now - CATCH_UP_MS))
        if unsent := min(self._skip.get(symbol, 0), last - first + 1):
            self._skip[symbol] -= unsent
            first += unsent
        self._sent[symbol] = last
        name = symbol.lower()
        raw, agg = self._subscribers.get(f"{name}@trade"), self._subscribers.get(f"{name}@aggTrade")
        if not raw and not agg:
            return
        rows = tape.trades(first, last)
        for trade in rows if raw else ():
            self._publish(f"{name}@trade", _trade_event(symbol, trade, now))
        for trade in rows if agg else ():
            if trade.id == trade.agg_first:
                fills = tape.trades(trade.agg_first, trade.agg_last)
                self._publish(f"{name}@aggTrade", msgspec.json.encode(aggregate(symbol, fills, now)))

    def _publish(self, stream: str, data: bytes) -> None:
        raw = combined = b""
        for client in self._subscribers.get(stream, ()):
            if client.combined:
                combined = combined or ws_frame(b'{"stream":"%b","data":%b}' % (stream.encode(), data))
                client.queue(combined)
            else:
                raw = raw or ws_frame(data)
                client.queue(raw)

    def _flush(self) -> None:
        if asyncio.get_running_loop().time() >= self._stalled_until:
            for client in list(self._clients):
                client.flush()

    async def _play(self) -> None:
        """Serve the recordings one after the other, from the first subscription on."""
        await self._subscribed.wait()
        clock = RecordedClock(self._speed)
        for path in self._captures:
            for number, frame in enumerate(read_capture(path)):
                self._replay(frame)
                if self._speed is not None:
                    await clock.reach(frame.recv)
                    self._flush()
                elif number % CAPTURE_CHUNK == CAPTURE_CHUNK - 1:
                    await self._drained()
        await self._drained()
        self.played.set()

    def _replay(self, frame: CapturedFrame) -> None:
        if (found := captured_trade(frame)) is not None:
            symbol, trade = found
            tape = self._tapes.get(symbol)
            if isinstance(tape, Recorded):
                tape.add(trade)
                self._first[symbol] = min(self._first[symbol], trade.id) if self._sent[symbol] else trade.id
                self._sent[symbol] = max(self._sent[symbol], trade.id)
        self._publish(frame.stream, frame.data)

    async def _drained(self) -> None:
        self._flush()
        await asyncio.sleep(0)
        for client in list(self._clients):
            await client.writable.wait()

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._ping_every)
            for client in list(self._clients):
                if loop.time() - client.answered > self._ping_every + PONG_DEADLINE:
                    client.abort()
                else:
                    client.queue(ws_frame(b"%d" % (self._clock.now() // 1_000_000), 9))
            self._flush()

    async def _run_script(self) -> None:
        elapsed = 0.0
        for fault in sorted(self._faults, key=lambda fault: fault.after):
            await self._clock.sleep(fault.after - elapsed)
            elapsed = fault.after
            getattr(self, fault.action)(**fault.args)


def _trade_event(symbol: str, trade: SimTrade, now: int) -> bytes:
    return (
        f'{{"e":"trade","E":{now},"s":"{symbol}","t":{trade.id},"p":"{padded(trade.price)}",'
        f'"q":"{padded(trade.size)}","T":{trade.time},"m":{"true" if trade.buyer_is_maker else "false"},"M":true}}'
    ).encode()


def _http(status: int, body: bytes, headers: Mapping[str, str]) -> WSUpgradeResponseWithListener:
    if status < 400:
        response = WSUpgradeResponse.create_ok_response(body, headers)
    else:
        response = WSUpgradeResponse.create_error_response(status, body, headers)
    return WSUpgradeResponseWithListener(response, None)


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    venue = SimVenue(
        options.symbols,
        seed=options.seed,
        rate=options.rate,
        origin=options.origin,
        captures=options.capture,
        speed=options.speed,
        port=options.port,
    )
    async with venue:
        sys.stdout.write(f"{venue.rest_url} {venue.ws_url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the venue until it is interrupted; its two addresses are the first line of output."""
    parser = argparse.ArgumentParser(prog="python -m tapewick.sim.venue", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 lets the system choose")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same trades")
    parser.add_argument("--rate", type=float, default=20.0, help="trades per second and symbol")
    parser.add_argument("--origin", type=int, help="UTC ms of the first trade; default now")
    parser.add_argument("--symbols", nargs="+", default=DEFAULT_SYMBOLS, help="symbols to list")
    parser.add_argument("--capture", nargs="+", type=Path, default=(), help="serve these recordings instead")
    parser.add_argument("--speed", type=float, help="times real time; default as fast as clients read")
    asyncio.run(_serve(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
