"""``export``: write a tape's trades or candles to a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tapewick.commands.options import Parser, access, moment, option, server, setting, settings_of, timeframe
from tapewick.commands.output import note, write
from tapewick.commands.reading import no_folder
from tapewick.errors import ConfigError

if TYPE_CHECKING:
    from tapewick.export import Export
    from tapewick.protocols import Store
    from tapewick.settings import Settings

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick export binance:BTCUSDT --tf 1m --out btc.parquet --data ./d",
    "tapewick export binance:BTCUSDT --out trades.csv --start 2024-08-09 --end 2024-08-10",
    "tapewick export sim:BTCUSDT --tf 1h --format csv --url http://127.0.0.1:8080",
)
FORMATS = ("jsonl", "csv", "arrow", "parquet")


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="INSTRUMENT", help="venue:symbol, for example binance:BTCUSDT")
    option(parser, "--tf", "candles of this timeframe", shown_default="trades", metavar="TF")
    option(
        parser,
        "--format",
        "what to write",
        shown_default="the ending of --out, else jsonl",
        choices=FORMATS,
        metavar="|".join(FORMATS),
    )
    option(parser, "--out", "file to write; it appears when it is whole", shown_default="stdout", metavar="FILE")
    option(parser, "--start", "first time, ms since 1970 or ISO 8601", type=moment, metavar="MS|ISO")
    option(parser, "--end", "times before this", type=moment, metavar="MS|ISO")
    setting(parser, "data.dir", "--data")
    server(parser, "read from this running server instead of a data folder")


def run(args: argparse.Namespace) -> int:
    """Write the file; its position is told on stderr."""
    from tapewick.commands.running import run as run_until_signal

    settings, tf = settings_of(args), timeframe(args.tf).name if args.tf else None
    format = args.format or _ending(args.out)
    if args.out is None and format in ("arrow", "parquet") and sys.stdout.isatty():
        raise ConfigError(f"{format} is no text for a terminal; name a file with --out")

    async def work() -> int:
        opened = _from_server(args, tf, format) if args.url else _from_folder(args, settings, tf, format)
        async with opened as (position, chunks):
            size = await _save(chunks, Path(args.out)) if args.out else await _print(chunks)
        if args.out:
            note(f"{args.out}: {size:,} bytes, position {position}")
        return 0

    return run_until_signal(work())


def _ending(out: str | None) -> str:
    ending = Path(out or "").suffix.removeprefix(".")
    if out and ending not in FORMATS:
        raise ConfigError(f"--out {out} does not tell the format by its ending; add --format {'|'.join(FORMATS)}")
    return ending or "jsonl"


async def _print(chunks: AsyncIterator[bytes]) -> int:
    size = 0
    async for chunk in chunks:
        write(chunk)
        size += len(chunk)
    return size


async def _save(chunks: AsyncIterator[bytes], path: Path) -> int:
    """Write beside ``path`` first: a file of that name is always whole."""
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} for --out: make it, or name another")
    part = path.with_name(path.name + ".part")
    try:
        with _new(part) as file:
            async for chunk in chunks:
                file.write(chunk)
            size = file.tell()
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return size


def _new(path: Path) -> BinaryIO:
    return open(path, "wb")


def _store(settings: Settings) -> Store:
    from tapewick import registry

    if settings.store.kind == "duckdb" and not Path(settings.data.dir).is_dir():
        raise no_folder(settings.data.dir)
    return registry.store(settings, read_only=True)


@asynccontextmanager
async def _from_folder(
    args: argparse.Namespace, settings: Settings, tf: str | None, format: Any
) -> AsyncGenerator[tuple[str, AsyncIterator[bytes]], None]:
    from tapewick import export, registry
    from tapewick.clock import RealClock

    async with (
        _store(settings) as store,
        registry.bus(settings) as bus,
        registry.market(bus, store, RealClock()) as market,
    ):
        window = {"start": args.start, "end": args.end}
        made: Export = (
            await export.candles(market, args.instrument, timeframe(tf), **window)
            if tf
            else await export.trades(market, args.instrument, **window)
        )
        yield made.position, export.chunks(made, format)


@asynccontextmanager
async def _from_server(
    args: argparse.Namespace, tf: str | None, format: Any
) -> AsyncGenerator[tuple[str, AsyncIterator[bytes]], None]:
    from tapewick.commands.from_server import connected

    async with (
        connected(args.url, access(args)) as client,
        client.export_file(args.instrument, tf, format=format, start=args.start, end=args.end) as made,
    ):
        yield made.position, made.chunks
