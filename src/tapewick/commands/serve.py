"""``serve``: the four roles in one process, on the live venue."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tapewick import __version__
from tapewick.commands.options import Parser, option, setting, settings_of
from tapewick.commands.output import configure_logs
from tapewick.settings import Settings

__all__ = ["EXAMPLES", "listening", "options", "run", "start"]

EXAMPLES = (
    "tapewick serve                                     # BTCUSDT and ETHUSDT, page on port 8080",
    "tapewick serve --source binance:SOLUSDT --port 0   # another symbol, any free port",
    "TAPEWICK_DATA__DIR=/srv/tapes tapewick serve       # another data folder",
)


def options(parser: Parser) -> None:
    """Add the command's arguments to ``parser``."""
    option(
        parser,
        "--source",
        "instruments to collect, as venue:symbol",
        shown_default="binance.symbols",
        nargs="+",
        metavar="ID",
    )
    listening(parser)


def listening(parser: Parser) -> None:
    """Add what every serving command takes."""
    setting(parser, "server.port", "--port", metavar="P")
    setting(parser, "server.host", "--host")
    setting(parser, "grpc.enabled", "--grpc", metavar="true|false")
    setting(parser, "grpc.port", "--grpc-port", metavar="P")
    setting(parser, "data.dir", "--data")
    setting(parser, "engine.kind", "--engine")
    setting(parser, "record.dir", "--record", metavar="DIR")
    setting(parser, "log.level", "--log-level")
    setting(parser, "log.json", "--log-json", metavar="true|false")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code is 130 or 143 then."""
    return start(settings_of(args), demo=False, sources=args.source or (), browse=False)


def start(settings: Settings, *, demo: bool, sources: Sequence[str], browse: bool) -> int:
    """Run the pipeline in the foreground, printing its start-up line once it listens."""
    from tapewick import pipeline
    from tapewick.commands.running import run as run_until_signal

    configure_logs(settings.log)

    def ready(url: str, grpc: str) -> None:
        from tapewick.engine import ENGINE, ENGINE_REASON

        engine = f"{ENGINE} engine" + (f" ({ENGINE_REASON})" if ENGINE_REASON else "")
        address = f"gRPC {grpc}, " if grpc else ""
        place = f" in {settings.data.dir}" if settings.store.kind == "duckdb" else ""
        parts = f"{address}{engine}, {settings.bus.kind} bus, {settings.store.kind} store{place}"
        print(f"tapewick {__version__} {'demo (simulated)' if demo else 'serve'}: {url}  {parts}", flush=True)
        if browse:
            _open_page(url)

    return run_until_signal(pipeline.serve(settings, demo=demo, on_ready=ready, source_ids=sources))


def _open_page(url: str) -> None:
    """Show the page in the person's browser, where there is a desktop to show it on."""
    desktop = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if desktop and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(url)
