"""Where settings come from: flags, environment, files and defaults, checked and typed.

Precedence, highest first: flag, environment ``TAPEWICK_SECTION__NAME``, ``.env`` file, ``./tapewick.toml``, the
user's configuration folder, default. What there is to set is declared in ``settings.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from tapewick.errors import ConfigError
from tapewick.secrecy import learn
from tapewick.settings import SECRET, Settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SETTINGS", "Loaded", "Setting", "closest", "dotenv", "load", "shown"]

PREFIX = "TAPEWICK_"
PROJECT_FILE = "tapewick.toml"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Setting(NamedTuple):
    """One declaration. ``type`` is bool, int, float, str, ``tuple[str, ...]`` or a Literal; ``alias`` another
    environment variable that sets it, known from older systems."""

    section: str
    name: str
    type: Any
    default: Any
    doc: str
    secret: bool
    alias: str

    @property
    def key(self) -> str:
        """As files and messages write it: ``server.port``."""
        return f"{self.section}.{self.name}"

    @property
    def env(self) -> str:
        """As the environment writes it: ``TAPEWICK_SERVER__PORT``."""
        return f"{PREFIX}{self.section}__{self.name}".upper()

    @property
    def kind(self) -> str:
        """The type for people: ``int``, ``list`` or the choices."""
        if get_origin(self.type) is Literal:
            return " | ".join(get_args(self.type))
        return "list" if get_origin(self.type) is tuple else str(self.type.__name__)


_SECTIONS: dict[str, Any] = Settings()._asdict()


def _declared() -> Iterator[Setting]:
    for section, start in _SECTIONS.items():
        hints = get_type_hints(type(start), include_extras=True)
        for name, default in zip(start._fields, start, strict=True):
            kind, doc, *marks = get_args(hints[name])
            alias = next((mark for mark in marks if mark != SECRET), "")
            yield Setting(section, name, kind, default, doc, SECRET in marks, alias)


SETTINGS: tuple[Setting, ...] = tuple(_declared())
_BY_KEY = {setting.key: setting for setting in SETTINGS}
_BY_ENV = {setting.env: setting for setting in SETTINGS}
# Names without "__" are left to others (TAPEWICK_TESTDATA, the flags' own), but not these slips.
_NEAR_MISSES = {setting.env.replace("__", "_"): setting.env for setting in SETTINGS}
_NEAR_MISSES |= {f"{PREFIX}{name}": f"{PREFIX}SERVER__{name}" for name in ("HOST", "PORT")}
_NEAR_MISSES[f"{PREFIX}DATA"] = f"{PREFIX}DATA__DIR"


class Loaded(NamedTuple):
    """Settings, and per key where each value came from."""

    settings: Settings
    origins: dict[str, str]


def closest(word: str, words: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the nearest of ``words``, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(words), 1, 0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: str | None = None,
    no_config: bool = False,
    env_file: str | None = None,
) -> Loaded:
    """Settings from every origin, the highest precedence winning.

    ``flags`` maps keys (``server.port``) to values; None values are absent. ``config`` replaces
    both configuration files, ``no_config`` ignores them. Raises ``ConfigError`` naming the
    origin for an unknown key, a malformed value or an unreadable file.
    """
    environ = os.environ if environ is None else environ
    layers: list[tuple[str, Mapping[str, object]]] = []
    if not no_config:
        layers += [(str(path), _from_toml(path)) for path in _files(config, environ)]
    path, variables = dotenv(env_file)
    if path:
        layers.append((path, _from_environment(variables, path)))
    layers.append(("environment", _from_environment(environ, "environment")))
    layers.append(("flag", {key: value for key, value in (flags or {}).items() if value is not None}))
    values: dict[str, object] = {setting.key: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, "default")
    for origin, layer in layers:
        for key, raw in layer.items():
            values[key] = _convert(_BY_KEY[key], raw, origin)
            origins[key] = origin
    _learn(values)
    settings = _assemble(values)
    _check(settings, origins)
    return Loaded(settings, origins)


def _learn(values: Mapping[str, object]) -> None:
    """Have every secret that was set kept out of logs and messages."""
    for setting in SETTINGS:
        value = values[setting.key]
        if setting.secret and value != setting.default:
            for text in value if isinstance(value, tuple) else (value,):
                learn(str(text))


def _assemble(values: Mapping[str, Any]) -> Settings:
    sections = {
        section: type(start)(**{name: values[f"{section}.{name}"] for name in start._fields})
        for section, start in _SECTIONS.items()
    }
    return Settings(**sections)


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Rules that types cannot say. Raises ``ConfigError``."""
    own = settings.server
    guarded = own.tokens or own.require_keys or own.allow_unauthenticated
    for section, host in (("server", own.host), ("grpc", settings.grpc.host), ("admin", settings.admin.host)):
        if host not in LOOPBACK and not guarded:
            raise ConfigError(
                f"{section}.host {host!r} ({origins[f'{section}.host']}) is not a loopback address and clients need no "
                "token: set server.tokens or server.require_keys, or keep 127.0.0.1 and put an authenticating proxy in "
                "front (server.allow_unauthenticated = true opens it to everybody)"
            )
    name = settings.bus.name
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 64):
        raise ConfigError(
            f"bus.name is {name!r} ({origins['bus.name']}); it takes letters, digits, - and _, at most 64"
        )
    bounds = {
        "server.port": (0, 65535),
        "grpc.port": (0, 65535),
        "server.push_per_address": (1, 10**9),
        "server.push_per_key": (1, 10**9),
        "server.connections_per_address": (1, 10**9),
        "server.requests_per_min": (0, 10**9),
        "admin.port": (0, 65535),
        "ingest.max_items": (1, 100_000),
        "ingest.max_bytes": (1024, 64 << 20),
        "ingest.trades_per_s": (1, 10**9),
        "ingest.max_instruments": (0, 100_000),
        "ingest.idempotency_h": (1, 8760),
        "engine.lateness_ms": (0, 3_600_000),
        "engine.final_grace_s": (0, 86_400),
        "engine.commit_interval_ms": (1, 60_000),
        "engine.partitions": (1, 1024),
        "engine.lease_s": (1, 600),
        "books.store_interval_s": (0, 86_400),
        "books.store_levels": (1, 5000),
        "store.pool_min": (1, 1000),
        "store.pool_max": (settings.store.pool_min, 1000),
        "retention.trades_days": (0, 36_500),
        "retention.minutes_days": (0, 36_500),
        "retention.books_days": (0, 36_500),
        "bus.max_bytes": (65_536, 2**40),
        "redis.maxlen": (1000, 10**12),
        "redis.keep_s": (1, 86_400),
        "nats.stream_bytes": (1_048_576, 2**50),
        "nats.max_age_s": (60, 10 * 365 * 86_400),
        "nats.dedupe_s": (1, 86_400),
        "nats.replicas": (1, 5),
        "kafka.replication": (1, 7),
        "kafka.retention_s": (60, 10 * 365 * 86_400),
        "binance_gateway.weight_per_min": (1, 10**9),
        "chain.id": (0, 2**53),
        "chain.start_block": (-1, 10**12),
        "chain.confirmations": (-1, 10**6),
        "chain.depth": (-1, 10**6),
        "chain.poll_s": (0.05, 3600),
        "chain.span": (1, 10_000),
        "repair.max_attempts": (1, 1_000_000),
        "repair.weight_share": (0.01, 1.0),
        "repair.weight_limit": (100, 10**9),
        "verify.interval_s": (0, 86_400),
        "record.max_bytes": (65_536, 2**40),
        "record.rotate_s": (1, 31 * 86_400),
        "record.rotate_bytes": (4096, 2**40),
        "binance.book_levels": (5, 5000),
        "sim.rate": (0.001, 1e6),
    }
    for key, (low, high) in bounds.items():
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        if not low <= value <= high:
            raise ConfigError(f"{key} is {value} ({origins[key]}); it must lie between {low} and {high}")
    if any(settings.retention) and settings.store.kind != "postgres":
        raise ConfigError("retention needs store.kind = postgres: the embedded store keeps everything")
    _check_chain(settings, origins)


def _check_chain(settings: Settings, origins: Mapping[str, str]) -> None:
    """Addresses of nodes are secrets: a message names one by its place."""
    own = settings.chain
    for number, url in enumerate(own.rpc_urls, 1):
        scheme, separator, rest = url.partition("://")
        if scheme.lower() not in ("http", "https") or not separator or not rest:
            raise ConfigError(
                f"chain.rpc_urls ({origins['chain.rpc_urls']}): entry {number} is no address; write "
                "http://HOST:PORT or https://HOST/…"
            )
    for address in own.contracts:
        digits = address[2:].lower()
        if address[:2] != "0x" or len(digits) != 40 or set(digits) - set("0123456789abcdef"):
            raise ConfigError(
                f"chain.contracts ({origins['chain.contracts']}): {address!r} is no address of a contract; "
                "write 0x and 40 hex digits"
            )
    if own.contracts and not own.rpc_urls:
        raise ConfigError("chain.contracts names contracts and chain.rpc_urls no node: set both, or neither")
    if own.contracts and not own.id:
        raise ConfigError("chain.contracts names contracts and chain.id is 0: set the chain's number, such as 1")


def _files(config: str | None, environ: Mapping[str, str]) -> list[Path]:
    """Configuration files that exist, lowest precedence first."""
    from pathlib import Path  # help shows settings without loading any: pathlib would cost it a tenth of its time

    if config is not None:
        return [Path(config)]
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "~"), ".config")
    paths = (Path(home).expanduser() / "tapewick" / PROJECT_FILE, Path(PROJECT_FILE))
    return [path for path in paths if path.is_file()]


def _read(path: Path | str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def _from_toml(path: Path) -> dict[str, object]:
    import tomllib

    try:
        document = tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    values: dict[str, object] = {}
    for section, body in document.items():
        if not isinstance(body, dict) or section not in Settings._fields:
            raise ConfigError(f"{path}: unknown section [{section}]{closest(section, Settings._fields)}")
        for name, value in body.items():
            key = f"{section}.{name}"
            if key not in _BY_KEY:
                raise ConfigError(f"{path}: unknown key {key}{closest(key, _BY_KEY)}")
            values[key] = value
    return values


def _from_environment(environ: Mapping[str, str], origin: str) -> dict[str, object]:
    """Settings among ``TAPEWICK_*`` variables; ``NAME_FILE`` names a file that holds a secret."""
    values: dict[str, object] = {}
    for setting in SETTINGS:
        if setting.alias in environ and setting.env not in environ:
            values[setting.key] = environ[setting.alias]
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        held = _BY_ENV.get(name.removesuffix("_FILE"))
        if (named := _BY_ENV.get(name)) is not None:
            values[named.key] = text
        elif held is not None and held.secret and name.endswith("_FILE"):
            values[held.key] = _read(text).strip()
        elif "__" in name or name in _NEAR_MISSES:
            hint = f" (did you mean {_NEAR_MISSES[name]}?)" if name in _NEAR_MISSES else closest(name, _BY_ENV)
            raise ConfigError(f"{origin}: unknown setting {name}{hint}")
    return values


def dotenv(env_file: str | None) -> tuple[str, dict[str, str]]:
    """The file ``env_file``, None: ``./.env``, and its variables; two empty ones where that is not there. Raises
    ``ConfigError``."""
    if env_file is None and not os.path.isfile(".env"):
        return "", {}
    path = env_file if env_file is not None else ".env"
    return path, _parse_dotenv(path)


def _parse_dotenv(path: str) -> dict[str, str]:
    """``NAME=value`` lines; comments, ``export`` and one pair of quotes are understood."""
    values: dict[str, str] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{path}: line {number} is not NAME=value")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def _convert(setting: Setting, raw: object, origin: str) -> object:
    """``raw`` (text, or a TOML value) as the setting's type."""
    try:
        return _typed(setting.type, raw)
    except ValueError as error:
        if setting.secret:
            raise ConfigError(
                f"{setting.key} ({origin}): not of type {setting.kind} (what it is stays secret)"
            ) from None
        raise ConfigError(f"{setting.key} ({origin}): {error}") from error


def _typed(kind: Any, raw: object) -> object:
    if get_origin(kind) is Literal:
        if raw in (choices := get_args(kind)):
            return raw
        raise ValueError(f"{raw!r} is none of {', '.join(choices)}{closest(str(raw), choices)}")
    if get_origin(kind) is tuple:
        items = raw.split(",") if isinstance(raw, str) else raw
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(item.strip() for item in items if item.strip())
        raise ValueError(f"{raw!r} is not a list of texts")
    if kind is bool:
        return _boolean(raw)
    return _scalar(kind, raw)


def _boolean(raw: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in words:
        return words[raw.lower()]
    raise ValueError(f"{raw!r} is neither true nor false")


def _scalar(kind: Any, raw: object) -> object:
    accepted = (int, float) if kind is float else (kind,)
    if isinstance(raw, str) and kind is not str:
        try:
            return kind(raw.replace("_", ""))
        except ValueError:
            raise ValueError(f"{raw!r} is not a number of type {kind.__name__}") from None
    if isinstance(raw, bool) or not isinstance(raw, accepted):
        raise ValueError(f"{raw!r} is not of type {kind.__name__}")
    converted: object = kind(raw)
    return converted


def shown(setting: Setting, value: object) -> object:
    """``value`` as output may show it: without the credentials a secret setting can carry."""
    if not setting.secret or value == setting.default or not value:
        return list(value) if isinstance(value, tuple) else value
    if isinstance(value, tuple):
        return ["***"] * len(value)
    scheme, separator, rest = str(value).partition("://")
    if not separator:
        return "***"
    host = rest.partition("?")[0].rpartition("@")[2].partition("/")[0]
    return f"{scheme}://***@{host}/***" if rest != host else str(value)
