"""The schema's steps: up, down, up again, and refusing what does not fit."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from tapewick.errors import StoreBusy, StoreError
from tapewick.stores._migrations import Migration, load, plan
from tapewick.stores.duckdb import DuckDBStore, migrate


def one(number: int) -> Migration:
    return Migration(number, f"step{number}", f"CREATE TABLE t{number} (x INTEGER)", f"DROP TABLE t{number}")


STEPS = [one(1), one(2), one(3)]
ALL = {m.number: m.checksum for m in STEPS}


def labels(*args: object) -> list[str]:
    return [step.label for step in plan(STEPS, *args)]  # type: ignore[arg-type]


def test_a_plan_goes_up_down_and_nowhere() -> None:
    assert labels({}) == ["up 0001_step1", "up 0002_step2", "up 0003_step3"]
    assert labels({1: ALL[1]}, 2) == ["up 0002_step2"]
    assert labels(ALL) == []
    assert labels(ALL, 1) == ["down 0003_step3", "down 0002_step2"]
    assert labels(ALL, 0) == ["down 0003_step3", "down 0002_step2", "down 0001_step1"]


def test_a_plan_refuses_what_it_does_not_know() -> None:
    with pytest.raises(StoreError, match="0002_step2 was edited"):
        labels({1: ALL[1], 2: "other"})
    with pytest.raises(StoreError, match="upgrade"):
        labels({**ALL, 4: "x"})
    with pytest.raises(StoreError, match="no schema version 9"):
        labels(ALL, 9)


def test_checksums_ignore_line_endings_and_nothing_else() -> None:
    unix = Migration(1, "a", "CREATE\nx", "")
    assert unix.checksum == Migration(1, "a", "CREATE\r\nx", "").checksum
    assert unix.checksum != Migration(1, "a", "CREATE\n x", "").checksum


@pytest.mark.parametrize("names", [("0001_a.up.sql",), ("0002_a.up.sql", "0002_a.down.sql")])
def test_a_missing_half_or_number_is_an_incomplete_installation(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(StoreError, match="reinstall"):
        load("duckdb", tmp_path)


def objects(folder: Path) -> list[tuple[str, str]]:
    with duckdb.connect(str(folder / "tape.duckdb"), read_only=True) as connection:
        sql = "SELECT table_name, table_type FROM information_schema.tables ORDER BY ALL"
        return connection.execute(sql).fetchall()


async def test_the_real_schema_goes_up_down_and_up_to_the_same(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path):
        pass
    first = objects(tmp_path)
    assert ("trades", "BASE TABLE") in first and ("v_candles", "VIEW") in first
    assert migrate(tmp_path) == []
    assert migrate(tmp_path, 1)[-2:] == ["down 0003_books", "down 0002_views"]
    assert ("v_candles", "VIEW") not in objects(tmp_path) and ("trades", "BASE TABLE") in objects(tmp_path)
    assert migrate(tmp_path, 0) == ["down 0001_tape"]
    assert objects(tmp_path) == [("schema_migrations", "BASE TABLE")]
    assert migrate(tmp_path)[:3] == ["up 0001_tape", "up 0002_views", "up 0003_books"]
    assert objects(tmp_path) == first
    migrate(tmp_path, 0)
    async with DuckDBStore(tmp_path) as store:
        assert await store.instruments() == []
    assert objects(tmp_path) == first


async def test_a_store_whose_migration_was_edited_is_refused_unchanged(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path):
        pass
    with duckdb.connect(str(tmp_path / "tape.duckdb")) as connection:
        connection.execute("UPDATE schema_migrations SET checksum = 'other' WHERE number = 2")
    with pytest.raises(StoreError, match="0002_views was edited"):
        async with DuckDBStore(tmp_path):
            pass
    with duckdb.connect(str(tmp_path / "tape.duckdb")) as connection:
        connection.execute("UPDATE schema_migrations SET number = 99 WHERE number = 2")
    with pytest.raises(StoreError, match="schema version 99"):
        async with DuckDBStore(tmp_path):
            pass


async def test_a_step_that_fails_leaves_no_half(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "tape.duckdb")) as connection:
        connection.execute("CREATE TABLE gaps (x INTEGER)")  # in the way of 0001, after three of its tables
    with pytest.raises(StoreError, match="gaps"):
        async with DuckDBStore(tmp_path):
            pass
    assert objects(tmp_path) == [("gaps", "BASE TABLE"), ("schema_migrations", "BASE TABLE")]


async def test_a_read_only_store_does_not_change_the_schema(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path):
        pass
    migrate(tmp_path, 1)
    with pytest.raises(StoreError, match="tapewick migrate up"):
        async with DuckDBStore(tmp_path, read_only=True):
            pass


async def test_migrating_an_open_folder_is_refused(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path):
        with pytest.raises(StoreBusy, match="in use"):
            migrate(tmp_path)
