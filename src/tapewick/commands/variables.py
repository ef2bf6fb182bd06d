"""The variables that set flags: of the environment, else of the file that ``--env-file`` names, else of ``./.env``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from tapewick.config import dotenv

__all__ = ["Arguments", "Layer", "Variable", "fill", "layers", "typed"]

ENV_FILE = "TAPEWICK_ENV_FILE"
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "": False, "0": False, "false": False, "no": False}
_WORDS["off"] = False


class Variable(NamedTuple):
    """What sets the flag of ``action`` where nobody typed it: the variable ``env``, else ``default``."""

    env: str
    action: argparse.Action
    default: Any


class Layer(NamedTuple):
    """Variables and where they are from, for messages."""

    origin: str
    variables: Mapping[str, str]


class Arguments(argparse.Namespace):
    """Values of flags, and behind them what ``vars`` does not show: ``typed``, the names of those that were typed,
    and ``layers``, the variables, the highest precedence first."""

    __slots__ = ("layers", "typed")

    def __init__(self) -> None:
        super().__init__()
        self.typed: frozenset[str] = frozenset()
        self.layers: tuple[Layer, ...] = ()


def typed(args: argparse.Namespace, name: str) -> bool:
    """Whether the flag whose value is ``args.NAME`` was typed, and not set by its variable or left out."""
    return isinstance(args, Arguments) and name in args.typed


def layers(args: argparse.Namespace) -> tuple[Layer, ...]:
    """The variables that ``args`` were made of, the highest precedence first."""
    return args.layers if isinstance(args, Arguments) else (Layer("environment", os.environ),)


def fill(parser: argparse.ArgumentParser, args: Arguments, declared: Mapping[str, Variable]) -> None:
    """Set what of ``declared`` was not typed. Raises ``ConfigError`` for a file that cannot be read; tells ``parser``
    of a value that a flag does not take."""
    args.typed = frozenset(vars(args)) & declared.keys()
    file = vars(args).get("env_file", os.environ.get(ENV_FILE))
    path, found = dotenv(file)
    args.layers = (Layer("environment", os.environ), Layer(path, found))
    for name, variable in declared.items():
        if name not in args.typed:
            setattr(args, name, _value(parser, variable, args.layers))


def _value(parser: argparse.ArgumentParser, variable: Variable, known: tuple[Layer, ...]) -> Any:
    for origin, variables in known:
        if variable.env in variables:
            try:
                return _read(parser, variable.action, variables[variable.env])
            except argparse.ArgumentError as error:
                parser.error(f"{variable.env} ({origin}): {error.message}")
    if isinstance(variable.default, str) and not variable.action.nargs:
        return parser._get_value(variable.action, variable.default)
    return variable.default


def _read(parser: argparse.ArgumentParser, action: argparse.Action, text: str) -> Any:
    """``text`` as the flag's value; lists have commas."""
    if action.nargs == 0:
        if text.lower() not in _WORDS:
            raise argparse.ArgumentError(action, f"{text!r} is neither true nor false")
        return _WORDS[text.lower()]
    parts = [part.strip() for part in text.split(",") if part.strip()] if action.nargs else [text]
    values = [parser._get_value(action, part) for part in parts]
    for value in values:
        parser._check_value(action, value)
    return values if action.nargs else values[0]
