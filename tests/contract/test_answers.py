"""Idempotency keys, in the file of a data folder and in the table gateways share: the same request gets the same
answer, another request under the same key none, and of two at once one is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.answers import AnswerFile, Answers, Sheltered
from tapewick.errors import Conflict, StoreError, Unprocessable
from tapewick.stores._postgres_answers import AnswerTable
from tapewick.stores.postgres import migrate
from tests.parts.postgres import PostgresServer

KEEP = 86_400
STEP = st.tuples(
    st.sampled_from(["a", "b"]),  # owner
    st.sampled_from(["k", "l"]),  # key
    st.sampled_from([b"1", b"2"]),  # digest of the body
    st.sampled_from([0, 10, KEEP]),  # seconds that pass before
    st.sampled_from(["end", "crash", "forget", "release"]),
)
Opened: TypeAlias = Callable[..., Answers]


@pytest.fixture(params=["file", "table"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens the answers of this test, again after a crash; ``turn``: as of ``AnswerTable``."""
    dsn = ""
    if request.param == "table":
        server: PostgresServer = request.getfixturevalue("postgres")
        dsn = server.database()
        await migrate(dsn)
    async with AsyncExitStack() as stack:

        def made(place: str = "", turn: float = 60.0) -> Answers:
            answers: Answers = AnswerTable(dsn, KEEP, turn=turn) if dsn else AnswerFile(place or tmp_path, KEEP)
            stack.push_async_callback(answers.close)
            return answers

        made.shared = bool(dsn)  # type: ignore[attr-defined]
        yield made


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=20))
async def test_against_a_model(opened: Opened, steps: list[tuple[str, str, bytes, int, str]]) -> None:
    """The model: per (owner, key) the digest, the time, and the answer once there is one."""
    model: dict[tuple[str, str], tuple[bytes, int, bytes | None]] = {}
    now = 1000
    with TemporaryDirectory() as folder:
        answers = opened(folder, 0.0)
        for number, (owner, key, digest, passed, ending) in enumerate(steps):
            owner = f"{folder}-{owner}"  # the table is the same for all examples
            now += passed
            known = model.get((owner, key))
            if known is not None and known[1] <= now - KEEP:
                known = None
            if known is not None and known[0] != digest:
                with pytest.raises(Unprocessable):
                    await answers.begin(owner, key, digest, now)
                continue
            assert await answers.begin(owner, key, digest, now) == (known[2] if known else None)
            if known is not None and known[2] is not None:
                continue
            model[owner, key] = known or (digest, now, None)
            if ending == "end":
                text = b"answer %d" % number
                await answers.end(owner, key, text)
                model[owner, key] = (digest, model[owner, key][1], text)
            elif ending == "forget":
                await answers.forget(owner, key)
                del model[owner, key]
            elif ending == "release":
                await answers.release(owner, key)
            else:
                answers = opened(folder, 0.0)


async def test_of_two_at_once_one_is_worked_on_and_the_other_gets_its_answer(opened: Opened) -> None:
    here = opened()
    there = opened() if getattr(opened, "shared", False) else here
    assert await here.begin("o", "k", b"1", 1000) is None
    with pytest.raises(Conflict) as refused:
        await there.begin("o", "k", b"1", 1000)
    assert refused.value.retry_after > 0 and refused.value.status == 409
    with pytest.raises(Unprocessable):
        await there.begin("o", "k", b"2", 1000)
    assert await there.begin("other", "k", b"2", 1000) is None
    await here.end("o", "k", b"answer")
    assert await there.begin("o", "k", b"1", 1001) == b"answer"
    assert await here.begin("o", "k", b"1", 1001) == b"answer"


async def test_a_turn_given_back_is_free_for_the_same_request_only(opened: Opened) -> None:
    here = opened()
    there = opened() if getattr(opened, "shared", False) else here
    assert await here.begin("o", "k", b"1", 1000) is None
    await here.release("o", "k")
    with pytest.raises(Unprocessable):
        await there.begin("o", "k", b"2", 1000)
    assert await there.begin("o", "k", b"1", 1000) is None
    await there.forget("o", "k")
    assert await here.begin("o", "k", b"2", 1000) is None


async def test_a_gateway_whose_turn_was_taken_over_ends_nothing(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    await migrate(dsn)
    slow, quick = AnswerTable(dsn, KEEP, turn=0.0), AnswerTable(dsn, KEEP)
    assert await slow.begin("o", "k", b"1", 1000) is None
    assert await quick.begin("o", "k", b"1", 1000) is None
    await slow.end("o", "k", b"late")
    await slow.forget("o", "k")
    await quick.end("o", "k", b"right")
    assert await slow.begin("o", "k", b"1", 1000) == b"right"
    await slow.close()
    await quick.close()


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "ingest.sqlite").mkdir()
    answers = AnswerFile(tmp_path, KEEP)
    with pytest.raises(StoreError, match=r"ingest\.sqlite"):
        await answers.begin("a", "k", b"1", 1)
    await answers.close()


async def test_durable_while_the_database_is_away_a_process_answers_for_itself(
    durable_postgres: PostgresServer, tmp_path: Path
) -> None:
    dsn = durable_postgres.database()
    await migrate(dsn)
    answers = Sheltered(AnswerTable(dsn, KEEP), AnswerFile(tmp_path, KEEP))
    assert await answers.begin("o", "before", b"1", 1000) is None
    durable_postgres.stop()
    await answers.end("o", "before", b"lost, and no harm")
    assert await answers.begin("o", "k", b"1", 1000) is None
    await answers.end("o", "k", b"answer")
    assert await answers.begin("o", "k", b"1", 1000) == b"answer"
    with pytest.raises(Unprocessable):
        await answers.begin("o", "k", b"2", 1000)
    durable_postgres.start()
    assert await answers.begin("o", "after", b"1", 1000) is None
    await answers.end("o", "after", b"shared")
    await answers.close()
    again = AnswerTable(dsn, KEEP)
    assert await again.begin("o", "after", b"1", 1000) == b"shared"
    await again.close()


async def test_a_turn_given_before_the_clock_was_set_back_is_over(postgres: PostgresServer) -> None:
    """A gateway died, and the server's clock then went back an hour: its request is not under way for that hour."""
    dsn = postgres.database()
    await migrate(dsn)
    dead, other = AnswerTable(dsn, KEEP, turn=30.0), AnswerTable(dsn, KEEP, turn=30.0)
    try:
        assert await dead.begin("a", "k", b"1", 1000) is None
        with pytest.raises(Conflict):
            await other.begin("a", "k", b"1", 1000)
        table = f"{postgres.schema_of(dsn)}.ingest_keys"
        await asyncio.to_thread(postgres.sql, f"UPDATE {table} SET until = until + '1 hour'")
        assert await other.begin("a", "k", b"1", 1000) is None, "it is this one's turn now"
        await dead.end("a", "k", b"late")
        await other.end("a", "k", b"answer")
        assert await dead.begin("a", "k", b"1", 1000) == b"answer"
    finally:
        await dead.close()
        await other.close()
