"""``run``: one role as a process of its own, beside others on the same bus and store."""

from __future__ import annotations

import argparse
import re

from tapewick import __version__
from tapewick.commands.options import Parser, flags, option, settings_of
from tapewick.commands.output import configure_logs
from tapewick.commands.serve import listening
from tapewick.commands.variables import typed
from tapewick.errors import ConfigError
from tapewick.settings import Settings

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick run collect --source binance:BTCUSDT binance:ETHUSDT",
    "tapewick run engine              # as many as you like: they share the partitions",
    "tapewick run scan                # follows the orders of the contracts that chain.contracts names",
)
ROLES = ("collect", "engine", "gateway", "scan")
SERVERS = "bus.kind = redis, nats or kafka"


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("role", metavar="ROLE", choices=ROLES, help="collect, engine, gateway or scan")
    option(
        parser,
        "--source",
        "collect: instruments, as venue:symbol",
        shown_default="binance.symbols",
        nargs="+",
        metavar="ID",
    )
    option(
        parser,
        "--shard",
        "collect, engine: only the i-th of n parts, counted from 0",
        type=shard,
        shown_default="everything, shared by leases",
        metavar="i/n",
    )
    listening(parser)


def shard(text: str) -> tuple[int, int]:
    """``i/n`` as numbers."""
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write i/n, for example 0/2 and 1/2")
    number, count = int(found[1]), int(found[2])
    if number >= count:
        raise argparse.ArgumentTypeError(f"there is no shard {text}: of {count} the last is {count - 1}/{count}")
    return number, count


def run(args: argparse.Namespace) -> int:
    """Run the role until a signal; the exit code is 130 or 143 then."""
    settings = settings_of(args)
    _check(args, settings)
    from tapewick import pipeline
    from tapewick.commands.running import run as run_until_signal

    configure_logs(settings.log)

    def ready(standing: pipeline.Standing) -> None:
        parts = [f"{settings.bus.kind} bus, {settings.store.kind} store", f"holder {standing.holder}"]
        if args.role == "engine":
            parts.insert(0, _engine())
        if args.role == "scan":
            parts.insert(0, _contracts(settings))
        if args.role in ("collect", "engine"):
            parts.append(_share(args, settings))
        if standing.grpc:
            parts.insert(0, f"gRPC {standing.grpc}")
        if standing.url:
            parts.insert(0, f"{standing.url} ")
        print(f"tapewick {__version__} run {args.role}: {', '.join(parts).replace(' , ', '  ')}", flush=True)

    sources = (args.source or ()) if args.role == "collect" else ()
    work = pipeline.run(settings, args.role, on_ready=ready, source_ids=sources, shard=_shard(args))
    return run_until_signal(work)


def _engine() -> str:
    from tapewick.engine import ENGINE, ENGINE_REASON

    return f"{ENGINE} engine" + (f" ({ENGINE_REASON})" if ENGINE_REASON else "")


def _contracts(settings: Settings) -> str:
    """What is scanned, and how many nodes are asked: their addresses are secrets."""
    own = settings.chain
    told = ", ".join(own.contracts) if len(own.contracts) <= 3 else f"{len(own.contracts)} contracts"
    return f"{told} on chain {own.id} ({len(own.rpc_urls)} node{'s' * (len(own.rpc_urls) != 1)})"


def _shard(args: argparse.Namespace) -> tuple[int, int] | None:
    """The part of the whole that roles with parts are to take: a variable that all processes share is for those."""
    part: tuple[int, int] | None = args.shard if args.role in ("collect", "engine") else None
    return part


def _share(args: argparse.Namespace, settings: Settings) -> str:
    """What of the whole is this process's."""
    count = settings.engine.partitions
    part = _shard(args)
    if part is None:
        return f"all {count} partitions" if args.role == "collect" else f"partitions by lease, of {count}"
    own = [p for p in range(count) if p % part[1] == part[0]]
    return f"partitions {' '.join(map(str, own))} of {count}"


def _check(args: argparse.Namespace, settings: Settings) -> None:
    """Raises ``ConfigError`` for what cannot work as processes of their own."""
    role = args.role
    if role == "scan" and not settings.chain.contracts:
        raise ConfigError(
            "run scan has no contract to follow: set chain.contracts (0x…), chain.rpc_urls (http://…) and chain.id"
        )
    if settings.store.kind == "duckdb":
        raise ConfigError(
            f"run {role} needs store.kind = postgres: one process owns the embedded store, so roles cannot share it; "
            "set store.kind and store.dsn, or run all roles in one process with tapewick serve"
        )
    if settings.bus.kind == "memory":
        raise ConfigError(
            f"run {role} needs {SERVERS}: the memory bus ends with its process; "
            "set bus.kind and its address, or run all roles in one process with tapewick serve"
        )
    if typed(args, "shard"):
        if role == "gateway":
            raise ConfigError("run gateway takes no --shard: every gateway serves everything")
        if role == "scan":
            raise ConfigError("run scan takes no --shard: of several scanners one follows each contract, by lease")
    own = _shard(args)
    if own is not None and own[1] > settings.engine.partitions:
        raise ConfigError(
            f"--shard of {own[1]}: there are only {settings.engine.partitions} partitions "
            "(engine.partitions); choose no more shards than that"
        )
    doors = [key for key, value in flags(args).items() if value is not None and key.startswith(("server.", "grpc."))]
    if doors and role != "gateway":
        raise ConfigError(f"run {role} has no {doors[0]}: clients talk to gateways; for health there is admin.port")
    if typed(args, "source") and role != "collect":
        raise ConfigError(f"run {role} takes no --source: collectors do, and tell everybody what they collect")
