"""The schema's version, TimescaleDB's level, and who may do what: run by whoever owns the tables.

One process at a time holds an advisory lock; each step is one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from tapewick.errors import SchemaOlder, StoreBusy, StoreError
from tapewick.stores._migrations import LEDGER, load, plan
from tapewick.timeframe import DAY

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["Level", "applied", "behind", "detect", "lacking", "run_steps"]

LOCK = int.from_bytes(b"tapewick", "big")
WRITER, READER = "tapewick_writer", "tapewick_reader"


class Level(NamedTuple):
    """What the server can do. ``plain``: no TimescaleDB; ``apache``: hypertables; ``full``: policies."""

    name: Literal["plain", "apache", "full"]
    version: str = ""

    def __str__(self) -> str:
        if self.name == "plain":
            return "plain PostgreSQL"
        return f"TimescaleDB {self.version}, {'Apache edition' if self.name == 'apache' else 'full edition'}"


async def detect(connection: Connection) -> Level:
    """The level of the connected database. Installed but not created extensions count as absent."""
    version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
    if version is None:
        return Level("plain")
    licence = await connection.fetchval("SELECT current_setting('timescaledb.license', true)")
    return Level("full" if licence == "timescale" else "apache", version)


async def applied(connection: Connection) -> dict[int, str]:
    """The schema's applied migrations, number → checksum."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return {}
    return dict(await connection.fetch("SELECT number, checksum FROM schema_migrations"))


async def behind(connection: Connection) -> SchemaOlder | None:
    """What to say where migrations are missing. Raises ``StoreError`` when one is unknown or was edited."""
    known, found = load("postgres"), await applied(connection)
    if not plan(known, found):
        return None
    return SchemaOlder("of the database", max(found, default=0), len(known), "tapewick migrate up")


async def run_steps(connection: Connection, target: int | None = None) -> list[str]:
    """Bring the schema to version ``target`` (default the newest); the labels of the steps that ran.

    Raises ``StoreBusy`` while another process does the same.
    """
    await connection.execute("SET lock_timeout = '60s'")
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        except Exception as error:
            if getattr(error, "sqlstate", None) != "55P03":
                raise
            raise StoreBusy("another tapewick is migrating this database: try again when it is done") from error
    try:
        if not await applied(connection):
            await connection.execute(LEDGER)
        steps = plan(load("postgres"), await applied(connection), target)
        for step in steps:
            async with connection.transaction():
                await connection.execute(step.sql)
        if await _complete(connection):
            await _shape(connection, await detect(connection))
            await _grant(connection)
        return [step.label for step in steps]
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


async def _complete(connection: Connection) -> bool:
    return not plan(load("postgres"), await applied(connection))


class _Hyper(NamedTuple):
    """How a table is cut into chunks: by which column, how long, and when and how they are compressed."""

    table: str
    column: str
    chunk: int
    segments: str
    order: str
    compressed_after: int


_TABLES = (
    _Hyper("trades", "ts_event", 7 * DAY, "number", "seq", 7 * DAY),
    _Hyper("candles", "open_time", 91 * DAY, "number, tf, origin", "open_time", 7 * DAY),
    _Hyper("books", "ts", 7 * DAY, "number", "ts", DAY),
)


async def _shape(connection: Connection, level: Level) -> None:
    """Make hypertables where there is TimescaleDB, and its policies where the edition has them."""
    if level.name == "plain":
        return
    for one in _TABLES:
        async with connection.transaction():
            known = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables "
                "WHERE hypertable_schema = current_schema() AND hypertable_name = $1)",
                one.table,
            )
            if not known:
                await connection.execute(
                    f"SELECT create_hypertable('{one.table}', by_range('{one.column}', {one.chunk}::BIGINT), "
                    "create_default_indexes => false, migrate_data => true)"
                )
                await connection.execute(f"SELECT set_integer_now_func('{one.table}', 'tape_now')")
            if level.name == "full":
                await _compress(connection, one)


async def _compress(connection: Connection, one: _Hyper) -> None:
    await connection.execute(
        f"ALTER TABLE {one.table} SET (timescaledb.compress, timescaledb.compress_segmentby = '{one.segments}', "
        f"timescaledb.compress_orderby = '{one.order}')"
    )
    await connection.execute(
        f"SELECT add_compression_policy('{one.table}', compress_after => {one.compressed_after}::BIGINT, "
        "if_not_exists => true)"
    )


# The groups hold no password and cannot log in: an operator grants them to the users of store.dsn and store.read_dsn.
_GRANTS = f"""
GRANT USAGE ON SCHEMA {{schema}} TO {WRITER}, {READER};
GRANT SELECT ON ALL TABLES IN SCHEMA {{schema}} TO {WRITER}, {READER};
GRANT INSERT, UPDATE, DELETE ON
    instruments, trades, trade_hours, candles, open_candles, coverage, gaps, tape_head, books, retention_floors,
    leases, watches, api_keys, ingest_keys, trade_keys,
    scanner_state, blocks, order_events, orders, order_log
    TO {WRITER};
REVOKE SELECT ON api_keys, ingest_keys FROM {READER};
"""


async def lacking(connection: Connection, users: Mapping[str, str]) -> list[str]:
    """What is to be done about rights yet, a line each; ``users``: who writes and who reads, by group."""
    ask = "SELECT rolname FROM pg_roles WHERE rolname = ANY($1::TEXT[])"
    known = {row["rolname"] for row in await connection.fetch(ask, [WRITER, READER, *users.values()])}
    if missing := [role for role in (WRITER, READER) if role not in known]:
        made = " ".join(f"CREATE ROLE {role} NOLOGIN;" for role in missing)
        return [
            f"the group roles {' and '.join(missing)} do not exist, and this user may not make them, so nobody was "
            "given rights: where other users than the owner of the tables shall connect, have an administrator run "
            f"`{made}` and `tapewick migrate up` again"
        ]
    told = []
    for group, user in users.items():
        if user in known and not await connection.fetchval("SELECT pg_has_role($1, $2, 'USAGE')", user, group):
            told.append(f"the user {user} lacks rights: GRANT {group} TO {user}")
    return told


async def _grant(connection: Connection) -> None:
    """Give the groups ``tapewick_writer`` and ``tapewick_reader`` their rights, making them where we may."""
    may = await connection.fetchval("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    known = {
        row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^tapewick'")
    }
    for role in (WRITER, READER):
        if role not in known and may:
            # Another database of the same cluster may make it at the same moment.
            await connection.execute(
                f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation "
                "THEN NULL; END $$"
            )
    if may or {WRITER, READER} <= known:
        schema = await connection.fetchval("SELECT quote_ident(current_schema())")
        if schema is None:
            raise StoreError("the user's search_path names no schema that exists: create one, or set it in store.dsn")
        async with connection.transaction():
            await connection.execute(_GRANTS.format(schema=schema))
