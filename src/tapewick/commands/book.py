"""``book``: a running server's order book as a ladder, once or as it moves."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate, zip_longest
from typing import Any

from tapewick.commands.options import Parser, access, count, flag, moment, option, server
from tapewick.commands.output import coloured, note, paint, write
from tapewick.commands.output import moment as shown_moment
from tapewick.errors import ConfigError

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick book sim:BTCUSDT                     # both sides, best in the middle, from the server on port 8080",
    "tapewick book sim:BTCUSDT --follow            # redrawn as it moves",
    "tapewick book sim:BTCUSDT --at 2024-08-09T00:00:00Z --json    # the stored book at or before a time",
)
DEPTHS = (5, 10, 20, 50, 100, 500)  # what the channel offers
CLEAR = "\x1b[H\x1b[2J"


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="INSTRUMENT", help="venue:symbol, for example sim:BTCUSDT")
    option(parser, "--levels", "levels of each side, 1 to 5000", default="10", type=count, metavar="N")
    option(
        parser, "--at", "the stored book at or before this time, ms since 1970 or ISO 8601", type=moment, metavar="T"
    )
    server(parser, default="http://127.0.0.1:8080")
    flag(parser, "--follow", f"go on until interrupted; --levels is then one of {', '.join(map(str, DEPTHS))}")
    flag(parser, "--json", "JSON Lines even on a terminal; elsewhere they are the default")


def run(args: argparse.Namespace) -> int:
    """Print the book. Raises ``SourceError`` (exit 3) when no server answers, ``NotFound`` where there is no book."""
    from tapewick.commands.from_server import connected
    from tapewick.commands.running import run as run_until_signal

    if args.follow and args.at is not None:
        raise ConfigError("--follow shows the live book, --at a stored one: leave one of them out")
    if args.follow and args.levels not in DEPTHS:
        raise ConfigError(f"--follow takes --levels {', '.join(map(str, DEPTHS))}, not {args.levels}")
    as_json, colour = args.json or not sys.stdout.isatty(), coloured(args.color, sys.stdout)

    def show(row: bytes, *, again: bool = False) -> None:
        text = "" if as_json else ladder(json.loads(row), colour=colour)
        write(row + b"\n" if as_json else ((CLEAR if again else "") + text).encode())

    async def work() -> int:
        async with connected(args.url, access(args)) as client:
            if not args.follow:
                show(bytes(await client.book_row(args.instrument, levels=args.levels, at=args.at)))
                return 0
            async for update in client.tail(f"book_top@{args.instrument}", snapshot=None, levels=args.levels):
                if update.kind == "notice" and update.detail:
                    note(update.detail)
                for row in update.rows:
                    show(bytes(row), again=True)
        return 0

    return run_until_signal(work())


def ladder(book: dict[str, Any], *, colour: bool = False) -> str:
    """Both sides beside each other, best first, with running totals; above them where the book stands."""
    lines = [_title(book, colour)]
    bids, asks = _side(book["bids"]), _side(book["asks"])
    names = ("total", "size", "bid", "ask", "size", "total")
    sides = [(*reversed(bid), *ask) for bid, ask in zip_longest(bids, asks, fillvalue=("", "", ""))]
    rows = list(zip(*map(_aligned, zip(*sides, strict=True)), strict=True))
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for at, row in enumerate([names, *rows]):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        left, right = "  ".join(cells[:3]), "  ".join(cells[3:])
        shades = ("bold", "bold") if at == 0 else ("green", "red")
        lines.append(f"{paint(left, shades[0], colour)} │ {paint(right, shades[1], colour)}")
    return "\n".join(lines) + "\n"


def _side(levels: list[list[str]]) -> list[tuple[str, str, str]]:
    """Price, size and running total of each level."""
    totals = accumulate(Decimal(size) for _, size in levels)
    return [(price, size, f"{total:f}") for (price, size), total in zip(levels, totals, strict=True)]


def _aligned(column: Sequence[str]) -> list[str]:
    """Numbers of a column with the same digits after the point."""
    digits = max(len(text.partition(".")[2]) for text in column)
    return [f"{Decimal(text):.{digits}f}" if text else "" for text in column]


def _title(book: dict[str, Any], colour: bool) -> str:
    state = paint(book["state"], "green" if book["state"] in ("live", "stored") else "yellow", colour)
    parts = [paint(book["instrument"], "bold", colour), state, f"update {book['last_update_id']}"]
    if book["ts_event"]:
        parts.append(shown_moment(book["ts_event"]))
    if book["bids"] and book["asks"]:
        bid, ask = Decimal(book["bids"][0][0]), Decimal(book["asks"][0][0])
        parts.append(f"spread {ask - bid:f}")
        parts.append(f"mid {((bid + ask) / 2).normalize():f}")
    return "  ".join(parts) + (f"\n{book['detail']}" if book.get("detail") else "")
