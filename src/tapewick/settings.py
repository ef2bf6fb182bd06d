"""Every setting, declared once: its section, name, type, default and one line of meaning.

From these declarations come the typed ``Settings``, the command line's flags and help, the environment's names and
the reference page (``config.py`` loads them). Standard library only: help must print in under 80 ms, and importing
msgspec alone costs more than that.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

__all__ = [
    "SECRET",
    "Admin",
    "Binance",
    "BinanceGateway",
    "Books",
    "Bus",
    "Chain",
    "Data",
    "Engine",
    "Grpc",
    "Ingest",
    "Kafka",
    "Log",
    "Nats",
    "Record",
    "Redis",
    "Repair",
    "Retention",
    "Server",
    "Settings",
    "Sim",
    "Store",
    "Verify",
]

SECRET = "secret"  # marks a setting whose value may carry credentials


class Data(NamedTuple):
    """Where everything durable lies."""

    dir: Annotated[str, "Folder that holds the tapes; one server at a time owns it."] = "./tapewick-data"


class Server(NamedTuple):
    """The one public port."""

    host: Annotated[
        str, "Address to listen on; beyond loopback with server.tokens, require_keys or allow_unauthenticated only."
    ] = "127.0.0.1"
    port: Annotated[int, "TCP port of page, REST and WebSocket; 0 lets the system choose."] = 8080
    allowed_origins: Annotated[tuple[str, ...], "Other web origins that may call the API, exact."] = ()
    tls_cert: Annotated[str, "PEM file of the certificate; with tls_key the port speaks TLS only (https, wss)."] = ""
    tls_key: Annotated[str, "PEM file of the certificate's key."] = ""
    tls_client_ca: Annotated[str, "PEM file of the authority whose certificates clients must show; empty: none."] = ""
    heavy_requests: Annotated[int, "Costly requests (exports, many rows) of one address at once, on each port."] = 8
    tokens: Annotated[
        tuple[str, ...],
        "Tokens of which clients must show one, each as it is or as sha256:HEXDIGEST; empty: no client needs any.",
        SECRET,
    ] = ()
    require_keys: Annotated[bool, "Every client needs a key (tapewick keys), also where server.tokens is empty."] = (
        False
    )
    ws_deflate: Annotated[bool, "Compress frames for WebSocket clients that offer permessage-deflate."] = False
    push_per_address: Annotated[int, "WebSockets and event streams, or gRPC streams, of one address at once."] = 16_384
    push_per_key: Annotated[int, "WebSockets and event streams one key or token may have open at once."] = 16_384
    connections_per_address: Annotated[int, "HTTP connections, or gRPC ones, of one address at once."] = 16_384
    requests_per_min: Annotated[
        int, "Requests a minute of each key, and of each address that shows none; beyond: 429. 0: any number."
    ] = 60_000
    trusted_proxies: Annotated[
        tuple[str, ...], "Addresses or networks of proxies whose X-Forwarded-For tells the client's address."
    ] = ()
    local_admin: Annotated[
        bool, "Who asks from this machine may administer without a key; only where no proxy forwards to this port."
    ] = False
    allow_unauthenticated: Annotated[bool, "Listen on other than loopback addresses though clients need no token."] = (
        False
    )


class Admin(NamedTuple):
    """A second port for metrics and administration, which the public port then does not serve; for collectors and
    engines that run alone the only one."""

    enabled: Annotated[bool, "Serve /metrics, /v1/repair and /v1/watch there instead; health too."] = False
    host: Annotated[
        str, "Address to listen on; beyond loopback with server.tokens, require_keys or allow_unauthenticated only."
    ] = "127.0.0.1"
    port: Annotated[int, "TCP port; 0 lets the system choose."] = 8081


class Grpc(NamedTuple):
    """The gRPC port; it needs the extra grpc."""

    enabled: Annotated[bool, "Serve the native and the legacy gRPC service, health and reflection."] = False
    host: Annotated[
        str, "Address to listen on; beyond loopback with server.tokens, require_keys or allow_unauthenticated only."
    ] = "127.0.0.1"
    port: Annotated[int, "TCP port; 0 lets the system choose.", "APP_GRPC_PORT"] = 50_051
    max_connections: Annotated[int, "TCP connections of all clients at once; more are closed at once."] = 16_384
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
        "Secrets (whsec_…) of a Standard Webhooks sender, or NAME=whsec_… of several; two at once while one replaces "
        "the other.",
        SECRET,
    ] = ()
    max_instruments: Annotated[int, "Instruments hook:SYMBOL that are made at most."] = 1000
    idempotency_h: Annotated[int, "Hours for which a repeated Idempotency-Key gets the first answer."] = 24
    spool_bytes: Annotated[int, "Bytes of trades kept in the data folder while the store is away; 0: none."] = (
        268_435_456
    )


class Engine(NamedTuple):
    """How trades become candles."""

    kind: Annotated[
        Literal["auto", "native", "reference"], "Which engine runs; auto takes native where it was built."
    ] = "auto"
    lateness_ms: Annotated[int, "How long after its end a candle waits for late trades before it closes."] = 2000
    final_grace_s: Annotated[int, "How long after its end a proven candle waits before it is final."] = 60
    commit_interval_ms: Annotated[int, "Least time between two commits of a partition."] = 20
    partitions: Annotated[int, "Groups the instruments hash to; the same on every bus."] = 16
    lease_s: Annotated[int, "Seconds after which what a dead process held is taken over by another."] = 10


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


class Chain(NamedTuple):
    """A chain, and the contracts on it whose orders are followed (tapewick run scan)."""

    id: Annotated[int, "The chain's number, such as 1 for Ethereum; a node of another chain is not used."] = 0
    rpc_urls: Annotated[
        tuple[str, ...],
        "JSON-RPC addresses of its nodes (http://, https://), asked in turn when one fails.",
        SECRET,
        "WEB3_PROVIDER",
    ] = ()
    contracts: Annotated[tuple[str, ...], "Addresses (0x and 40 hex digits) of the contracts.", "TRADING_ADDRESS"] = ()
    start_block: Annotated[int, "Where the first scan begins; -1: 200 blocks before the newest."] = -1
    confirmations: Annotated[int, "Blocks on top of an event's own that make it confirmed; -1: the chain's usual."] = -1
    depth: Annotated[
        int, "Blocks on top that make one final where nodes do not tell; -1: the chain's usual (Ethereum 65)."
    ] = -1
    poll_s: Annotated[float, "Seconds between two looks for a new block."] = 2.0
    span: Annotated[int, "Blocks asked for at once at first when catching up; it adapts."] = 500


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
    audit: Annotated[
        str, "File of one JSON line for each write, change and administration; empty: among the logs, at level info."
    ] = ""


class Settings(NamedTuple):
    """All sections; immutable. ``settings._replace`` makes a changed copy."""

    data: Data = Data()
    server: Server = Server()
    admin: Admin = Admin()
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
    chain: Chain = Chain()
    repair: Repair = Repair()
    verify: Verify = Verify()
    record: Record = Record()
    sim: Sim = Sim()
    log: Log = Log()
