"""Two gateways on one PostgreSQL: keys, answers and the names of trades are the same on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.gateways._auth import Guard
from tapewick.gateways.http import HttpGateway
from tapewick.gateways.ingest import Options
from tapewick.market import Market
from tapewick.roles import EngineRole
from tapewick.stores._postgres_answers import AnswerTable
from tapewick.stores._postgres_keys import KeyTable
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import SECOND
from tests.gateways.rig import T0
from tests.gateways.test_ingest import PATH, body, trade
from tests.parts.postgres import PostgresServer

WEEK = 7 * 86_400_000


class Pair:
    """Two gateways, as on two hosts, and the store behind them."""

    def __init__(self, urls: list[str], keys: KeyTable, store: PostgresStore) -> None:
        self.urls, self.keys, self.store = urls, keys, store
        self.token = ""

    async def post(self, which: int, content: Any, token: str = "", **headers: str) -> httpx2.Response:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        told["authorization"] = f"Bearer {token or self.token}"
        async with httpx2.AsyncClient(base_url=self.urls[which]) as client:
            return await client.post(PATH, content=msgspec.json.encode(content), headers=told, timeout=60)

    async def until(self, which: int, token: str, status: int) -> None:
        """Wait until a gateway answers the bearer of ``token`` with ``status``."""
        async with asyncio.timeout(60):
            while (await self.post(which, {"trades": []}, token)).status_code != status:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)

    async def verdicts(self, which: int, content: Any, **headers: str) -> list[str]:
        answer = await self.post(which, content, **headers)
        assert answer.status_code == 202, answer.text
        return [one["verdict"] for one in answer.json()["verdicts"]]


@pytest.fixture
async def pair(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Pair]:
    dsn, clock = postgres.database(), ManualClock(T0 + 86_400 * SECOND + WEEK * 1_000_000)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(dsn))
        bus = await stack.enter_async_context(MemoryBus())
        await stack.enter_async_context(EngineRole(bus, store, Engine(), clock, interval=0.001))
        urls = []
        for name in "ab":
            market = await stack.enter_async_context(Market(bus, store, clock))
            options = Options(tmp_path / name, answers=AnswerTable(dsn, 86_400.0))
            guard = Guard(keys=KeyTable(dsn, refresh=0.05))
            gateway = HttpGateway(market, port=0, guard=guard, ingest=options)
            urls.append((await stack.enter_async_context(gateway)).url)
        keys = KeyTable(dsn)
        await keys.start()
        stack.push_async_callback(keys.stop)
        made = Pair(urls, keys, store)
        made.token = (await keys.create(["ingest"]))[1]
        for which in (0, 1):
            await made.until(which, made.token, 400)
        yield made


async def test_a_key_counts_and_ends_on_both(pair: Pair) -> None:
    key, token = await pair.keys.create(["ingest"])
    for which in (0, 1):
        await pair.until(which, token, 400)
    await pair.keys.revoke(key.id)
    for which in (0, 1):
        await pair.until(which, token, 401)
    assert await pair.verdicts(0, body(trade(1))) == ["accepted"]


async def test_a_trade_sent_again_a_week_later_to_the_other_is_a_duplicate(pair: Pair) -> None:
    early = [trade(f"t{n}") for n in range(5)]
    late = [trade(f"t{n}", ts_event=early[0]["ts_event"] + WEEK, price="1") for n in range(3, 8)]
    assert await pair.verdicts(0, body(*early, id_kind="unique")) == ["accepted"] * 5
    assert await pair.verdicts(1, body(*late, id_kind="unique")) == ["duplicate"] * 2 + ["accepted"] * 3
    trades, head = await pair.store.trades("hook:XYZ")
    assert len(set(trades.trade_id.tolist())) == head.seq == 8


async def test_a_repeated_request_gets_its_answer_from_either(pair: Pair) -> None:
    nameless = {"instrument": "hook:U", "trades": [trade(None), trade(None)]}
    answers = await asyncio.gather(*(pair.post(n % 2, nameless, idempotency_key="k") for n in range(6)))
    assert {one.status_code for one in answers} == {202}, [one.text for one in answers]
    assert {one.content for one in answers} == {answers[0].content} and answers[0].json()["accepted"] == 2
    assert [one.headers.get("idempotent-replayed") for one in answers].count(None) == 1
    assert (await pair.store.head("hook:U")).seq == 2
    other = await pair.post(1, {"instrument": "hook:U", "trades": [trade(None)]}, idempotency_key="k")
    assert other.status_code == 422
    wrong = await pair.post(0, {"trades": [trade(1)], "more": 1}, idempotency_key="w")
    assert wrong.status_code == 400
    assert await pair.verdicts(1, body(trade(1)), idempotency_key="w") == ["accepted"]
