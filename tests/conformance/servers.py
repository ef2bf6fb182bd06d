"""The two servers the clients are pointed at: the simulated venue itself, and ours that collects from it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx2

from tapewick.sim.venue import SimVenue
from tests.conformance.tls import Certificate, terminated

__all__ = ["SYMBOL", "Addresses", "World", "gateway", "venue"]

SYMBOL = "BTCUSDT"
READY = 180.0


class World(NamedTuple):
    """What the venue's market is made from; ``origin`` is the UTC ms of its first trade."""

    seed: int
    rate: float
    origin: int


class Addresses(NamedTuple):
    """A server as clients see it, plain and through TLS; ``port`` is the plain one."""

    port: int
    tls_port: int

    @property
    def plain(self) -> tuple[str, str]:
        return f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}"

    @property
    def encrypted(self) -> tuple[str, str]:
        return f"https://127.0.0.1:{self.tls_port}", f"wss://127.0.0.1:{self.tls_port}"


@asynccontextmanager
async def venue(world: World, own: Certificate, folder: Path) -> AsyncIterator[Addresses]:
    """The simulated venue, with a proxy for those who want TLS."""
    async with (
        SimVenue((SYMBOL,), seed=world.seed, rate=world.rate, origin=world.origin) as sim,
        terminated(sim.port, own) as tls_port,
    ):
        yield Addresses(sim.port, tls_port)


@asynccontextmanager
async def gateway(world: World, own: Certificate, folder: Path) -> AsyncIterator[Addresses]:
    """``tapewick serve`` collecting from the simulated venue, its past filled in before; and one with TLS."""
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(
            SimVenue((SYMBOL,), seed=world.seed, rate=world.rate, origin=world.origin)
        )
        told = {
            "TAPEWICK_BINANCE__REST_URL": sim.rest_url,
            "TAPEWICK_BINANCE__WS_URL": sim.ws_url,
            "TAPEWICK_ENGINE__LATENESS_MS": "6000",  # a bar is pushed closed once: no pause of the machine is longer
            "TAPEWICK_BINANCE_GATEWAY__TRADE_FEE": "true",
        }
        plain, encrypted = folder / "plain", folder / "encrypted"
        past = ("backfill", f"binance:{SYMBOL}", "--from", str(world.origin), "--data", str(plain))
        await _finished(told, *past)
        shutil.copytree(plain, encrypted)
        port = await stack.enter_async_context(_serving(plain, told, None))
        told |= {"TAPEWICK_SERVER__TLS_CERT": str(own.cert), "TAPEWICK_SERVER__TLS_KEY": str(own.key)}
        yield Addresses(port, await stack.enter_async_context(_serving(encrypted, told, own)))


@asynccontextmanager
async def _serving(data: Path, settings: dict[str, str], own: Certificate | None) -> AsyncIterator[int]:
    """Port of a server that has a book and the venue's past."""
    process = await _started(settings, "serve", "--source", f"binance:{SYMBOL}", "--port", "0", "--data", str(data))
    lines: list[str] = []
    reader = asyncio.create_task(_kept(process, lines))
    try:
        url = await _come_true(lambda: _url(lines), process, lines)
        await _filled(url, own, process, lines)
        yield int(url.rpartition(":")[2])
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
        await reader
        await process.wait()


async def _started(settings: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    """A tapewick process without a configuration file, its output on one pipe."""
    command = (sys.executable, "-m", "tapewick", *arguments, "--no-config")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | settings
    pipe, merged = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=merged)


async def _finished(settings: dict[str, str], *arguments: str) -> None:
    """Run a command to its end; an error shows what it said."""
    process = await _started(settings, *arguments)
    said, _ = await process.communicate()
    assert process.returncode == 0, f"tapewick {' '.join(arguments)}: {said.decode()}"


async def _kept(process: asyncio.subprocess.Process, lines: list[str]) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        lines.append(line.decode().rstrip())


def _url(lines: list[str]) -> str:
    return next((found[0] for line in lines if (found := re.search(r"https?://[\w.:]+", line))), "")


async def _come_true(what: Callable[[], str], process: asyncio.subprocess.Process, lines: list[str]) -> str:
    """``what()`` once it is not empty; an error shows what the process said."""
    async with asyncio.timeout(READY):
        while not (value := what()):
            assert process.returncode is None, f"tapewick serve ended: {lines}"
            await asyncio.sleep(0.05)
    return value


async def _filled(url: str, own: Certificate | None, process: asyncio.subprocess.Process, lines: list[str]) -> None:
    """Wait until the server has a book, and no hole from the first trade of the venue on."""
    context = ssl.create_default_context(cafile=str(own.authority)) if own else True
    said = ""
    try:
        async with asyncio.timeout(READY), httpx2.AsyncClient(base_url=url, verify=context) as client:
            while process.returncode is None:
                depth = await client.get("/api/v3/depth", params={"symbol": SYMBOL, "limit": 5})
                coverage = await client.get(f"/v1/coverage/binance:{SYMBOL}")
                said = f"{depth.status_code} {depth.text}; {coverage.status_code} {coverage.text}"
                if depth.is_success and coverage.is_success and len(coverage.json()["ranges"]) == 1:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    raise AssertionError(f"the gateway has no data: {said}; it said {lines}")
