"""A venue on loopback that speaks Binance's market data protocol, for the demo, tests and load runs.

REST and WebSocket share one port. Trades, books and bars come from a seeded market, or trades and books
from recordings, whether or not anybody listens; faults are called by name, or listed beforehand as a
script. ``truth``, ``bars`` and ``book`` tell what a perfect client must have.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from tapewick.clock import Clock, RealClock
from tapewick.errors import ConfigError
from tapewick.sim.bars import Bar, Grid
from tapewick.sim.book import Levels
from tapewick.sim.client import Client, ws_frame
from tapewick.sim.faults import Fault, Faults
from tapewick.sim.frames import array_frame, mini_body
from tapewick.sim.http import Connection, Door, Reply, Request, refusal
from tapewick.sim.lapse import LapseClock
from tapewick.sim.market import LISTING, Market, SimTrade
from tapewick.sim.outlet import Outlet
from tapewick.sim.player import Player
from tapewick.sim.recorded import Recorded
from tapewick.sim.rest import Rest
from tapewick.sim.script import faults
from tapewick.sim.streams import NEVER, BarStreams, BookStreams, TradeStreams
from tapewick.sim.symbol import DAY, Symbol

__all__ = ["Fault", "SimVenue", "faults"]

DEFAULT_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
LONGEST_SLEEP_MS = 50
PONG_DEADLINE = 60.0
PONG_AT_LEAST = 10.0  # of real time, however fast the venue's clock runs: who answers becomes no faster
LIFETIME = 24 * 3600.0
PATIENCE = 10  # requests over the limit in one minute before the venue bans
BAN_SECONDS = 120


class SimVenue(Faults):
    """Serves while its context is open.

    ``rate``: trades per second and symbol. ``origin``: UTC ms at which trade 1 may happen; a fixed
    one makes a restarted venue continue its tape. Without it, ids begin ``catch_up`` minutes before
    now. ``speed``: times real time (for recordings None: as fast as the clients read); a generated venue's
    clock then runs so much faster, and ``venue.clock`` is the one to give its clients.
    ``captures``: recordings to serve instead, from the first subscription on.
    ``product``: whose dialect the frames are in. ``lifetime``: seconds a connection may last.
    ``weight_limit``: request weight per minute beyond which 429 is answered, and 418 to who goes on.
    ``candid``: its list of symbols says that they are simulated.
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
        product: Literal["spot", "futures"] = "spot",
        lifetime: float = LIFETIME,
        weight_limit: int | None = None,
        candid: bool = False,
    ) -> None:
        lapse = LapseClock(speed) if speed is not None and not captures else None
        self._clock = clock or lapse or RealClock()
        self.speed = self._clock.speed if isinstance(self._clock, LapseClock) else 1.0
        self._captures, self._replay_speed = captures, speed
        self._script = faults
        self._address = host, port
        self._ping_every, self._lifetime = ping_every, lifetime
        self._weight_limit = weight_limit
        start = self.now() - int(catch_up * 60_000) if origin is None else origin
        self._symbols = {name: Symbol(self._tape(name, seed, rate, start)) for name in symbols}
        self.outlet = Outlet(seed)
        self.rest = Rest(self._symbols, futures=product == "futures", candid=candid)
        self._make_streams(futures=product == "futures")
        self._init_faults()
        self._connections: set[asyncio.Transport] = set()
        self._subscribed = asyncio.Event()
        self._weight = self._over = (0, 0)
        self._banned_until = 0
        self._minis: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.played = asyncio.Event()
        self.script_done = asyncio.Event()
        self.injected: Counter[str] = Counter()
        self.requests: list[str] = []

    def _tape(self, symbol: str, seed: int, rate: float, origin: int) -> Market | Recorded:
        if self._captures:
            return Recorded(symbol)
        if symbol not in LISTING:
            raise ConfigError(f"the simulated venue does not list {symbol!r}; use any of {' '.join(LISTING)}")
        return Market(LISTING[symbol], seed=seed, rate=rate, origin=origin)

    def _make_streams(self, *, futures: bool) -> None:
        each = self._symbols.items()
        patience = max(self.speed, 1.0)
        self._trades = {n: TradeStreams(s, self.outlet, futures=futures, patience=patience) for n, s in each}
        self._books = {n: BookStreams(s, s.book, self.outlet, futures=futures) for n, s in each if s.book}
        self._bars = {n: BarStreams(s, self.outlet, self._spawn) for n, s in each}

    async def __aenter__(self) -> Self:
        host, port = self._address
        door = Door(self._upgrade, self._answer)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(door, self._connections), host, port)
        self._address = self._server.sockets[0].getsockname()[:2]
        for streams in self._trades.values():
            streams.start(self.now())
        for work in (self._play() if self._captures else self._generate(), self._ping(), self._run_script()):
            self._spawn(work)
        return self

    async def __aexit__(self, *exc: object) -> None:
        ending = list(self._tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for client in list(self.outlet.clients):
            client.abort()
        for transport in list(self._connections):
            transport.abort()
        self._server.close()
        await self._server.wait_closed()
        if self._failure is not None:
            raise self._failure

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

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
    def clock(self) -> Clock:
        """The venue's clock, to be shared with clients under test."""
        return self._clock

    @property
    def connections(self) -> int:
        """Socket clients the venue has not lost; muted ones count."""
        return len(self.outlet.clients)

    def now(self) -> int:
        """The venue's time, UTC ms."""
        return self._clock.now() // 1_000_000

    def markets(self) -> dict[str, Market]:
        """The generated market of each symbol; none where recordings are served."""
        return {name: symbol.tape for name, symbol in self._symbols.items() if isinstance(symbol.tape, Market)}

    # What a perfect client must have.

    def truth(self, symbol: str) -> list[SimTrade]:
        """Every trade that happened since the venue opened, sent or not; void ids are no trades."""
        streams, tape = self._trades[symbol], self._symbols[symbol].tape
        found = tape.trades(streams.first, streams.sent)
        voids = tape.voids if isinstance(tape, Market) else ()
        return [trade for trade in found if trade.id not in voids] if voids else found

    def voids(self, symbol: str) -> set[int]:
        """Ids that were given away without a trade."""
        tape = self._symbols[symbol].tape
        return tape.voids if isinstance(tape, Market) else set()

    def bars(self, symbol: str, interval: str, *, start: int, end: int) -> list[Bar]:
        """The bars of one of the venue's intervals that begin in [``start``, ``end``), empty ones included."""
        known, now = self._symbols[symbol], self._symbols[symbol].at(self.now())
        grid = Grid.of(interval)
        if grid is None:
            raise ConfigError(f"the venue has no interval {interval!r}")
        spans = known.bars.page(grid, now, start=start, end=end - 1, limit=1 << 30)
        return [known.bars.bar(first, last, now) for first, last in spans]

    def book(self, symbol: str, update_id: int | None = None) -> tuple[int, Levels]:
        """Update id and levels (mantissas) of the book after the newest update not above ``update_id``."""
        book = self._symbols[symbol].book
        if book is None:
            raise ConfigError("a recorded book is what its frames say; there is no other truth of it")
        step = book.step_at(self.now()) if update_id is None else book.step_of(update_id)
        return book.last_id(step), book.levels(step)

    # What a client asks of its venue.

    def subscribe(self, client: Client, streams: list[str]) -> None:
        self.outlet.subscribe(client, streams)
        if streams:
            self._subscribed.set()

    def unsubscribe(self, client: Client, streams: list[str]) -> None:
        self.outlet.unsubscribe(client, streams)

    def forget(self, client: Client) -> None:
        self.outlet.forget(client)

    # Requests.

    def _upgrade(self, request: WSUpgradeRequest) -> Client | WSUpgradeResponseWithListener:
        url = urlsplit(request.path.decode("latin-1"))
        self.requests.append(url.path)
        if (trouble := self._troubled("ws")) is not None:
            return refusal(trouble.change(Reply(200, b"")))
        path = url.path
        for tier in ("/public", "/market"):
            path = path.removeprefix(tier)
        query = dict(part.partition("=")[::2] for part in url.query.split("&"))
        unit = 1000 if query.get("timeUnit", "").upper() == "MICROSECOND" else 1
        if path == "/stream":
            streams = [s for s in unquote(query.get("streams", "")).split("/") if s]
        elif path == "/ws" or path.startswith("/ws/"):
            streams = [s for s in unquote(path[4:]).split("/") if "@" in s]
        else:
            return refusal(Reply(404, b'{"code":-1000,"msg":"Unknown path."}'))
        return Client(self, streams, combined=path == "/stream", unit=unit, since=self._clock.now())

    async def _answer(self, request: Request) -> Reply:
        url = urlsplit(request.target)
        self.requests.append(url.path)
        trouble = self._troubled("rest")
        if trouble is not None and trouble.refuses:
            return trouble.change(Reply(200, b""))
        reply = self._limited() or await self._body(url.path, url.query, request)
        return reply if trouble is None else trouble.change(reply)

    async def _body(self, path: str, query: str, request: Request) -> Reply:
        unit = 1000 if request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND" else 1
        answer = await self.rest.answer(self.now(), path, dict(parse_qsl(query)), unit=unit)
        minute = self._clock.now() // 60_000_000_000
        used = answer.weight + (self._weight[1] if self._weight[0] == minute else 0)
        self._weight = minute, used
        return Reply(answer.status, answer.body, {"X-MBX-USED-WEIGHT": f"{used}", "X-MBX-USED-WEIGHT-1M": f"{used}"})

    def _limited(self) -> Reply | None:
        """429 once the minute's weight is used up, 418 for who asks on regardless; None while all is well."""
        now = self.now()
        minute = now // 60_000
        if now < self._banned_until:
            wait, status = self._banned_until - now, 418
        elif self._weight_limit is None or self._weight[0] != minute or self._weight[1] < self._weight_limit:
            return None
        else:
            wait, status = 60_000 - now % 60_000, 429
            self._over = (minute, self._over[1] + 1 if self._over[0] == minute else 1)
            if self._over[1] > PATIENCE:
                self._banned_until = now + BAN_SECONDS * 1000
        body = b'{"code":-1003,"msg":"Too much request weight used; please use WebSocket Streams for live updates."}'
        return Reply(status, body, {"Retry-After": f"{-(-wait // 1000)}"})

    # Time passing.

    async def _generate(self) -> None:
        while True:
            now = self.now()
            # A millisecond is complete only once it has passed: its orders may fill several trades.
            due = now + int(LONGEST_SLEEP_MS * max(self.speed, 1.0))
            for name in self._symbols:
                for streams in (self._trades[name], self._books[name], self._bars[name]):
                    streams.advance(now)
                    due = min(due, streams.due())
            self._tell_minis(now)
            self.flush()
            self._end_old_connections()
            await self._clock.sleep(max(due - now, 1) / 1000)

    def _tell_minis(self, now: int) -> None:
        if not self.outlet.kinds("!miniTicker") or (self._minis or 0) > now:
            return
        if self._minis is None:
            self._minis = NEVER
            self._spawn(self._open_minis(now))
            return
        self._minis = now + 1000
        days = [(symbol, symbol.day(now)) for symbol in self._symbols.values()]
        self.outlet.publish(
            "!miniTicker@arr", lambda unit: array_frame([mini_body(symbol, day, now, unit) for symbol, day in days])
        )

    async def _open_minis(self, now: int) -> None:
        for symbol in self._symbols.values():
            await symbol.bars.warm(now - DAY, now, now)
        self._minis = 0

    def _end_old_connections(self) -> None:
        oldest = self._clock.now() - int(self._lifetime * 1e9)
        for client in [client for client in self.outlet.clients if client.since < oldest]:
            client.close()

    async def _play(self) -> None:
        await self._subscribed.wait()
        player = Player(self._symbols, self._trades, self.outlet, self.flush, speed=self._replay_speed)
        for path in self._captures:
            await player.play(path)
        self.played.set()

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        every = self._ping_every / self.speed
        while True:
            await asyncio.sleep(every)
            for client in list(self.outlet.clients):
                if loop.time() - client.answered > every + max(PONG_DEADLINE / self.speed, PONG_AT_LEAST):
                    client.abort()
                else:
                    client.queue(ws_frame(b"%d" % self.now(), 9))
            self.flush()

    async def _run_script(self) -> None:
        elapsed = 0.0
        for fault in sorted(self._script, key=lambda fault: fault.after):
            await self._clock.sleep(fault.after - elapsed)
            elapsed = fault.after
            getattr(self, fault.action)(**fault.args)
            self.injected[fault.action] += 1
        self.script_done.set()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the venue until it is interrupted; its two addresses are the first line of output."""
    from tapewick.sim.command import run

    run(SimVenue, arguments)


if __name__ == "__main__":
    main()
