"""The command line: find the command, run it, turn errors into one line and an exit code.

    0 done · 1 failure · 2 usage or configuration · 3 upstream unreachable
    4 integrity check failed · 130 interrupted · 143 terminated after draining

Nothing heavy is imported here: help and version answer before any driver loads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tapewick import __version__
from tapewick.audit import recorded
from tapewick.commands import COMMANDS, module_of, parser_of
from tapewick.errors import ConfigError, Disconnected, StoreBusy, TapewickError
from tapewick.secrecy import masked, plain

__all__ = ["main", "overview"]

_EXAMPLES = """\
examples:
  tapewick demo                                          # a moving market in your browser, no network
  tapewick replay capture.gz --speed max --data ./d      # recorded trades onto the tape in ./d
  tapewick candles binance:BTCUSDT 1m --data ./d --json  # exact candles, one JSON object per line
"""


def overview() -> str:
    """Help for the whole program."""
    lines = [
        f"tapewick {__version__}: prices you can prove",
        "",
        "usage: tapewick [COMMAND] [FLAG…]      without a command: serve",
        "",
        "commands:",
        *(f"  {name:<12}{doc}" for name, doc in COMMANDS.items()),
        "",
        "  -h, --help     this, or the help of a command     -V, --version  print the version",
        "",
        "Every flag of a command has an environment variable; see tapewick COMMAND -h.",
        "exit codes: 0 done, 1 failure, 2 usage or configuration, 3 upstream unreachable,",
        "            4 integrity check failed, 130 interrupted, 143 terminated after draining",
        "",
        _EXAMPLES,
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``argv`` names and return its exit code; errors are printed, not raised."""
    _open_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("-V", "--version"):
        print(f"tapewick {__version__}")
        return 0
    if words and words[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    try:
        return _run(*_split(words))
    except SystemExit as done:  # argparse after printing help
        return int(done.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (TapewickError, OSError) as error:
        return _explain(error)


def _open_standard_streams() -> None:
    """Give a process started without stdin, stdout or stderr (``>&-``) the null device in their place.

    A database or a socket would take the free number else, be written to as output, and uvloop aborts on it.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", closefd=False))


def _split(words: list[str]) -> tuple[str, list[str]]:
    """Command and its arguments; flags written before the command belong to it too."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        from tapewick.config import closest

        raise ConfigError(f"unknown command {words[0]!r}{closest(words[0], COMMANDS)}; see tapewick -h")
    for at, word in enumerate(words):
        if word in COMMANDS:
            return word, words[:at] + words[at + 1 :]
    return "serve", words


def _run(name: str, words: list[str]) -> int:
    parser = parser_of(name)
    parser.refuse_unknown(words)
    args, rest = parser.parse_known_args(words)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        with recorded(name, vars(args)) as done:
            code: int = module_of(name).run(args)
            done.append(code)
    except StoreBusy as error:
        if any("--url" in action.option_strings for action in parser._actions):
            raise
        folder = str(error).partition(" is in use by ")[0]
        remedy = "stop it, or name another folder with --data"
        raise StoreBusy(f"{folder} is in use by another tapewick: {remedy}") from error
    return code


def _explain(error: TapewickError | OSError) -> int:
    """Print one line that says what happened and what to do, and return the exit code."""
    if os.environ.get("TAPEWICK_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, TapewickError):
        text, code = str(error), error.exit_code
        if isinstance(error, Disconnected) and ";" not in text:
            text += "; check the address, the network, and the proxy the environment names"
    else:
        where = f": {error.filename}" if error.filename else ""
        text, code = f"{error.strerror or error}{where}", 1
    print(f"tapewick: {masked(plain(' '.join(text.split())))}", file=sys.stderr)
    return code
