"""``keys``: make, list and end API keys, of a data folder or of the database that gateways share.

A running server sees a change of the folder's at once, of the database's within seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from tapewick.commands.options import Parser, flag, option, setting, settings_of
from tapewick.commands.output import coloured, moment, note, table, write
from tapewick.errors import ConfigError
from tapewick.keys import SCOPES, Key, KeyFile

if TYPE_CHECKING:
    from tapewick.stores._postgres_keys import KeyTable

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick keys create --scope ingest --instruments 'hook:*'    # print a new key, this once",
    "tapewick keys list                                            # who may do what; never the keys themselves",
    "tapewick keys revoke tw_1f0c9a2b                              # end one now",
)
T = TypeVar("T")
HEADS = ("id", "scopes", "instruments", "source", "state", "created", "expires", "note")


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument("action", choices=("create", "list", "revoke"), metavar="create|list|revoke", help="what to do")
    parser.add_argument("id", nargs="?", metavar="ID", help="the key to revoke")
    option(parser, "--scope", f"what it may do, of {', '.join(SCOPES)}; several with commas", default="ingest")
    option(parser, "--instruments", "which instruments it may write, * for any", default="*", metavar="PATTERN")
    option(parser, "--days", "days until it expires", default="0", type=_days, shown_default="never")
    option(parser, "--note", "whose it is, for the list", default="", shown_default="none")
    option(
        parser,
        "--source",
        "who sends with it; keys of one source are one sender",
        default=None,
        metavar="NAME",
        shown_default="the key's id",
        env="TAPEWICK_KEY_SOURCE",
    )
    setting(parser, "data.dir", "--data")
    setting(parser, "store.kind", "--store")
    flag(parser, "--json", "JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Do it. Raises ``ConfigError`` (exit 2) for an unknown scope or key, ``StoreError`` where a database is away."""
    import asyncio

    from tapewick import registry

    return asyncio.run(_run(args, registry.keys(settings_of(args))))


async def _run(args: argparse.Namespace, keys: KeyFile | KeyTable) -> int:
    await keys.start()
    try:
        if args.action == "create":
            await _create(args, keys)
        elif args.action == "revoke":
            if args.id is None:
                raise ConfigError("which key? name its id: tapewick keys revoke ID")
            key = await _had(keys.revoke(args.id))
            write(json.dumps(_row(key, keys.now)).encode() + b"\n" if args.json else f"{key.id} is revoked\n".encode())
        else:
            _show(args, [_row(key, keys.now) for key in await _had(keys.keys())])
    finally:
        await keys.stop()
    return 0


async def _had(value: T | Awaitable[T]) -> T:
    """What a file answers at once and a database after a while."""
    return await value if isinstance(value, Awaitable) else value


async def _create(args: argparse.Namespace, keys: KeyFile | KeyTable) -> None:
    scopes = [scope.strip() for scope in args.scope.split(",") if scope.strip()]
    made = keys.create(scopes, instruments=args.instruments, days=args.days, note=args.note, source=args.source)
    key, token = await _had(made)
    if args.json:
        write(json.dumps({"key": token, **_row(key, keys.now)}).encode() + b"\n")
    else:
        write(token.encode() + b"\n")
        note(f"{key.id} may {', '.join(key.scopes)}; keep it now, it is not shown again")


def _show(args: argparse.Namespace, rows: list[dict[str, str]]) -> None:
    if args.json:
        write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        return
    texts = ([str(row[head]) for head in HEADS] for row in rows)
    write(table(HEADS, texts, colour=coloured(args.color, sys.stdout)).encode())


def _row(key: Key, now: int) -> dict[str, str]:
    """A key as it may be shown."""
    state = "revoked" if key.revoked else "usable" if key.usable(now) else "expired"
    return {
        "id": key.id,
        "scopes": ",".join(key.scopes),
        "instruments": key.instruments,
        "source": key.source or "shared",
        "state": state,
        "created": moment(key.created * 1000),
        "expires": moment(key.expires * 1000) if key.expires else "never",
        "note": key.note,
    }


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days
