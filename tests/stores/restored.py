"""A PostgreSQL store as it is after an older backup was restored under everybody: what came later is gone."""

from __future__ import annotations

from tests.parts.postgres import PostgresServer

__all__ = ["lose"]

TABLES = (
    "trades", "trade_keys", "trade_hours", "candles", "open_candles", "coverage", "gaps", "tape_head", "instruments",
)  # fmt: skip


def lose(server: PostgresServer, dsn: str, id: str) -> None:
    """Take an instrument and its tape away, as in a backup from before it was announced."""
    schema = server.schema_of(dsn)
    number = server.sql(f"SELECT number FROM {schema}.instruments WHERE id = '{id}'").strip()
    assert number, f"there is no {id}"
    deletes = "; ".join(f"DELETE FROM {schema}.{table} WHERE number = {number}" for table in TABLES)
    server.sql(f"BEGIN; {deletes}; COMMIT")
