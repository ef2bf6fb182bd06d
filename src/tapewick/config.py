"""Every setting, declared once: its section, name, type, default and one line of meaning.

From these declarations come the typed ``Settings``, the command line's flags and help, the
environment's names and the reference page. Precedence, highest first: flag, environment
``TAPEWICK_SECTION__NAME``, ``.env`` file, ``./tapewick.toml``, the user's configuration
folder, default. Standard library only: help must print in under 80 ms, and importing
msgspec alone costs more than that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from tapewick.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "SETTINGS",
    "Binance",
    "BinanceGateway",
    "Books",
    "Bus",
    "Data",
    "Engine",
    "Grpc",
    "Ingest",
    "Kafka",
    "Loaded",
    "Log",
    "Nats",
    "Record",
    "Redis",
    "Repair",
    "Retention",
    "Server",
    "Setting",
    "Settings",
    "Sim",
    "Store",
    "Verify",
    "closest",
    "load",
    "shown",
]

PREFIX = "TAPEWICK_"
PROJECT_FILE = "tapewick.toml"
SECRET = "secret"  # marks a setting whose value may carry credentials
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Data(NamedTuple):
    """Where everything durable lies."""

    dir: Annotated[str, "Folder that holds the tapes; one server at a time owns it."] = "./tapewick-data"


class Server(NamedTuple):
    """The one public port."""

    host: Annotated[str, "Address to listen on; one that is not loopback needs server.tokens."] = "127.0.0.1"
    port: Annotated[int, "TCP port of page, REST and WebSocket; 0 lets the system choose."] = 8080
    allowed_origins: Annotated[tuple[str, ...], "Other web origins that may call the API, exact."] = ()
    tls_cert: Annotated[str, "PEM file of the certificate; with tls_key the port speaks TLS only (https, wss)."] = ""
    tls_key: Annotated[str, "PEM file of the certificate's key."] = ""
    heavy_requests: Annotated[int, "Exports and other costly requests one address may have under way at once."] = 8
    tokens: Annotated[
        tuple[str, ...],
        "Tokens of which clients must show one, each as it is or as sha256:HEXDIGEST; empty: no client needs any.",
        SECRET,
    ] = ()
    require_keys: Annotated[bool, "Every client needs a key (tapewick keys), also where server.tokens is empty."] = (
        False
    )
    ws_deflate: Annotated[bool, "Compress frames for WebSocket clients that offer permessage-deflate."] = False
    push_per_address: Annotated[int, "WebSockets and event streams one address may have open at once."] = 16_384


class Grpc(NamedTuple):
    """The gRPC port; it needs the extra grpc."""

    enabled: Annotated[bool, "Serve the native and the legacy gRPC service, health and reflection."] = False
    host: Annotated[str, "Address to listen on; one that is not loopback needs server.tokens."] = "127.0.0.1"
    port: Annotated[int, "TCP port; 0 lets the system choose.", "APP_GRPC_PORT"] = 50_051
    venue: Annotated[
        str, "Whose candles the legacy service sends; empty: those of binance, else of sim, as for Binance clients."
    ] = ""
    tls_cert: Annotated[str, "PEM file of the certificate; with tls_key the port speaks TLS only."] = ""
    tls_key: Annotated[str, "PEM file of the certificate's key."] = ""
    tls_client_ca: Annotated[str, "PEM file of the authority whose certificates clients must show; empty: none."] = ""


class Ingest(NamedTuple):
    """Trades that other programs send to POST /v1/ingest/trades."""

    auto_register: Annotated[bool, "Give instruments hook:SYMBOL that are new a tape of their own."] = True
    max_items: Annotated[int, "Trades one request may hold."] = 5000
    max_bytes: Annotated[int, "Bytes one request may have."] = 1_048_576
    trades_per_s: Annotated[int, "Trades per second each key may send; beyond it is answered 429."] = 50_000
    secrets: Annotated[
        tuple[str, ...],
        "Secrets (whsec_…) of Standard Webhooks senders; two at once while one replaces the other.",
        SECRET,
    ] = ()
    max_instruments: Annotated[int, "Instruments hook:SYMBOL that are made at most."] = 1000
    idempotency_h: Annotated[int, "Hours for which a repeated Idempotency-Key gets the first answer."] = 24


class Engine(NamedTuple):
    """How trades become candles."""

    kind: Annotated[
        Literal["auto", "native", "reference"], "Which engine runs; auto takes native where it was built."
    ] = "auto"
    lateness_ms: Annotated[int, "How long after its end a candle waits for late trades before it closes."] = 2000
    final_grace_s: Annotated[int, "How long after its end a proven candle waits before it is final."] = 60
    commit_interval_ms: Annotated[int, "Least time between two commits of a partition."] = 20
    partitions: Annotated[int, "Groups the instruments hash to; the same on every bus."] = 16


class Store(NamedTuple):
    """What keeps the tapes."""

    kind: Annotated[
        Literal["duckdb", "postgres"], "Embedded in the data folder, or PostgreSQL with or without TimescaleDB."
    ] = "duckdb"
    memory_limit: Annotated[str, "Most memory the embedded store's buffers take."] = "128MB"
    dsn: Annotated[
        str, "Address of PostgreSQL: postgresql://user:password@host:port/database?sslmode=….", SECRET, "DATABASE_URL"
    ] = ""
    read_dsn: Annotated[str, "Address of a replica for reads; empty: the same server.", SECRET, "DB_READ_DSN"] = ""
    migrate_dsn: Annotated[str, "Address with a user who owns the tables; empty: the same user.", SECRET] = ""
    pool_min: Annotated[int, "Connections kept open to each PostgreSQL server."] = 2
    pool_max: Annotated[int, "Most connections to each PostgreSQL server."] = 10


class Retention(NamedTuple):
    """What a PostgreSQL store lets go of, counted back from each tape's newest time."""

    trades_days: Annotated[int, "Days of trades to keep; 0 keeps all."] = 0
    minutes_days: Annotated[int, "Days of candles under 1h to keep; 0 keeps all."] = 0
    books_days: Annotated[int, "Days of stored order books to keep; 0 keeps all."] = 0


class Books(NamedTuple):
    """Order books that are kept."""

    store_interval_s: Annotated[int, "Seconds between two stored books of an instrument; 0 stores none."] = 60
    store_levels: Annotated[int, "Levels a side that are stored of each."] = 500


class Bus(NamedTuple):
    """What carries batches between roles."""

    kind: Annotated[
        Literal["memory", "redis", "nats", "kafka"],
        "Which bus; memory carries within one process, the others need an extra.",
    ] = "memory"
    max_bytes: Annotated[int, "Bytes that may wait per topic and subscriber, and be under way to engines."] = 16_777_216
    name: Annotated[str, "What the names of all streams, topics and keys on a message server begin with."] = "tapewick"


class Redis(NamedTuple):
    """The Redis server of bus.kind redis: Redis 7 or later, or Valkey."""

    url: Annotated[
        str, "Address: redis:// or rediss:// (TLS), then [user:password@]host:port/number.", SECRET, "REDIS_URL"
    ] = "redis://127.0.0.1:6379/0"
    maxlen: Annotated[int, "Messages kept of a partition at most, acknowledged or not; guards the server's memory."] = (
        100_000
    )
    keep_s: Annotated[int, "Seconds for which messages are kept that every gateway reads."] = 30
    tls_ca: Annotated[str, "PEM file of who signed the server's certificate; empty: the system's authorities."] = ""
    tls_cert: Annotated[str, "PEM file of the certificate shown to the server; empty: none."] = ""
    tls_key: Annotated[str, "PEM file of that certificate's key."] = ""


class Nats(NamedTuple):
    """The NATS servers of bus.kind nats, with JetStream."""

    url: Annotated[
        str, "Addresses, separated by commas: nats:// or tls://, then [user:password@]host:port.", SECRET, "NATS_URL"
    ] = "nats://127.0.0.1:4222"
    credentials: Annotated[str, "Path of a .creds file; empty: none."] = ""
    stream_bytes: Annotated[int, "Bytes a topic's stream keeps at most; beyond, the oldest are discarded."] = (
        1_073_741_824
    )
    max_age_s: Annotated[int, "Seconds a stream keeps a message."] = 86_400
    dedupe_s: Annotated[int, "Seconds in which the server recognises a message that is sent again."] = 120
    replicas: Annotated[int, "Servers that keep each stream."] = 1
    tls_ca: Annotated[str, "PEM file of who signed the servers' certificates; empty: the system's authorities."] = ""
    tls_cert: Annotated[str, "PEM file of the certificate shown to the servers; empty: none."] = ""
    tls_key: Annotated[str, "PEM file of that certificate's key."] = ""


class Kafka(NamedTuple):
    """The Kafka cluster of bus.kind kafka."""

    brokers: Annotated[tuple[str, ...], "Some of the cluster's brokers, each as host:port."] = ("127.0.0.1:9092",)
    replication: Annotated[int, "Copies of each new topic."] = 1
    retention_s: Annotated[int, "Seconds new topics keep a message."] = 86_400
    username: Annotated[str, "User for SASL; empty: none."] = ""
    password: Annotated[str, "The user's password.", SECRET] = ""
    mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], "How the password is shown."] = (
        "SCRAM-SHA-512"
    )
    tls: Annotated[bool, "Speak TLS only."] = False
    tls_ca: Annotated[str, "PEM file of who signed the brokers' certificates; empty: the system's authorities."] = ""
    tls_cert: Annotated[str, "PEM file of the certificate shown to the brokers; empty: none."] = ""
    tls_key: Annotated[str, "PEM file of that certificate's key."] = ""


class Binance(NamedTuple):
    """The live venue."""

    rest_url: Annotated[str, "Address of the REST interface; empty: the venue's own.", SECRET, "BINANCE_BASE_URL"] = ""
    ws_url: Annotated[str, "Address of the streams; empty: the venue's own.", SECRET, "BINANCE_WEBSOCKET_BASE_URL"] = ""
    stream: Annotated[Literal["trade", "aggTrade"], "Raw trades, or the venue's aggregates."] = "trade"
    symbols: Annotated[tuple[str, ...], "Symbols to collect when serve names no source."] = ("BTCUSDT", "ETHUSDT")
    books: Annotated[bool, "Collect order books and best bids and asks too."] = True
    book_levels: Annotated[int, "Levels a side of the snapshots books start from."] = 1000
    redundant: Annotated[bool, "Two connections for everything; trades are told apart by id."] = False
    microseconds: Annotated[bool, "Ask the spot venue for times in microseconds."] = False
    archive_url: Annotated[str, "Address of the daily and monthly files; empty: the venue's own.", SECRET] = ""


class BinanceGateway(NamedTuple):
    """Binance's own protocol for unmodified Binance clients, on the public port."""

    enabled: Annotated[bool, "Serve /api/v3, /ws and /stream, and the same under /binance."] = True
    venue: Annotated[
        str, "Whose instruments; empty: those of binance, else of sim, else of the only venue that has a symbol."
    ] = ""
    weight_per_min: Annotated[int, "Request weight an address may use per minute."] = 6000
    aggregate_raw: Annotated[bool, "Serve each single trade as an aggregate of one where aggregates are asked."] = True
    oracles: Annotated[bool, "List oracle feeds too; they are never TRADING."] = False
    trade_fee: Annotated[bool, "Answer /sapi/v1/asset/tradeFee, which some clients demand, with a constant."] = False
    shutdown_event: Annotated[
        Literal["off", "raw", "all"], "Sockets that get serverShutdown as the last frame when the server stops."
    ] = "raw"


class Repair(NamedTuple):
    """Filling holes of the tape from the venue's REST interface."""

    enabled: Annotated[bool, "Ask the venue for trades that were missed."] = True
    max_attempts: Annotated[int, "Failures in a row after which a gap is given up, until a restart or repair."] = 30
    weight_share: Annotated[float, "Part of the venue's request weight that this process may use."] = 0.5
    weight_limit: Annotated[int, "Request weight the venue allows per minute and address."] = 6000


class Verify(NamedTuple):
    """Comparing candles with the venue's own while serving."""

    interval_s: Annotated[int, "Seconds between comparisons of what has closed since the last; 0: none."] = 3600
    timeframes: Annotated[tuple[str, ...], "Timeframes that are compared."] = ("1m", "1h")


class Record(NamedTuple):
    """Writing a venue's raw frames to files that replay reads."""

    dir: Annotated[str, "Folder serve writes every raw frame into; empty: none is written."] = ""
    max_bytes: Annotated[int, "Bytes that may wait for the disk before frames are left out of the recording."] = (
        67_108_864
    )
    rotate_s: Annotated[int, "Seconds after which a new file begins."] = 3600
    rotate_bytes: Annotated[int, "Stored bytes after which a new file begins."] = 268_435_456


class Sim(NamedTuple):
    """The simulated venue of the demo."""

    seed: Annotated[int, "Seed of the generated market; the same seed gives the same trades."] = 1
    rate: Annotated[float, "Trades per second and symbol, on average."] = 20.0
    symbols: Annotated[tuple[str, ...], "Simulated symbols."] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


class Log(NamedTuple):
    """What goes to stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error"], "Least severity that is logged."] = "warning"
    json: Annotated[bool, "Log JSON Lines instead of text."] = False


class Settings(NamedTuple):
    """All sections; immutable. ``settings._replace`` makes a changed copy."""

    data: Data = Data()
    server: Server = Server()
    grpc: Grpc = Grpc()
    ingest: Ingest = Ingest()
    engine: Engine = Engine()
    store: Store = Store()
    retention: Retention = Retention()
    books: Books = Books()
    bus: Bus = Bus()
    redis: Redis = Redis()
    nats: Nats = Nats()
    kafka: Kafka = Kafka()
    binance: Binance = Binance()
    binance_gateway: BinanceGateway = BinanceGateway()
    repair: Repair = Repair()
    verify: Verify = Verify()
    record: Record = Record()
    sim: Sim = Sim()
    log: Log = Log()


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
    if (dotenv := _dotenv(env_file)) is not None:
        layers.append((str(dotenv), _from_environment(_parse_dotenv(dotenv), str(dotenv))))
    layers.append(("environment", _from_environment(environ, "environment")))
    layers.append(("flag", {key: value for key, value in (flags or {}).items() if value is not None}))
    values: dict[str, object] = {setting.key: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, "default")
    for origin, layer in layers:
        for key, raw in layer.items():
            values[key] = _convert(_BY_KEY[key], raw, origin)
            origins[key] = origin
    settings = _assemble(values)
    _check(settings, origins)
    return Loaded(settings, origins)


def _assemble(values: Mapping[str, Any]) -> Settings:
    sections = {
        section: type(start)(**{name: values[f"{section}.{name}"] for name in start._fields})
        for section, start in _SECTIONS.items()
    }
    return Settings(**sections)


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Rules that types cannot say. Raises ``ConfigError``."""
    for section, host in (("server", settings.server.host), ("grpc", settings.grpc.host)):
        if host not in LOOPBACK and not settings.server.tokens and not settings.server.require_keys:
            raise ConfigError(
                f"{section}.host {host!r} ({origins[f'{section}.host']}) is not a loopback address and clients need no "
                "token: set server.tokens or server.require_keys, or keep 127.0.0.1 and put an authenticating proxy in "
                "front"
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
        "ingest.max_items": (1, 100_000),
        "ingest.max_bytes": (1024, 64 << 20),
        "ingest.trades_per_s": (1, 10**9),
        "ingest.max_instruments": (0, 100_000),
        "ingest.idempotency_h": (1, 8760),
        "engine.lateness_ms": (0, 3_600_000),
        "engine.final_grace_s": (0, 86_400),
        "engine.commit_interval_ms": (1, 60_000),
        "engine.partitions": (1, 1024),
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


def _dotenv(env_file: str | None) -> Path | None:
    from pathlib import Path

    if env_file is not None:
        return Path(env_file)
    return Path(".env") if Path(".env").is_file() else None


def _parse_dotenv(path: Path) -> dict[str, str]:
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
