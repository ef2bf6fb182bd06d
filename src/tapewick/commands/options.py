"""Flags: every one shows the variable that sets it and its default, unknown ones get a suggestion."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tapewick import audit
from tapewick.commands.variables import Arguments, Variable, fill, layers, typed
from tapewick.config import SETTINGS, closest, load, shown
from tapewick.errors import ConfigError, UnknownTimeframe
from tapewick.settings import Settings

if TYPE_CHECKING:
    from ssl import SSLContext

    from tapewick.timeframe import Timeframe

__all__ = [
    "Access",
    "Parser",
    "access",
    "common",
    "count",
    "flag",
    "flags",
    "moment",
    "option",
    "server",
    "setting",
    "settings_of",
    "timeframe",
]

_BY_KEY = {setting.key: setting for setting in SETTINGS}
TOKEN = "TAPEWICK_TOKEN"
_SETTING = "setting:"  # prefix of the destinations that hold settings


class Parser(argparse.ArgumentParser):
    """Argparse whose usage errors are ``ConfigError`` (one line, exit 2) with a suggestion."""

    def __init__(self, prog: str, description: str, examples: Sequence[str] = ()) -> None:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
        super().__init__(
            prog,
            description=description,
            epilog=epilog,
            formatter_class=_Help,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help="show this help")
        self.variables: dict[str, Variable] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What was typed, and for the rest its variables and defaults. Raises ``ConfigError``."""
        told, rest = super().parse_known_args(args, Arguments() if namespace is None else namespace)
        fill(self, told, self.variables)
        _one_place(told)
        return told, rest

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Raise ``ConfigError`` for a flag there is not. It names the flag alone: what follows may be a secret, and
        must not be taken for another argument either."""
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if re.match(r"--?[^\d\W]", word) and name not in self._option_string_actions:
                self.error(f"unrecognized arguments: {name}")

    def error(self, message: str) -> NoReturn:
        """Raise ``ConfigError`` with ``message``, what was probably meant, and where help is."""
        hint = ""
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            flags = [name for action in self._actions for name in action.option_strings]
            hint = closest(found[1].partition("=")[0], flags)
        elif found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            hint = closest(found[1], [word.strip(" '") for word in found[2].split(",")])
        raise ConfigError(f"{message}{hint}; see {self.prog} -h")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help that fits 50 lines: wide, with short columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=120)

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        return super()._format_usage(usage, actions, groups, prefix or "usage: ")


def setting(parser: Parser, key: str, name: str, *, metavar: str | None = None) -> None:
    """Add flag ``name`` for the setting ``key``; type and limits are checked where settings load."""
    declared = _BY_KEY[key]
    words = declared.kind.split(" | ") if " | " in declared.kind else None
    default = shown(declared, declared.default)
    if isinstance(default, list):
        default = ",".join(map(str, default))
    if isinstance(default, bool):
        default = "on" if default else "off"
    parser.add_argument(
        name,
        dest=_SETTING + key,
        metavar=metavar or ("|".join(words) if words else declared.name.upper()),
        help=f"{declared.doc.rstrip('.')} [env: {declared.env}] [default: {'none' if default == '' else default}]",
    )


def option(
    parser: Parser,
    name: str,
    doc: str,
    *,
    default: Any = None,
    shown_default: str | None = None,
    type: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    nargs: str | None = None,
    env: str = "",
) -> None:
    """Add an argument of one command; a variable may set it too: ``env``, else one named like it (``--tf``:
    ``TAPEWICK_TF``)."""
    env = env or _env(name)
    action = parser.add_argument(
        name,
        default=argparse.SUPPRESS,
        type=type,
        choices=choices,
        metavar=metavar,
        nargs=nargs,
        help=f"{doc} [env: {env}] [default: {shown_default or ('none' if default is None else default)}]",
    )
    parser.variables[action.dest] = Variable(env, action, default)


def flag(parser: Parser, name: str, doc: str) -> None:
    """Add a switch that is off unless given or its variable is 1 or true."""
    env, off = _env(name), argparse.SUPPRESS
    action = parser.add_argument(name, action="store_true", default=off, help=f"{doc} [env: {env}] [default: off]")
    parser.variables[action.dest] = Variable(env, action, False)


class Access(NamedTuple):
    """What a server wants to see (never printed), and the file of the authority that vouches for it."""

    token: str | None
    tls: SSLContext | str | None


def server(parser: Parser, doc: str = "the server", *, default: str | None = None) -> None:
    """Add ``--url`` with the meaning ``doc``, and what ``access`` reads."""
    option(parser, "--url", doc, default=default, metavar="URL")
    option(parser, "--token", f"what a server with tokens wants to see; {TOKEN}_FILE names a file of it", metavar="T")
    option(parser, "--tls-ca", "PEM file of the authority that vouches for an https server", metavar="FILE")
    option(
        parser, "--tls-cert", "PEM file of a certificate and its key, for a server that asks for one", metavar="FILE"
    )


def access(args: argparse.Namespace) -> Access:
    """The token of ``--token``, its variable or the file ``TAPEWICK_TOKEN_FILE``, ``--tls-ca``, ``--tls-cert``.

    Raises ``ConfigError`` for a file that cannot be read.
    """
    authority = getattr(args, "tls_ca", None) or _variable(args, "TAPEWICK_TLS_CA")
    shown = getattr(args, "tls_cert", None) or _variable(args, "TAPEWICK_TLS_CERT")
    return Access(_token(args), _with_certificate(authority, shown) if shown else authority)


def _variable(args: argparse.Namespace, name: str) -> str | None:
    """Of commands that have no flag for it too."""
    return next((one.variables[name] for one in layers(args) if name in one.variables), None) or None


def _token(args: argparse.Namespace) -> str | None:
    """As it was typed, else of the first layer that has it or names a file of it."""
    if typed(args, "token") and args.token:
        return str(args.token)
    for _, variables in layers(args):
        token, file = variables.get(TOKEN), variables.get(f"{TOKEN}_FILE")
        if token or file:
            return token or _token_of(str(file))
    return None


def _token_of(file: str) -> str:
    try:
        token = Path(file).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{TOKEN}_FILE={file} cannot be read: {cause}") from None
    if not token:
        raise ConfigError(f"{TOKEN}_FILE={file} is empty: it must hold the token")
    return token


def _with_certificate(authority: str | None, file: str) -> SSLContext:
    """What trusts ``authority``, None: the public ones, and shows the certificate of ``file``."""
    import ssl

    from tapewick._client_address import trust

    context = trust(authority) or ssl.create_default_context()
    try:
        context.load_cert_chain(Path(file).expanduser())
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"--tls-cert {file}: {error.strerror or error}; it holds a certificate and its key") from None
    return context


def common(parser: Parser) -> None:
    """The flags that every command takes."""
    option(parser, "--config", "settings file to use instead", shown_default="./tapewick.toml", metavar="FILE")
    flag(parser, "--no-config", "ignore settings files")
    option(parser, "--env-file", "file of NAME=value lines", shown_default="./.env", metavar="FILE")
    option(
        parser,
        "--color",
        "when to colour",
        default="auto",
        choices=("auto", "always", "never"),
        metavar="auto|always|never",
    )


def flags(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that are flags of this command, by key; None where the flag was not given."""
    return {key.removeprefix(_SETTING): value for key, value in vars(args).items() if key.startswith(_SETTING)}


def _one_place(args: Arguments) -> None:
    """Of a server and a data folder the one that was typed: a variable is for all commands, a flag for this one."""
    if "url" in vars(args) and flags(args).get("data.dir") is not None:
        if typed(args, "url") and args.url:
            raise ConfigError("--url and --data name a server and a folder: leave out the one that is not meant")
        args.url = None


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings ``args`` lead to; from here on they decide which engine runs. Raises ``ConfigError``."""
    loaded = load(flags(args), config=args.config, no_config=args.no_config, env_file=args.env_file)
    audit.keep(loaded.settings.log.audit)
    values = {setting.key: getattr(getattr(loaded.settings, setting.section), setting.name) for setting in SETTINGS}
    audit.configured(
        {key: shown(_BY_KEY[key], value) for key, value in values.items() if loaded.origins[key] != "default"}
    )
    if loaded.settings.engine.kind != "auto":
        os.environ["TAPEWICK_ENGINE"] = loaded.settings.engine.kind  # read where tapewick.engine is imported
    return loaded.settings


def count(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def moment(text: str) -> int:
    """UTC ns of a time written as ms since 1970 or as ISO 8601 (UTC unless it says otherwise)."""
    import datetime as dt

    if re.fullmatch(r"\d{1,15}", text):
        return int(text) * 1_000_000
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither ms since 1970 nor like 2024-08-09T00:00:00Z") from None
    time = time if time.tzinfo else time.replace(tzinfo=dt.UTC)
    since = time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def timeframe(text: str) -> Timeframe:
    """The timeframe ``text`` names. Raises ``UnknownTimeframe`` with the nearest one."""
    from tapewick.timeframe import NAMES, parse

    try:
        return parse(text)
    except UnknownTimeframe as error:
        raise UnknownTimeframe(f"{error}{closest(text, NAMES)}") from error


def _env(name: str) -> str:
    return "TAPEWICK_" + name.strip("-").replace("-", "_").upper()
