"""A real PostgreSQL per test session: plain, and with TimescaleDB's Apache edition; a schema per test.

Each has a data folder and a port of its own and is stopped by its process id. Before anything is
written, the server that answers must be the one that was started.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tapewick.parts import PARTS, find
from tests.e2e.browser import part
from tests.parts.told import told

__all__ = ["PostgresServer", "durable_postgres", "postgres", "timescale"]

ROOT = Path(__file__).resolve().parents[2]
EXTRACT = ROOT / ".cache" / "timescale"
CHROOT_BIN = "/usr/lib/postgresql/17/bin"
CHROOT_OWNER = 999
PATIENCE = 60.0  # seconds a start or an end may take on a loaded machine
FAST = ("fsync=off", "synchronous_commit=on", "full_page_writes=off")


class PostgresServer:
    """One cluster. ``root`` is the folder it runs in by chroot, None where it is installed.

    ``primary``: it follows that one, as a standby. ``within``: the folder to make its own in. ``options``: more lines
    of ``postgresql.conf``.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        root: Path | None = None,
        primary: PostgresServer | None = None,
        within: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.root, self.port = root, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._options = [*options] if durable else [*FAST, *options]
        if root is not None:
            self._options += [
                "shared_preload_libraries=timescaledb",
                "timescaledb.telemetry_level=off",
                "log_line_prefix=%m [%p] %a ",
                "dynamic_shared_memory_type=mmap",
                "max_locks_per_transaction=256",
            ]
        self._schemas = count(1)
        self._home = Path(tempfile.mkdtemp(prefix="tapewick-pg-", dir=root or within))
        owner: int | str = CHROOT_OWNER if root is not None else "postgres"
        if os.geteuid() == 0:
            shutil.chown(self._home, owner, owner)
        if primary is None:
            self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        else:
            where = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
            self._run("pg_basebackup", *where, "-D", self.data, "-R", "-X", "stream", "-c", "fast")

    @property
    def data(self) -> str:
        """The data folder as the server sees it."""
        seen = f"/{self._home.name}" if self.root is not None else str(self._home)
        return f"{seen}/data"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def dsn(self, database: str = "postgres", user: str = "postgres", schema: str = "") -> str:
        path = f"?search_path={schema},public" if schema else ""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{path}"

    def database(self) -> str:
        """An empty schema of the common database, far cheaper than a database; its DSN."""
        name = f"test{next(self._schemas)}"
        self.sql(f"CREATE SCHEMA {name}")
        return self.dsn(schema=name)

    def schema_of(self, dsn: str) -> str:
        """The schema that ``database`` made."""
        return dsn.partition("search_path=")[2].partition(",")[0]

    def sql(self, text: str, *, database: str = "postgres", user: str = "postgres") -> str:
        """Run SQL by the server's own client; unaligned rows."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database]
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *where, "-c", text)

    def start(self) -> None:
        """Start on the port it had or one the system chooses; wait until it answers and is the one started."""
        for last in (False, False, True):
            self.port = self.port or _free_port()
            options = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=/tmp"]
            words = [word for option in (*options, *self._options) for word in ("-c", option)]
            with open(self._home / "log", "ab") as log:
                began = log.tell()
                self._process = subprocess.Popen(
                    self._words("postgres", "-D", self.data, *words), stdout=log, stderr=log, env=self._environment()
                )
            if self._answers():
                if self.root is not None:
                    self.sql("CREATE EXTENSION IF NOT EXISTS timescaledb")
                return
            with open(self._home / "log", errors="replace") as log_text:
                log_text.seek(began)
                said = log_text.read()
            assert self._process.poll() is not None and "in use" in said and not last, f"it does not start: {said}"

    def log(self) -> str:
        """What the server has written."""
        return (self._home / "log").read_text(errors="replace")

    def encrypt(self, cert: Path, key: Path) -> None:
        """From now on speak TLS, and nothing else over TCP."""
        home = self._home / "data"
        for source, name in ((cert, "server.crt"), (key, "server.key")):
            (home / name).write_bytes(source.read_bytes())
            (home / name).chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(home / name, "postgres", "postgres")
        self.sql("ALTER SYSTEM SET ssl = on")
        self.sql("SELECT pg_reload_conf()")
        (home / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
        self.sql("SELECT pg_reload_conf()")

    def require_password(self, user: str) -> None:
        """From now on ``user`` must show the password of its role."""
        rules = self._home / "data" / "pg_hba.conf"
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        self.sql("SELECT pg_reload_conf()")

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT at once but orderly, SIGQUIT without a checkpoint."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(mode)
            self._process.wait(PATIENCE)
        self._process = None

    def kill(self) -> None:
        """SIGKILL to the server and every process of it, as when the machine dies."""
        processes = [self.pid, *_children(self.pid)]
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert self._process is not None
        self._process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while any(_alive(pid) for pid in processes) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._process = None

    def running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Let every process of it stand still, as a machine that swaps or a disk that hangs does."""
        self._each(signal.SIGSTOP)

    def resume(self) -> None:
        self._each(signal.SIGCONT)

    def _each(self, number: signal.Signals) -> None:
        for pid in (self.pid, *_children(self.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def remove(self) -> None:
        if self.running():
            self.resume()
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._home, ignore_errors=True)

    def _answers(self) -> bool:
        """Whether the process that was started answers on the port, within patience."""
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                lines = (self._home / "data" / "postmaster.pid").read_text().splitlines()
                ready = len(lines) > 7 and lines[7].strip() == "ready" and int(lines[0]) == self.pid
            except FileNotFoundError:
                ready = False
            if ready:
                told = (int(lines[3]), self.sql("SHOW data_directory").strip())
                assert told == (self.port, self.data), f"another server answers: {told}"
                return True
            time.sleep(0.02)
        return False

    def _words(self, program: str, *words: str) -> list[str]:
        if self.root is not None:
            user = f"--userspec={CHROOT_OWNER}:{CHROOT_OWNER}"
            return ["/usr/sbin/chroot", user, str(self.root), f"{CHROOT_BIN}/{program}", *words]
        drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        return [*drop, str(_folder() / program), *words]

    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{CHROOT_BIN}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"} if self.root is not None else {
            **os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self._home),
        }  # fmt: skip

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            self._words(program, *words), capture_output=True, text=True, env=self._environment(), cwd="/"
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _children(pid: int) -> Sequence[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _folder() -> Path:
    [known] = [one for one in PARTS if one.name == "postgres"]
    found = part("PostgreSQL", find(known), f"apt-get install {known.package}")
    return Path(found).resolve().parent


def _running(server: PostgresServer) -> Iterator[PostgresServer]:
    try:
        server.start()
        name = "PostgreSQL" if server.root is None else "TimescaleDB on PostgreSQL"
        told(f"{name} {server.sql('SHOW server_version').strip()}, pid {server.pid}, port {server.port}")
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Plain PostgreSQL, fast and forgetful: for everything but durability."""
    yield from _running(PostgresServer())


@pytest.fixture
def durable_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own with default settings, to be killed and restarted."""
    yield from _running(PostgresServer(durable=True))


@pytest.fixture(scope="session")
def timescale() -> Iterator[PostgresServer]:
    """PostgreSQL with TimescaleDB, licence ``apache``."""
    there = str(EXTRACT) if (EXTRACT / "recipe").is_file() and os.geteuid() == 0 else None
    part("TimescaleDB", there, "python scripts/timescale.py (as root; needs mmdebstrap)")
    yield from _running(PostgresServer(root=EXTRACT))
