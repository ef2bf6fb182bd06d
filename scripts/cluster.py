"""Real servers and every role on loopback, for `make cluster BUS=… STORE=…`; prints one URL and runs until stopped.

    python scripts/cluster.py --bus redis|nats|kafka --store postgres|timescale [--engines N] [--gateways N]
                              [--collectors N] [--scanners N] [--sharded] [--port P]

The servers are those the tests run on, with throw-away data. Everything is in a session of its own, named by the pid
noted for `make stop`, so that nothing stays behind even where this script is killed. Roles share no file: each has a
data folder and a log of its own. A role that ends is left dead: the others take over.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster_chain import OrderChain, missing
from stop import swept

ROOT = Path(__file__).resolve().parent.parent
LOGS = Path(os.environ.get("TAPEWICK_LOGS") or ROOT / "logs")
ADDRESS = {"redis": "TAPEWICK_REDIS__URL", "nats": "TAPEWICK_NATS__URL", "kafka": "TAPEWICK_KAFKA__BROKERS"}
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT")
COLLECTED = SYMBOLS[:2]
ORIGIN = 1_767_225_600_000  # of the simulated market, UTC ms
PATIENCE = 90.0  # seconds a start may take
ENDING = 15.0  # seconds a role may take to end


class Cluster:
    """What was started, newest last."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._home = Path(tempfile.mkdtemp(prefix="tapewick-cluster-"))
        self._servers: list[Any] = []
        self.roles: dict[str, subprocess.Popen[bytes]] = {}
        self._env: dict[str, str] = {}
        self.stopping = False

    def start(self) -> str:
        """Start everything; the URL of the first gateway."""
        own = self._options
        with ThreadPoolExecutor(2) as pool:
            servers = [pool.submit(self._store, own.store), pool.submit(self._bus, own.bus)]
            store, bus = (server.result() for server in servers)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TAPEWICK_")}
        rest_url, ws_url = self._venue(kept).split()
        self._env = kept | {
            "TAPEWICK_STORE__KIND": "postgres",
            "TAPEWICK_STORE__DSN": store.dsn(),
            "TAPEWICK_BUS__KIND": own.bus,
            ADDRESS[own.bus]: bus.url,
            "TAPEWICK_BINANCE__REST_URL": rest_url,
            "TAPEWICK_BINANCE__WS_URL": ws_url,
            "TAPEWICK_LOG__LEVEL": "info",
            "TAPEWICK_SERVER__LOCAL_ADMIN": "true",
        }
        say(f"venue, pid {self.roles['venue'].pid}")
        words = {"collect": ["--source", *(f"sim:{symbol}" for symbol in COLLECTED)]}
        counts = {"engine": own.engines, "gateway": own.gateways, "collect": own.collectors, "scan": self._chain()}
        url = ""
        # One after the other as they depend on each other, though any order would do.
        for role, count in counts.items():
            names = [f"{role}-{number}" for number in range(1, count + 1)]
            for number, name in enumerate(names):
                port = str(own.port) if name == "gateway-1" else "0"
                more = ["--port", port] if role == "gateway" else words.get(role, [])
                split = ["--shard", f"{number}/{count}"] if own.sharded and role == "collect" else []
                self._role(name, "run", role, *more, *split)
            for name in names:
                line = self._first_line(name)
                say(f"{name}, pid {self.roles[name].pid}: {line.partition(': ')[2]}")
                url = url or next((word for word in line.split() if word.startswith("http")), "")
        return url

    def _chain(self) -> int:
        """Start a chain with orders on it, where there can be one; how many scanners follow them."""
        count: int = self._options.scanners
        if count and (why := missing()):
            say(f"no scanners: {why}")
            return 0
        if count:
            chain = OrderChain()
            self._servers.append(chain)
            chain.start()
            self._env |= chain.env
        return count

    def _store(self, kind: str) -> Any:
        from tests.parts.postgres import EXTRACT, PostgresServer

        if kind == "timescale" and not (os.geteuid() == 0 and (EXTRACT / "recipe").is_file()):
            raise SystemExit(
                "cluster: TimescaleDB is not there: python scripts/timescale.py (as root; needs mmdebstrap)"
            )
        server = PostgresServer(durable=True, root=EXTRACT if kind == "timescale" else None)
        self._servers.append(server)
        server.start()
        say(f"PostgreSQL {server.sql('SHOW server_version').split()[0]} ({kind}), pid {server.pid}, port {server.port}")
        return server

    def _bus(self, kind: str) -> Any:
        server: Any = getattr(import_module(f"tests.parts.{kind}"), f"{kind.capitalize()}Server")()
        self._servers.append(server)
        server.start()
        return server

    def _venue(self, env: dict[str, str]) -> str:
        """Start the simulated venue; its two addresses."""
        words = ["-m", "tapewick.sim.venue", "--candid", "--origin", str(ORIGIN), "--rate", str(self._options.rate)]
        words += ["--symbols"]
        self._spawn("venue", [sys.executable, *words, *SYMBOLS], env)
        return self._first_line("venue")

    def _role(self, name: str, *words: str) -> None:
        own = self._env | {"TAPEWICK_DATA__DIR": str(self._home / name)}
        self._spawn(name, [sys.executable, "-m", "tapewick", *words, "--no-config"], own)

    def _spawn(self, name: str, words: list[str], env: dict[str, str]) -> None:
        folder = self._home / name
        folder.mkdir()
        LOGS.mkdir(exist_ok=True)
        with open(folder / "out", "wb") as out, open(LOGS / f"cluster-{name}.log", "wb") as log:
            self.roles[name] = subprocess.Popen(words, stdout=out, stderr=log, env=env, cwd=folder)

    def _first_line(self, name: str) -> str:
        """What the process says once it is ready."""
        out, deadline = self._home / name / "out", time.monotonic() + PATIENCE
        while not (text := out.read_text()).endswith("\n"):
            if self.stopping or self.roles[name].poll() is not None or time.monotonic() > deadline:
                said = (LOGS / f"cluster-{name}.log").read_text().strip()
                raise SystemExit("" if self.stopping else f"cluster: {name} did not start: {said}")
            time.sleep(0.05)
        return text.splitlines()[0]

    def watch(self) -> None:
        """Say which roles end, until asked to stop."""
        alive = dict(self.roles)
        while not self.stopping:
            for name, process in list(alive.items()):
                if process.poll() is not None:
                    del alive[name]
                    say(
                        f"{name} has ended ({process.returncode}); the others go on. Its log: {LOGS}/cluster-{name}.log"
                    )
            time.sleep(0.2)

    def stop(self) -> None:
        """End the roles, then the venue, then the servers, newest first; remove their data."""
        venue = self.roles.pop("venue", None)
        _end([*self.roles.values()])
        _end([] if venue is None else [venue])
        for server in reversed(self._servers):
            if hasattr(server, "remove"):
                server.remove()
            else:
                server.end()
                shutil.rmtree(server.home, ignore_errors=True)
        shutil.rmtree(self._home, ignore_errors=True)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + ENDING
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(f"  {text}", flush=True)


def inside(options: argparse.Namespace) -> int:
    """Run the cluster in this session, until SIGTERM."""
    sys.path.insert(0, str(ROOT))
    from _pytest.outcomes import OutcomeException

    cluster = Cluster(options)

    def stop(number: int, frame: object) -> None:
        cluster.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        url = cluster.start()
        own = options
        scanners = sum(name.startswith("scan-") for name in cluster.roles)
        counted = f"{own.collectors} collectors, {own.engines} engines, {own.gateways} gateways, {scanners} scanners"
        print(f"tapewick cluster ({own.bus}, {own.store}; {counted}): {url}", flush=True)
        cluster.watch()
    except OutcomeException as absent:  # the tests' way to say that a part is not installed
        print(f"cluster: {absent.msg}", file=sys.stderr)
        return 2
    finally:
        cluster.stop()
    return 0


def main(words: list[str]) -> int:
    """The exit code; 0 when it was asked to end."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--bus", choices=sorted(ADDRESS), default="redis")
    parser.add_argument("--store", choices=("postgres", "timescale"), default="postgres")
    for role in ("engines", "gateways", "collectors"):
        parser.add_argument(f"--{role}", type=int, choices=range(1, 17), default=2, metavar="N")
    parser.add_argument("--scanners", type=int, choices=range(17), default=2, metavar="N", help="of a chain's orders")
    parser.add_argument("--port", type=int, default=8080, help="of the first gateway; 0 lets the system choose")
    parser.add_argument("--sharded", action="store_true", help="each collector its part, not all of them everything")
    parser.add_argument("--rate", type=float, default=20.0, help="trades per second and symbol")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.inside:
        return inside(options)
    return _supervised([sys.executable, str(Path(__file__).resolve()), *words, "--inside"])


def _supervised(command: list[str]) -> int:
    """Run ``command`` in a session of its own, where a Ctrl-C does not reach the servers before the roles."""
    forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)
    unblocked: Callable[[], object] = lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded)  # noqa: E731
    cluster = subprocess.Popen(command, start_new_session=True, preexec_fn=unblocked)
    LOGS.mkdir(exist_ok=True)
    note = LOGS / f"cluster-{cluster.pid}.pid"
    note.touch()
    for number in forwarded:
        signal.signal(number, lambda *_: cluster.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded)
    code = cluster.wait()
    if swept(cluster.pid):  # nothing is left, unless the cluster was killed
        note.unlink(missing_ok=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
