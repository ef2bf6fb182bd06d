"""What a person or a script sees: data on stdout, everything else on stderr.

Tables and colour only on a terminal (``NO_COLOR`` and ``FORCE_COLOR`` are honoured), JSON
Lines otherwise; progress on stderr only, redrawn on a terminal, a line now and then elsewhere.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tapewick.secrecy import masked, plain
from tapewick.settings import Log

if TYPE_CHECKING:
    import logging

__all__ = ["Progress", "coloured", "configure_logs", "moment", "note", "paint", "plural", "table", "write"]

_COLOURS = {"green": "32", "red": "31", "dim": "2", "bold": "1", "yellow": "33"}


def coloured(when: str, stream: TextIO) -> bool:
    """Whether ``stream`` gets colour: ``--color``, then ``NO_COLOR``, ``FORCE_COLOR``, then the terminal."""
    if when != "auto":
        return when == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def paint(text: str, colour: str, on: bool) -> str:
    """``text`` in ``colour`` if ``on``."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if on else text


def write(data: bytes) -> None:
    """Write ``data`` to stdout and flush it, so that a reader of the pipe sees it now."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """One line for the person at the terminal, on stderr."""
    print(f"tapewick: {text}", file=sys.stderr, flush=True)


def plural(number: int, noun: str) -> str:
    """``1 trade``, ``1,204 trades``."""
    ending = "" if number == 1 else "es" if noun.endswith("h") else "s"
    return f"{number:,} {noun}{ending}"


def moment(ms: int) -> str:
    """A time in UTC ms since 1970 as people read it."""
    import datetime as dt

    return (dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=ms)).isoformat(" ", "milliseconds")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool = False) -> str:
    """Text columns under ``heads``; numbers to the right, words to the left."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(head), *(len(row[i]) for row in cells), 0) for i, head in enumerate(heads)]
    numeric = [bool(cells) and all(row[i][:1] in "-–+0123456789" for row in cells) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        parts = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([paint(line(heads), "bold", colour), *map(line, cells)]) + "\n"


class Progress:
    """How far long work has come, with its rate, on stderr."""

    def __init__(self, noun: str, *, shown: bool, stream: TextIO | None = None) -> None:
        self._noun = noun
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._shown = shown
        self._started = time.monotonic()
        self._next = self._started + (0.2 if self._live else 10)
        self._drawn = False

    def update(self, done: int, part: float | None = None) -> None:
        """``done`` items so far; ``part`` (0 to 1) of the input read, where known."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + (0.2 if self._live else 10)
        rate = done / max(now - self._started, 1e-9)
        share = "" if part is None else f"{part:4.0%}  "
        text = f"{share}{plural(done, self._noun)}  {rate:,.0f}/s"
        self._stream.write(f"\r\x1b[2K{text}" if self._live else f"tapewick: {text}\n")
        self._stream.flush()
        self._drawn = True

    def close(self) -> None:
        """Leave a clean line."""
        if self._live and self._drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def configure_logs(log: Log) -> None:
    """Send structured logs at ``log.level`` and above to stderr, as text or JSON Lines."""
    import logging

    import structlog

    level = getattr(logging, log.level.upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_foreign())
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("picows").setLevel(logging.WARNING)  # two lines per connection at INFO
    renderers = [_json] if log.json else [_safe, structlog.dev.ConsoleRenderer(colors=False)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _safe(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Secrets masked; no text can begin a line that looks like another event: tracebacks are indented."""
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(f"    {plain(masked(line))}" for line in str(value).splitlines())
        elif name == "event":
            event[name] = plain(masked(str(value)))
        elif not isinstance(value, bool | int | float | None):  # the renderer quotes what is no plain word
            event[name] = masked(value if isinstance(value, str) else repr(value))
    return event


def _json(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    """One JSON object, secrets masked."""
    import structlog

    return masked(str(structlog.processors.JSONRenderer(default=repr)(logger, method, event)))


def _foreign() -> logging.Formatter:
    """For what libraries log: the same care."""
    import logging

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return "\n    ".join(plain(masked(line)) for line in super().format(record).splitlines())

    return Formatter("%(levelname)s %(name)s: %(message)s")
