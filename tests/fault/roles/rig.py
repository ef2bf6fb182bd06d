"""The roles as processes of their own around real servers, collecting from the simulated venue of the test process.

Each process has its own data folder and log; the log's end is printed when the test fails.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2

from tapewick.clock import RealClock
from tapewick.model import TapeState
from tapewick.protocols import Store
from tapewick.sim.venue import SimVenue
from tapewick.stores._postgres_keys import KeyTable
from tapewick.stores.postgres import PostgresStore
from tests.buses.rig import BusRig
from tests.fault.rig import opened
from tests.parts.child import Child
from tests.parts.postgres import PostgresServer

__all__ = ["KILLS", "LEASE", "PARTITIONS", "SYMBOLS", "Cluster", "Role", "cluster"]

KILLS = int(os.environ.get("TAPEWICK_KILLS", "10"))
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT")
PARTITIONS = 4
LEASE = 2  # seconds
PATIENCE = 120.0  # seconds for whatever must happen at last, on a machine that does much else
ADDRESS = {"redis": "TAPEWICK_REDIS__URL", "nats": "TAPEWICK_NATS__URL", "kafka": "TAPEWICK_KAFKA__BROKERS"}


class HaltingClock(RealClock):
    """Real time, until trading is halted: then nothing happens at the venue any more."""

    def __init__(self) -> None:
        self._halted = 0

    def now(self) -> int:
        return self._halted or super().now()

    def halt(self) -> None:
        self._halted = super().now()


class Role(Child):
    """One process of a role. ``within``: words before the command, such as those that enter a namespace."""

    def __init__(self, title: str, words: Sequence[str], env: dict[str, str], within: Sequence[str] = ()) -> None:
        super().__init__()
        self.title, self._words, self._within = title, words, within
        self._env = env | {"TAPEWICK_DATA__DIR": str(self.home / "data")}
        self.url = self.grpc = ""

    def start(self) -> None:
        """Start; a gateway that is started again gets the ports it had."""
        words = [*self._within, sys.executable, "-m", "tapewick", "run", *self._words, "--no-config"]
        if self._words[0] == "gateway":
            words += ["--port", _port(self.url), "--grpc-port", _port(self.grpc)]
        with open(self.home / "log", "ab") as log:
            self._began = log.tell()
        self.run(words)

    def run(self, words: Sequence[str]) -> None:
        with open(self.home / "log", "ab") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, cwd=self.home, env=os.environ | self._env, stdin=subprocess.DEVNULL
            )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> bool:
        """Whether it was started and is gone, without having been ended."""
        return self._process is not None and self._process.poll() is not None

    @property
    def whole_log(self) -> str:
        return (self.home / "log").read_text(errors="replace") if (self.home / "log").exists() else ""

    @property
    def said(self) -> str:
        """What it has written since its last start."""
        return (self.home / "log").read_bytes()[self._began :].decode(errors="replace")

    def find_addresses(self) -> bool:
        """Take a gateway's addresses from its first line; whether it is there."""
        url, grpc = re.search(r"http://[\d.]+:\d+", self.said), re.search(r"gRPC ([\d.]+:\d+)", self.said)
        if url and grpc:
            self.url, self.grpc = url[0], grpc[1]
        return bool(url and grpc)

    def stop(self) -> int:
        """SIGTERM, as an operator ends it; the exit code."""
        assert self._process is not None
        self._process.terminate()
        code, self._process = self._process.wait(PATIENCE), None
        return code

    def pause(self) -> None:
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)


def _port(address: str) -> str:
    return address.rpartition(":")[2] or "0"


class Cluster:
    """The servers, the venue and the role processes, and how to wait for what they do."""

    def __init__(self, bus: BusRig, dsn: str, venue: SimVenue, clock: HaltingClock, store: Store) -> None:
        self.bus, self.dsn, self.venue, self.clock, self.store = bus, dsn, venue, clock, store
        self.roles: list[Role] = []
        self.symbols: tuple[str, ...] = SYMBOLS
        self.key = ""

    async def make_key(self) -> None:
        """A key that every gateway knows, for reading and for sending trades."""
        keys = KeyTable(self.dsn)
        await keys.start()
        try:
            _, self.key = await keys.create(["ingest", "read"])
        finally:
            await keys.stop()

    def id(self, symbol: str) -> str:
        """The instrument of one of the venue's symbols."""
        return f"binance:{symbol}"

    @property
    def ids(self) -> list[str]:
        return [self.id(symbol) for symbol in self.symbols]

    def settings(self, **more: str) -> dict[str, str]:
        """What every role is told by its environment."""
        return {
            "PYTHONUNBUFFERED": "1",
            "TAPEWICK_STORE__KIND": "postgres",
            "TAPEWICK_STORE__DSN": self.dsn,
            "TAPEWICK_STORE__POOL_MAX": "4",
            "TAPEWICK_BUS__KIND": self.bus.kind,
            "TAPEWICK_BUS__NAME": self.bus.name,
            ADDRESS[self.bus.kind]: self.bus.server.url,
            "TAPEWICK_ENGINE__PARTITIONS": str(PARTITIONS),
            "TAPEWICK_ENGINE__LEASE_S": str(LEASE),
            "TAPEWICK_BINANCE__REST_URL": self.venue.rest_url,
            "TAPEWICK_BINANCE__WS_URL": self.venue.ws_url,
            "TAPEWICK_BINANCE__SYMBOLS": ",".join(self.symbols),
            "TAPEWICK_BINANCE__BOOKS": "false",
            "TAPEWICK_REPAIR__WEIGHT_LIMIT": str(10**9),
            "TAPEWICK_VERIFY__INTERVAL_S": "0",
            "TAPEWICK_GRPC__ENABLED": "true",
            "TAPEWICK_SERVER__LOCAL_ADMIN": "true",
            "TAPEWICK_LOG__LEVEL": "info",
            **more,
        }

    def add(self, role: str, *words: str, within: Sequence[str] = (), **env: str) -> Role:
        """Start one more process of a role."""
        number = sum(one.title.startswith(role) for one in self.roles) + 1
        made = Role(f"{role} {number}", [role, *words], self.settings(**env), within)
        self.roles.append(made)
        made.start()
        return made

    async def ready(self, gateway: Role) -> Role:
        """Wait until a gateway answers."""
        await self.until(_told(gateway.find_addresses), f"{gateway.title} names its addresses")

        async def answers() -> bool:
            with suppress(httpx2.TransportError):
                async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
                    return (await client.get(gateway.url + "/health/live")).status_code == 200
            return False

        await self.until(answers, f"{gateway.title} answers")
        return gateway

    async def kill(self, *roles: Role) -> None:
        """SIGKILL to all, then wait until they are gone."""
        for role in roles:
            role.send(signal.SIGKILL)
        await asyncio.gather(*(asyncio.to_thread(role.kill) for role in roles))

    def check(self) -> None:
        """Raise when a process ended by itself; one whose port a stranger took meanwhile is started again."""
        for role in self.roles:
            if role.ended and "in use" in role.said:
                role.start()
            assert not role.ended, f"{role.title} ended by itself:\n{role.log()}"

    async def until(self, holds: Callable[[], Awaitable[Any]], what: str, seconds: float = PATIENCE) -> Any:
        """Wait for a true answer of ``holds()``; that answer."""
        end = time.monotonic() + seconds
        while not (answer := await holds()):
            self.check()
            assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
            await asyncio.sleep(0.02)
        return answer

    async def tapes(self) -> dict[str, TapeState]:
        """The stored tape of each of the venue's symbols that has one."""
        known = {instrument.id for instrument in await self.store.instruments()}
        return {id: await self.store.coverage(id) for id in self.ids if id in known}

    async def heads(self) -> dict[str, int]:
        """How many trades each tape has."""
        return {id: state.seq for id, state in (await self.tapes()).items()}

    async def grown(self, *, since: dict[str, int] | None = None, seconds: float = PATIENCE) -> dict[str, int]:
        """Wait until every tape has more trades than it had (now, or at ``since``); how many."""
        before = await self.heads() if since is None else since

        async def more() -> dict[str, int] | None:
            now = await self.heads()
            return now if all(now.get(id, 0) > before.get(id, 0) for id in self.ids) else None

        found: dict[str, int] = await self.until(more, f"more than {before} trades", seconds)
        return found

    async def leases(self, prefix: str) -> dict[str, str]:
        """Who holds the leases whose names begin so, by name."""
        held = await self.store.lease("onlooker", (), 1.0)
        return {name: lease.holder for name, lease in held.items() if name.startswith(prefix)}

    async def halt(self) -> dict[str, TapeState]:
        """End trading; wait until the store holds all that happened, without a hole."""
        self.clock.halt()
        now, markets = self.venue.now(), self.venue.markets()
        last = {self.id(symbol): markets[symbol].last_id(now) for symbol in self.symbols}

        async def all_sent() -> bool:  # what happened before the halt
            return all(self.venue.truth(symbol)[-1].id == last[self.id(symbol)] for symbol in self.symbols)

        async def whole() -> dict[str, TapeState] | None:
            states = await self.tapes()
            done = len(states) == len(last) and all(_whole(state, last[id]) for id, state in states.items())
            return states if done else None

        await self.until(all_sent, "the venue has sent what happened")
        try:
            found: dict[str, TapeState] = await self.until(whole, "the store holds what happened at the venue")
        except AssertionError as error:
            told = {id: (state.ranges.tolist(), opened(state)) for id, state in (await self.tapes()).items()}
            raise AssertionError(f"{error}; last ids {last}, stored {told}") from None
        return found

    def close(self, *, failed: bool) -> None:
        for role in self.roles:
            role.end(signal.SIGKILL)
            if failed:
                print(f"--- {role.title}\n{role.whole_log[-6000:]}")  # noqa: T201  # shown by pytest on a failure
            shutil.rmtree(role.home, ignore_errors=True)


def _whole(state: TapeState, last: int) -> bool:
    return len(state.ranges) == 1 and int(state.ranges[0, 1]) == last and not opened(state)


def _told(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return look()

    return ask


@asynccontextmanager
async def cluster(
    bus: BusRig, postgres: PostgresServer, *, seed: int = 1, rate: float = 50.0, host: str = "127.0.0.1"
) -> AsyncIterator[Cluster]:
    """The venue and an empty schema, no role yet."""
    clock, dsn, failed = HaltingClock(), postgres.database(), True
    listed = (*SYMBOLS, "XRPUSDT", "DOGEUSDT")
    async with (
        SimVenue(listed, seed=seed, rate=rate, clock=clock, host=host) as venue,
        PostgresStore(dsn, pool_max=3) as store,
    ):
        made = Cluster(bus, dsn, venue, clock, store)
        try:
            await made.make_key()
            yield made
            failed = False
        finally:
            await asyncio.to_thread(made.close, failed=failed)
