"""``config``: show or check the settings."""

from __future__ import annotations

import argparse
import json
import sys

from tapewick.commands.options import Parser, flag
from tapewick.commands.output import coloured, table, write
from tapewick.config import SETTINGS, load, shown

__all__ = ["EXAMPLES", "options", "run"]

EXAMPLES = (
    "tapewick config show --origin       # every setting and where its value comes from",
    "tapewick config show --json         # the same as one JSON object per line",
    "tapewick config check               # exit 2 and one line if anything is wrong",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.add_argument(
        "action", choices=("show", "check"), metavar="show|check", help="print the settings, or test them"
    )
    flag(parser, "--origin", "also print where each value comes from")
    flag(parser, "--json", "JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Print or check the settings. Raises ``ConfigError`` (exit 2) for one that is wrong."""
    loaded = load(config=args.config, no_config=args.no_config, env_file=args.env_file)
    if args.action == "check":
        if args.json:
            write(b'{"ok":true}\n')
        else:
            changed = sum(origin != "default" for origin in loaded.origins.values())
            write(
                f"the settings are sound: {changed} of {len(SETTINGS)} are set, the rest have their defaults\n".encode()
            )
        return 0
    rows = []
    for setting in SETTINGS:
        value = shown(setting, getattr(getattr(loaded.settings, setting.section), setting.name))
        rows.append((setting, value, loaded.origins[setting.key]))
    if args.json:
        for setting, value, origin in rows:
            line = {"key": setting.key, "value": value} | ({"origin": origin} if args.origin else {})
            write(json.dumps(line).encode() + b"\n")
        return 0
    heads = ("setting", "value", "origin") if args.origin else ("setting", "value")
    texts = ((setting.key, json.dumps(value), origin)[: len(heads)] for setting, value, origin in rows)
    write(table(heads, texts, colour=coloured(args.color, sys.stdout)).encode())
    return 0
