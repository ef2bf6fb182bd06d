"""SC12: the database takes text as text; who serves may not change tables, who reads may not write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapewick.errors import NotFound, StoreError
from tapewick.stores._postgres_schema import READER, WRITER
from tapewick.stores.postgres import PostgresStore, migrate
from tests.contract.tapes import fresh, trades, write
from tests.parts.postgres import PostgresServer
from tests.security.rig import locked, trade

EVIL = ("'; DROP TABLE trades; --", "x' OR '1'='1", "$1", "%s", '"', "\\'", "/*", "\x01", "') UNION SELECT 1 --")


async def test_sc12_hostile_text_stays_text_in_the_embedded_store(tmp_path: Path) -> None:
    async with locked(tmp_path) as server:
        for number, text in enumerate(EVIL):
            body = {"instrument": "hook:XYZ", "source": text, "trades": [trade(text)]}
            answer = await server.post(body, **{"idempotency-key": f"k{number}'; --"})
            assert answer.status_code == 202, text
            assert answer.json()["verdicts"][0]["verdict"] == "accepted", text
        nul = await server.post({"instrument": "hook:XYZ", "source": "a\0b", "trades": [trade("x")]})
        assert (nul.status_code, nul.json()["field"]) == (400, "source"), "it parts what names a trade"
        rows = (await server.rig.get("/v1/trades?instrument=hook:XYZ"))["trades"]
        assert [row["price"] for row in rows].count("1.5") == len(EVIL), "and every table is there"


async def test_sc12_hostile_text_stays_text_in_postgresql(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    async with PostgresStore(dsn) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 3))
        for text in EVIL:
            with pytest.raises(NotFound):
                await store.trades(text)
        assert len((await store.trades("sim:AAA"))[0]) == 3


async def test_sc12_least_privilege(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    schema = postgres.schema_of(dsn)
    await migrate(dsn)
    for user, role in ((f"sw_{schema}", WRITER), (f"sr_{schema}", READER)):
        postgres.sql(f"CREATE ROLE {user} LOGIN IN ROLE {role}")
    writer, reader = (f"{kind}_{schema}" for kind in ("sw", "sr"))
    async with PostgresStore(postgres.dsn(user=writer, schema=schema)) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 3))
    async with PostgresStore(postgres.dsn(user=reader, schema=schema), read_only=True) as store:
        assert len((await store.trades("sim:AAA"))[0]) == 3
    async with PostgresStore(postgres.dsn(user=reader, schema=schema)) as store:
        with pytest.raises(StoreError, match="lacks rights"):
            [state] = await fresh(store)
            await write(store, state, trades(state, 1))
    for user in (writer, reader):
        for change in ("DROP TABLE {0}.trades", "ALTER TABLE {0}.trades ADD x INT", "CREATE TABLE {0}.x (y INT)"):
            with pytest.raises(AssertionError, match="permission denied|must be owner"):
                postgres.sql(change.format(schema), user=user)
