"""One run of every client against one server: what each of them read, or how it failed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from tapewick.sim.market import LISTING
from tests.conformance import environments
from tests.conformance.servers import SYMBOL, Addresses, World, gateway, venue
from tests.conformance.tls import Certificate, certificate
from tests.conformance.truth import Truth

__all__ = ["CLIENTS", "Evidence", "gathered"]

SCRIPTS = Path(__file__).resolve().parent / "clients"
CLIENTS = {
    "binance-sdk-spot": ("binance-sdk-spot", "with_sdk.py"),
    "nautilus_trader": ("nautilus_trader", "with_nautilus.py"),
    "ccxt.pro": ("ccxt", "with_ccxt_pro.py"),
    "python-binance": ("python-binance", "with_python_binance.py"),
    "binance-connector": ("binance-connector", "with_connector.py"),
    "cryptofeed": ("cryptofeed", "with_cryptofeed.py"),
    "ccxt": ("ccxt", "with_ccxt.py"),
}
"""Client -> its environment and its script, those that take longest first."""
SERVERS = {"venue": venue, "gateway": gateway}
PAST_MINUTES = 12
AT_ONCE = 3  # seven interpreters importing at the same time would starve the server and time out
PATIENCE = 240.0


class Evidence(NamedTuple):
    """``told`` by client, or in ``failed`` what it wrote to stderr; the run took place in [start, end], UTC ms."""

    seed: int
    rate: float
    origin: int
    start: int
    end: int
    told: dict[str, dict[str, Any]]
    failed: dict[str, str]

    @property
    def truth(self) -> Truth:
        return Truth(SYMBOL, seed=self.seed, rate=self.rate, origin=self.origin)


def gathered(server: str, folder: Path) -> Evidence:
    """The evidence of ``server``; workers of one test run that share ``folder`` make it once."""
    kept = folder / f"conformance-{server}.json"
    with open(kept.with_suffix(".lock"), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not kept.exists():
            own = folder / f"conformance-{server}"
            own.mkdir()
            kept.write_text(json.dumps(asyncio.run(_run(server, own))))
        return Evidence(*json.loads(kept.read_text()))


async def _run(server: str, folder: Path) -> Evidence:
    pythons = {name: environments.python(name) for name in {environment for environment, _ in CLIENTS.values()}}
    own = certificate(folder)
    now = time.time_ns() // 1_000_000
    world = World(seed=11, rate=20.0, origin=now - PAST_MINUTES * 60_000 - 7_123)
    turns = asyncio.Semaphore(AT_ONCE)
    told: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    async with SERVERS[server](world, own, folder) as there:
        start = time.time_ns() // 1_000_000

        async def one(name: str, environment: str, script: str) -> None:
            async with turns:
                answer = await _read(pythons[environment], script, there, own, folder)
            if isinstance(answer, str):
                failed[name] = answer
            else:
                told[name] = answer

        await asyncio.gather(*(one(name, *client) for name, client in CLIENTS.items()))
    return Evidence(*world, start, time.time_ns() // 1_000_000, told, failed)


async def _read(python: Path, script: str, there: Addresses, own: Certificate, folder: Path) -> dict[str, Any] | str:
    """What the script told, or its last words."""
    rest, ws = there.encrypted if script == "with_cryptofeed.py" else there.plain
    listing = LISTING[SYMBOL]
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "SSL_CERT_FILE": str(own.authority),
        "REQUESTS_CA_BUNDLE": str(own.authority), "BINANCE_API_KEY": "any", "BINANCE_API_SECRET": "any",
    }  # fmt: skip
    out, said = folder / f"{script}.out", folder / f"{script}.err"
    command = (python, SCRIPTS / script, rest, ws, SYMBOL, listing.base, listing.quote)
    with out.open("wb") as stdout, said.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdout=stdout, stderr=stderr
        )
        try:
            ended = f"exit {await asyncio.wait_for(process.wait(), PATIENCE)}"
        except TimeoutError:
            ended = f"no end within {PATIENCE} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    errors = said.read_text()[-4000:]
    lines = [line for line in out.read_text().splitlines() if line.startswith("{")]
    if not lines:
        return f"{ended}: {errors}"
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer | {"stderr": f"{ended}\n{errors}"}
