"""Who wrote, administered or changed something: one JSON line each, in a file of its own or among the logs.

Lines hold no secret, and nothing a client sent can begin another line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tapewick.errors import ConfigError, TapewickError
from tapewick.secrecy import masked

__all__ = ["configured", "keep", "record", "recorded"]

SERVING = ("serve", "demo", "run")
CHANGING = ("repair", "backfill", "migrate", "keys", "doctor")
READING = ("list", "status")
TOLD = ("action", "id", "scope", "source", "note", "instrument", "instruments", "to", "repair", "force", "yes", "url")

_file: list[int] = []  # the open descriptor, if there is one
_command: list[str] = []  # that runs now


def keep(path: str) -> None:
    """From now on write to the file ``path``, which only its owner may read; "": among the logs, at level info.
    Raises ``ConfigError``."""
    while _file:
        os.close(_file.pop())
    if path:
        try:
            _file.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigError(f"log.audit: cannot write {path}: {error.strerror}") from None


def record(action: str, *, who: str, outcome: str | int, **more: object) -> None:
    """One line: ``who`` did ``action``, and how it went."""
    if _file:
        import json

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {"ts": stamp, "audit": action, "who": who, "outcome": outcome, **more}
        os.write(_file[0], masked(json.dumps(line, default=str)).encode() + b"\n")
        return
    import structlog  # commands that log nothing need not wait for it

    if structlog.is_configured():
        structlog.get_logger().info("audit", action=action, who=who, outcome=outcome, **more)


@contextmanager
def recorded(command: str, arguments: Mapping[str, object]) -> Iterator[list[int]]:
    """A command, with the exit code it leaves in what is yielded; those that change nothing leave no line."""
    done: list[int] = []
    failed: str | int = 1
    _command[:] = [command]
    try:
        yield done
    except TapewickError as error:
        failed = error.exit_code
        raise
    finally:
        if command in CHANGING and arguments.get("action") not in READING:
            told = {name: arguments[name] for name in TOLD if arguments.get(name)}
            record(command, who=_user(), outcome=done[0] if done else failed, asked=told)


def configured(settings: Mapping[str, object]) -> None:
    """The ``settings`` that a server begins with and that are not defaults, as they may be shown."""
    if _command and _command[0] in SERVING:
        record("settings", who=_user(), outcome=_command[0], settings=dict(settings))


def _user() -> str:
    return f"{os.environ.get('USER') or 'uid'} ({os.getuid() if hasattr(os, 'getuid') else '?'})"
