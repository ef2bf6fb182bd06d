"""``doctor``: is this installation, and this data folder, well?"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from tapewick import __version__, parts
from tapewick.commands.options import Parser, flag, setting, settings_of
from tapewick.commands.output import coloured, note, paint, plural, write
from tapewick.errors import BusError, ConfigError, SourceError, StoreBusy, StoreDamaged, StoreError
from tapewick.secrecy import masked, plain
from tapewick.settings import Settings

__all__ = ["EXAMPLES", "Finding", "options", "run"]

EXAMPLES = (
    "tapewick doctor                       # this installation and ./tapewick-data",
    "tapewick doctor --data ./d --repair   # move a damaged write-ahead log aside",
    "tapewick doctor --online --json       # also ask the venue for its time; one JSON object per finding",
)
LIBRARIES = ("duckdb", "litestar", "uvicorn", "picows", "numpy", "msgspec")
EXTRAS = {
    "kafka": "confluent_kafka",
    "nats": "nats",
    "redis": "redis",
    "postgres": "asyncpg",
    "grpc": "grpc",
    "tui": "textual",
    "arrow": "pyarrow",
    "polars": "polars",
    "pandas": "pandas",
}
LOW_DISK = 1 << 30
LATE = 30.0  # seconds a replica may be behind


class Finding(NamedTuple):
    """One thing looked at. ``state``: ok, note (nothing to do), warn, or fail; ``code`` what a failure exits with."""

    name: str
    state: Literal["ok", "note", "warn", "fail"]
    detail: str
    code: int = 1


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    setting(parser, "data.dir", "--data")
    setting(parser, "server.port", "--port", metavar="P")
    flag(parser, "--repair", "move a damaged write-ahead log aside, never deleting it")
    flag(parser, "--online", "also ask the venue, to compare clocks")
    flag(parser, "--json", "one JSON object per finding")


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 when nothing failed, 4 when the data folder is not sound, else 1."""
    settings = settings_of(args)
    findings = [*_installation(), *_machine(settings)]
    if settings.store.kind == "postgres":
        findings += _server(settings)
    else:
        findings += _folder(settings, repair=args.repair)
    if settings.bus.kind != "memory":
        findings.append(_bus(settings))
    if args.online:
        findings.append(_venue(settings))
    findings += _waiting(Path(settings.data.dir) / "spool")
    for finding in findings:
        write(_line(finding, args).encode())
    return max((finding.code for finding in findings if finding.state == "fail"), default=0)


def _line(finding: Finding, args: argparse.Namespace) -> str:
    finding = finding._replace(detail=plain(masked(finding.detail)))
    if args.json:
        return json.dumps({"check": finding.name, "state": finding.state, "detail": finding.detail}) + "\n"
    colours = {"ok": "green", "note": "dim", "warn": "yellow", "fail": "red"}
    state = paint(f"{finding.state:<4}", colours[finding.state], coloured(args.color, sys.stdout))
    return f"{state}  {finding.name:<10}{finding.detail}\n"


def _installation() -> Iterator[Finding]:
    from tapewick.engine import ENGINE, ENGINE_REASON

    yield Finding("tapewick", "ok", f"{__version__} on Python {sys.version.split()[0]}, {sys.platform}")
    yield Finding(
        "engine", "ok" if ENGINE == "native" else "note", ENGINE + (f" ({ENGINE_REASON})" if ENGINE_REASON else "")
    )
    yield Finding("libraries", "ok", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES))
    found = [extra for extra, module in EXTRAS.items() if find_spec(module) is not None]
    yield Finding("extras", "note", f"installed: {', '.join(found) or 'none'}")
    programs = [part.name for part in parts.PARTS if parts.find(part)]
    yield Finding("programs", "note", f"for tests: {', '.join(programs) or 'none'}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _machine(settings: Settings) -> Iterator[Finding]:
    yield _disk(Path(settings.data.dir))
    year = time.gmtime().tm_year
    sane = 2026 <= year < 2100
    yield Finding("clock", "ok" if sane else "fail", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    yield _port(settings)


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    if not writable:
        return Finding("disk", "fail", f"{there} is not writable: choose another --data")
    text = f"{free / (1 << 30):,.1f} GiB free at {there}"
    return Finding("disk", "ok" if free >= LOW_DISK else "warn", text)


def _waiting(folder: Path) -> Iterator[Finding]:
    """What webhook ingest keeps on disk, or has set aside."""
    sizes = {suffix: [path.stat().st_size for path in folder.glob(f"*{suffix}")] for suffix in (".seg", ".damaged")}
    if any(sizes[".seg"]):
        yield Finding("spool", "warn", f"{sum(sizes['.seg']):,} bytes of trades in {folder} wait for the store")
    if sizes[".damaged"]:
        text = f"{plural(len(sizes['.damaged']), 'damaged segment')} of trades set aside in {folder}: see the log"
        yield Finding("spool", "warn", text)


def _port(settings: Settings) -> Finding:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding("port", "warn", f"{host}:{port} is taken ({error.strerror}): serve with another --port")
    return Finding("port", "ok", f"{host}:{port} is free")


def _folder(settings: Settings, *, repair: bool) -> Iterator[Finding]:
    from tapewick.commands.running import run as run_until_signal

    folder, findings = Path(settings.data.dir), []
    if not folder.is_dir():
        yield Finding("data", "note", f"{folder} does not exist yet: serve, demo or replay makes it")
        return

    async def work() -> int:
        found = await _examined(settings)
        if repair and found.state == "fail":
            found = await _repaired(settings)
        findings.append(found)
        return 0

    run_until_signal(work())
    yield from findings


def _server(settings: Settings) -> list[Finding]:
    """What PostgreSQL answers, and at which level; how far its replica is behind."""
    from tapewick.commands.running import run as run_until_signal
    from tapewick.stores.postgres import PostgresStore

    findings: list[Finding] = []

    async def work() -> int:
        own = settings.store
        store = PostgresStore(own.dsn, read_dsn=own.read_dsn, pool_min=1, pool_max=1, read_only=True)
        try:
            async with store:
                tapes, wrong = await store.instruments(), await store.check()
                told = f"{store.level}, {plural(len(tapes), 'tape')}"
                findings.append(
                    Finding("store", "fail", "; ".join(wrong), 4) if wrong else Finding("store", "ok", told)
                )
                if own.read_dsn:
                    behind = await store.replica_lag()
                    state: Literal["ok", "warn"] = "ok" if behind < LATE else "warn"
                    findings.append(Finding("replica", state, f"reads are {behind:.1f} s behind what is written"))
        except StoreDamaged as error:
            findings.append(Finding("store", "fail", str(error), error.exit_code))
        except StoreError as error:
            findings.append(Finding("store", "fail", str(error)))
        return 0

    run_until_signal(work())
    return findings or [Finding("store", "warn", "interrupted")]


def _bus(settings: Settings) -> Finding:
    """Whether the message server answers."""
    from tapewick import registry
    from tapewick.commands.running import run as run_until_signal

    findings: list[Finding] = []

    async def work() -> int:
        try:
            async with registry.bus(settings) as bus:
                trouble = bus.trouble
            findings.append(Finding("bus", "fail", trouble) if trouble else Finding("bus", "ok", settings.bus.kind))
        except (BusError, ConfigError) as error:
            findings.append(Finding("bus", "fail", str(error)))
        return 0

    run_until_signal(work())
    return findings[0] if findings else Finding("bus", "warn", "interrupted")


async def _examined(settings: Settings) -> Finding:
    """Open the store, look for broken invariants."""
    from tapewick.stores.duckdb import DuckDBStore

    folder = settings.data.dir
    try:
        async with DuckDBStore(folder, read_only=True) as store:
            problems = await store.check()
            tapes = await store.instruments()
    except StoreBusy:
        return Finding("data", "note", f"{folder} is in use by a running server, which keeps it sound")
    except StoreDamaged as error:
        cause = str(error).rpartition("(")[2].rstrip(")")
        return Finding("data", "fail", f"{folder} cannot be read ({cause}); if its log is the cause: --repair", 4)
    except StoreError as error:
        return Finding("data", "note", str(error))
    if problems:
        return Finding("data", "fail", "; ".join(problems), 4)
    return Finding("data", "ok", f"{folder} is sound, {plural(len(tapes), 'tape')}")


async def _repaired(settings: Settings) -> Finding:
    """Set the write-ahead log aside and look again; positions handed out before are void then."""
    from tapewick.stores.duckdb import FILE, DuckDBStore, set_wal_aside

    moved = set_wal_aside(Path(settings.data.dir))
    if moved is None:
        return Finding("repair", "fail", "there is no write-ahead log to move: restore the folder from a backup", 4)
    try:
        async with DuckDBStore(settings.data.dir) as store:
            await store.renew_epochs()
    except StoreError as error:
        moved.rename(moved.with_name(f"{FILE}.wal"))  # it was not the cause, and a backup may need it
        return Finding("repair", "fail", f"{error}; not its log's doing: restore the folder from a backup", 4)
    note(f"moved the write-ahead log to {moved}")
    after = await _examined(settings)
    if after.state != "ok":
        return after
    return Finding("repair", "ok", f"{after.detail}; what only the log held shows as a gap, {moved.name} is kept")


def _venue(settings: Settings) -> Finding:
    """The venue's clock against ours."""
    from tapewick.commands.running import run as run_until_signal
    from tapewick.net.http import JsonClient

    findings = []

    async def work() -> int:
        async with JsonClient(settings.binance.rest_url or "https://api.binance.com", timeout=5.0) as client:
            before = time.time_ns()
            try:
                answer = await client.get("/api/v3/time", dict[str, int])
            except SourceError as error:
                findings.append(Finding("venue", "fail", str(error), 3))
                return 0
            skew = answer["serverTime"] - (before + time.time_ns()) // 2_000_000
            state: Literal["ok", "warn"] = "ok" if abs(skew) < 1000 else "warn"
            findings.append(Finding("venue", state, f"its clock is {skew:+d} ms from ours"))
        return 0

    run_until_signal(work())
    return findings[0] if findings else Finding("venue", "warn", "interrupted")
