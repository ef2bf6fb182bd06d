"""``/v1/watch``: what is collected at run time, from a gateway's request to the tape of the new symbol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tapewick import stages
from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.gateways.http import HttpGateway
from tapewick.market import Market
from tapewick.protocols import Store
from tapewick.roles import EngineRole
from tapewick.settings import Binance, Settings
from tapewick.sim.venue import SimVenue
from tapewick.stores.duckdb import DuckDBStore
from tests.gateways.rig import Rig, running

BTC, SOL = "sim:BTCUSDT", "sim:SOLUSDT"
TOKEN = "t" * 40


class System:
    """A venue, collectors, an engine and two gateways."""

    def __init__(self, venue: SimVenue, store: Store, bus: MemoryBus, urls: list[str], markets: list[Market]) -> None:
        self.venue, self.store, self.bus, self.urls, self.markets = venue, store, bus, urls, markets

    @asynccontextmanager
    async def collecting(self, holder: str = "c1", shard: tuple[int, int] | None = None) -> AsyncIterator[None]:
        """One collector of BTCUSDT."""
        own = Binance(rest_url=self.venue.rest_url, ws_url=self.venue.ws_url, books=False)
        base = stages.Base(
            settings=Settings(binance=own),
            store=self.store,
            bus=self.bus,
            clock=RealClock(),
            holder=holder,
            shard=shard,
        )
        async with stages.collecting(base, ids=[BTC]) as stage:
            tasks = [asyncio.create_task(work()) for _, work in stage.works]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome

    async def ask(self, method: str, path: str = "/v1/watch", *, gateway: int = 0, **options: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=self.urls[gateway], timeout=60) as client:
            return await client.request(method, path, **options)

    async def watch(self, instrument: str, *, gateway: int = 0) -> httpx2.Response:
        return await self.ask("POST", gateway=gateway, json={"instrument": instrument})

    async def trades(self, id: str) -> int:
        """How many are on the tape; 0 where there is none."""
        answer = await self.ask("GET", f"/v1/coverage/{id}")
        return int(answer.json()["trades"]) if answer.status_code == 200 else 0

    async def listed(self, gateway: int = 0) -> dict[str, str]:
        answer = await self.ask("GET", gateway=gateway)
        assert answer.status_code == 200, answer.text
        return {row["instrument"]: row["state"] for row in answer.json()["watched"]}


async def until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await what():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    clock = RealClock()
    venue = SimVenue(["BTCUSDT", "ETHUSDT", "SOLUSDT"], seed=3, rate=50.0, catch_up=1.0)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(venue)
        store, bus = await enter(DuckDBStore(tmp_path)), await enter(MemoryBus())
        await enter(EngineRole(bus, store, Engine(), clock, interval=0.005))
        markets = [await enter(Market(bus, store, clock)) for _ in range(2)]
        gateways = [await enter(HttpGateway(market, port=0)) for market in markets]
        yield System(venue, store, bus, [gateway.url for gateway in gateways], markets)


async def test_a_symbol_is_collected_from_when_it_is_watched_until_it_is_not(system: System) -> None:
    async with system.collecting():
        await until(lambda: system.trades(BTC))
        assert await system.trades(SOL) == 0
        answer = await system.watch("sim:solusdt")
        assert (answer.status_code, answer.json()) == (201, {"instrument": SOL, "state": "collected"})
        await until(lambda: system.trades(SOL))
        assert await system.listed(1) == {SOL: "collected"}, "every gateway knows"

        assert (await system.ask("DELETE", f"/v1/watch/{SOL}", gateway=1)).status_code == 204
        assert await system.listed() == {}
        gone = await system.ask("DELETE", f"/v1/watch/{SOL}")
        assert gone.status_code == 404 and gone.json()["field"] == "id"
        before = await system.trades(BTC)
        await until(lambda: grown(system, before + 100))
        assert await system.trades(SOL) < await system.trades(BTC)


async def grown(system: System, least: int) -> bool:
    return await system.trades(BTC) > least


async def test_a_symbol_the_venue_does_not_list_is_refused_and_not_kept(system: System) -> None:
    async with system.collecting():
        await until(lambda: system.trades(BTC))
        for _ in range(2):
            answer = await system.watch("sim:NOSUCH")
            assert answer.status_code == 400, answer.text
            assert answer.json()["field"] == "instrument" and "does not list NOSUCH" in answer.json()["detail"]
        assert await system.listed() == {}


async def test_a_refusal_that_comes_after_the_answer_takes_the_wish_back(system: System) -> None:
    """The venue answers a collector late: later than whoever asked waits."""
    system.markets[0].watches()._patience = 0.0
    async with system.collecting():
        await until(lambda: system.trades(BTC))
        refused = await system.watch("sim:NOSUCH")
        assert (refused.status_code, refused.json()["state"]) == (202, "pending")

        async def gone() -> bool:
            return await system.listed(1) == {}

        await until(gone)
        for _ in range(2):  # the same again, also of what was refused before
            assert (await system.watch("sim:NOSUCH")).status_code in (202, 400)
            await until(gone)
        assert (await system.watch(SOL)).status_code == 202
        await until(lambda: system.trades(SOL))
        assert await system.listed() == {SOL: "collected"}


async def test_a_refusal_nobody_waits_for_any_more_is_shown(system: System) -> None:
    """As after a restart of the gateway that was asked."""
    await system.store.watch("sim:NOSUCH", True)
    async with system.collecting():
        await until(lambda: system.trades(BTC))

        async def told() -> bool:
            return await system.listed() == {"sim:NOSUCH": "refused"}

        await until(told)
        (row,) = (await system.ask("GET")).json()["watched"]
        assert "does not list NOSUCH" in row["detail"]


async def test_a_watch_outlives_its_collector(system: System) -> None:
    """Made while none runs it waits; a collector that starts takes it up, and one that starts later too."""
    answer = await system.watch(SOL)
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    async with system.collecting():
        await until(lambda: system.trades(SOL))
    before = await system.trades(SOL)
    async with system.collecting("c2"):
        await until(lambda: more(system, before))


async def more(system: System, than: int) -> bool:
    return await system.trades(SOL) > than


async def test_a_watched_symbol_that_is_not_listed_does_not_end_a_collector(system: System) -> None:
    await system.store.watch("sim:NOSUCH", True)
    await system.store.watch("nowhere:XYZ", True)
    async with system.collecting():
        await until(lambda: system.trades(BTC))

        async def told() -> bool:
            rows = (await system.ask("GET", "/health")).json()["conditions"]
            refused = {row["instrument"] for row in rows if row.get("state") == "refused"}
            return refused == {"sim:NOSUCH", "nowhere:XYZ"}

        await until(told)


async def test_what_settings_name_goes_on_when_a_watch_of_it_ends(system: System) -> None:
    async with system.collecting():
        await until(lambda: system.trades(BTC))
        assert (await system.watch(BTC)).status_code == 201
        assert (await system.ask("DELETE", f"/v1/watch/{BTC}")).status_code == 204
        before = await system.trades(BTC)
        await until(lambda: grown(system, before + 50))


async def test_of_two_shards_the_right_one_takes_it_up(system: System) -> None:
    async with system.collecting("c1", (0, 2)), system.collecting("c2", (1, 2)):
        await until(lambda: system.trades(BTC))
        assert (await system.watch(SOL)).status_code == 201
        await until(lambda: system.trades(SOL))


async def test_an_announcement_that_was_lost_is_made_up_for(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.collectors.REREAD", 0.1)
    async with system.collecting():
        await until(lambda: system.trades(BTC))
        await system.store.watch(SOL, True)
        await until(lambda: system.trades(SOL))
        await system.store.watch(SOL, False)

        async def ended() -> bool:
            rows = (await system.ask("GET", "/health")).json()["conditions"]
            return any(row["instrument"] == SOL and "no longer collected" in row["detail"] for row in rows)

        await until(ended)


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"instrument": "BTCUSDT"}, "instrument", "venue:SYMBOL"),
        ({"instrument": "sim:"}, "instrument", "venue:SYMBOL"),
        ({"instrument": ":X"}, "instrument", "venue:SYMBOL"),
        ({"instrument": "sim:A B"}, "instrument", "venue:SYMBOL"),
        ({"instrument": "sim:" + "A" * 200}, "instrument", "venue:SYMBOL"),
        ({"instrument": "hook:XYZ"}, "instrument", "/v1/ingest/trades"),
        ({"instrument": 5}, None, "instrument"),
        ({}, None, "instrument"),
        ({"instrument": SOL, "more": 1}, None, "more"),
        ([], None, ""),
        (b'{"instrument":"\xff"}', "body", "not UTF-8: byte 0xff at 15"),
        (b"\xff\xfe", "body", "not UTF-8"),
        (b'{"\xc3\x28":1}', "body", "not UTF-8"),
        (b"[" * 100_000, "body", "nested too deep"),
        (b"{", None, ""),
        (b"", None, ""),
        (b"\x00", None, ""),
    ],
)
async def test_bad_requests_name_the_field(rig: Rig, body: Any, field: str | None, said: str) -> None:
    told = {"content": body} if isinstance(body, bytes) else {"json": body}
    async with rig.http as client:
        answer = await client.post("/v1/watch", headers={"content-type": "application/json"}, **told)
    problem = answer.json()
    assert answer.status_code == 400, problem
    assert said in problem["detail"] and (field is None or problem["field"] == field), problem


async def test_pages_of_other_sites_change_nothing(rig: Rig) -> None:
    async with rig.http as client:
        answer = await client.post(
            "/v1/watch", json={"instrument": SOL}, headers={"origin": "https://elsewhere.example"}
        )
        assert answer.status_code == 400 and answer.json()["field"] == "origin"
        assert (await client.get("/v1/watch")).json() == {"watched": []}
        assert (await client.get("/v1/watch?x=1")).status_code == 400


async def test_where_keys_are_in_use_it_takes_one_for_administration(tmp_path: Path) -> None:
    async with running(tmp_path, tokens=[TOKEN]) as rig, rig.http as client:
        assert (await client.post("/v1/watch", json={"instrument": SOL})).status_code == 401
        assert (await client.get("/v1/watch")).status_code == 401
        told = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.post("/v1/watch", json={"instrument": SOL}, headers=told)).status_code == 202
        assert (await client.get("/v1/watch", headers=told)).json()["watched"][0]["instrument"] == SOL
