"""``tail``: a running server's newest trades or candles, and what comes after them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from tapewick.commands.options import Parser, access, count, flag, option, server, timeframe
from tapewick.commands.output import moment, note, write

if TYPE_CHECKING:
    from tapewick.client import Update

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick tail sim:BTCUSDT                     # the newest 10 trades of the server on port 8080",
    "tapewick tail sim:BTCUSDT --follow            # and every one after, across reconnects",
    "tapewick tail sim:BTCUSDT --tf 1m --follow    # candles, the open one as it moves",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("instrument", metavar="INSTRUMENT", help="venue:symbol, for example sim:BTCUSDT")
    option(parser, "--tf", "candles of this timeframe instead of trades", metavar="TF")
    server(parser, default="http://127.0.0.1:8080")
    option(parser, "--limit", "how many stored rows to begin with", default="10", type=count, metavar="N")
    option(parser, "--since", "begin after this position instead (epoch:offset)", metavar="POS")
    flag(parser, "--follow", "go on with live rows until interrupted")
    flag(parser, "--json", "JSON Lines even on a terminal; elsewhere they are the default")


def run(args: argparse.Namespace) -> int:
    """Print rows as they come. Raises ``SourceError`` (exit 3) when no server answers."""
    from tapewick.commands.from_server import connected
    from tapewick.commands.running import run as run_until_signal

    channel = f"trade@{args.instrument}" if args.tf is None else f"candle@{args.instrument}@{timeframe(args.tf).name}"

    async def work() -> int:
        async with connected(args.url, access(args)) as client:
            async for update in client.tail(channel, snapshot=args.limit, since=args.since):
                _print(update, args.json or not sys.stdout.isatty())
                if not args.follow and update.kind in ("snapshot", "event", "gap"):
                    break
        return 0

    return run_until_signal(work())


def _print(update: Update, as_json: bool) -> None:
    if update.kind in ("gap", "notice"):
        note(f"{update.kind}: {update.detail or update.position}")
    if as_json:
        write(b"".join(bytes(row) + b"\n" for row in update.rows))
        return
    write("".join(_line(json.loads(bytes(row))) for row in update.rows).encode())


def _line(row: dict[str, Any]) -> str:
    if "seq" in row:
        sizes = f"{row['side']:<7}  {row['price']:>14}  {row['size']:>14}"
        return f"{moment(row['ts_event'])}  {sizes}  #{row['trade_id']}\n"
    prices = "  ".join(f"{row[name]:>14}" for name in ("open", "high", "low", "close", "volume"))
    return f"{moment(row['open_time'])}  {prices}  {row['state']}\n"
