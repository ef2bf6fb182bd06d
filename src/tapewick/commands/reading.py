"""Reading a tape, from a data folder nobody owns or from a running server: the same rows either way."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from tapewick.commands.options import Parser, access, count, flag, option, server, setting
from tapewick.commands.output import coloured, moment, note, table, write
from tapewick.errors import ConfigError
from tapewick.settings import Settings

__all__ = ["Chunk", "Reader", "as_json", "no_folder", "opened", "print_rows", "reading"]

Chunk: TypeAlias = tuple[bytes, str]
"""Rows as JSON Lines, ascending, and the position they were read at."""


class Reader(Protocol):
    """What the reading commands ask; times in UTC ns, ``limit`` 0 = all. Raises ``NotFound``."""

    def candles(
        self, instrument: str, tf: str, *, start: int | None, end: int | None, limit: int
    ) -> AsyncIterator[Chunk]: ...
    def trades(self, instrument: str, *, since: int | None, limit: int) -> AsyncIterator[Chunk]: ...
    async def coverage(self, instrument: str) -> dict[str, Any]: ...
    async def instruments(self) -> list[str]: ...


def reading(parser: Parser, *, limited: bool = True) -> None:
    """Add what every reading command takes."""
    setting(parser, "data.dir", "--data")
    server(parser, "read from this running server instead of a data folder")
    if limited:
        option(parser, "--limit", "at most so many rows; 0 = all", default="500", type=count, metavar="N")
    flag(parser, "--json", "JSON Lines even on a terminal; elsewhere they are the default")


def no_folder(folder: str) -> ConfigError:
    """What to raise where there is no data folder to read."""
    return ConfigError(
        f"there is no data folder {folder}: name it with --data, ask a running server with --url, or fill one with "
        "demo, serve, backfill, import or replay"
    )


def as_json(args: argparse.Namespace) -> bool:
    """Whether rows are printed as JSON Lines: tables are for terminals."""
    return bool(args.json) or not sys.stdout.isatty()


def opened(args: argparse.Namespace, settings: Settings) -> AbstractAsyncContextManager[Reader]:
    """The reader ``--url`` or ``--data`` asks for."""
    if args.url:
        from tapewick.commands.from_server import ServerReader

        return ServerReader(args.url, access(args))
    from tapewick.commands.from_folder import FolderReader

    return FolderReader(settings)


async def print_rows(chunks: AsyncIterator[Chunk], columns: Sequence[str], args: argparse.Namespace) -> None:
    """Print ``chunks`` as they come, or as one table of ``columns`` on a terminal."""
    lines, position = [], ""
    async for data, at in chunks:
        position = at
        if as_json(args):
            write(data)
        else:
            lines += data.splitlines()
    if not as_json(args):
        import msgspec

        rows = (_cells(msgspec.json.decode(line), columns) for line in lines)
        write(table(columns, rows, colour=coloured(args.color, sys.stdout)).encode())
        note(f"{len(lines):,} rows, position {position or 'none'}")


def _cells(row: dict[str, Any], columns: Sequence[str]) -> list[str]:
    return [moment(row[name]) if name in ("open_time", "ts_event") else _text(row.get(name)) for name in columns]


def _text(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
