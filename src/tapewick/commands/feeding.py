"""Files onto the tape: what ``replay`` and ``import`` share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tapewick.commands.options import Parser, flag, setting
from tapewick.commands.output import Progress, configure_logs, note, plural, write
from tapewick.errors import ConfigError
from tapewick.settings import Settings

if TYPE_CHECKING:
    from tapewick.pipeline import Report
    from tapewick.protocols import Source

__all__ = ["feed", "files_of", "storing"]


def storing(parser: Parser) -> None:
    """Add what every command takes that writes into a data folder from files."""
    setting(parser, "data.dir", "--data")
    setting(parser, "engine.kind", "--engine")
    flag(parser, "--json", "print the outcome as one JSON object")
    flag(parser, "--no-progress", "no progress on stderr")
    setting(parser, "log.level", "--log-level")


def files_of(args: argparse.Namespace) -> list[Path]:
    """The files named. Raises ``ConfigError`` (exit 2) for one that does not exist."""
    files = [Path(name) for name in args.files]
    for path in files:
        if not path.is_file():
            raise ConfigError(f"{path} is no file: check the path")
    return files


def feed(settings: Settings, source: Source, args: argparse.Namespace) -> int:
    """Run ``source`` through engine and store to its end, with progress, and print the outcome."""
    from tapewick import pipeline
    from tapewick.commands.running import run

    configure_logs(settings.log)
    bar = Progress("trade", shown=not args.no_progress)

    def show(progress: pipeline.Progress) -> None:
        part = progress.bytes_read / progress.bytes_total if progress.bytes_total else None
        bar.update(progress.trades, part)

    async def work() -> int:
        try:
            report = await pipeline.feed(settings, source, progress=show)
        finally:
            bar.close()
        _print(report, args.json)
        return 0

    return run(work())


def _print(report: Report, as_json: bool) -> None:
    rate = report.trades / report.seconds if report.seconds else 0.0
    if as_json:
        fields = {name: getattr(report, name) for name in ("trades", "duplicates", "rejects", "gaps")}
        write(json.dumps({**fields, "seconds": round(report.seconds, 3), "rate": round(rate)}).encode() + b"\n")
        return
    refused = sum(report.rejects.values())
    reasons = f" ({', '.join(f'{why} {n:,}' for why, n in sorted(report.rejects.items()))})" if refused else ""
    note(
        f"{plural(report.trades, 'trade')} in {report.seconds:.1f} s ({rate:,.0f}/s); "
        f"{plural(report.duplicates, 'duplicate')}, {refused:,} rejected{reasons}, {plural(report.gaps, 'gap')}"
    )
