"""``POST /v1/repair``: the engine opens gaps again and extends the tape; refusals name the field."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tapewick.model import Wanted
from tests.gateways.rig import BTC, Rig, running

PATH = f"/v1/repair/{BTC}"


async def post(rig: Rig, query: str = "", status: int = 202, **headers: str) -> Any:
    async with rig.http as client:
        answer = await client.post(PATH + query, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def wanted(rig: Rig, ask: Any) -> Wanted:
    """What the engine wants after ``ask`` has been done."""
    deliveries = rig.bus.subscribe(["wanted"])
    await ask
    async with asyncio.timeout(20):
        message = (await anext(deliveries)).message
    assert isinstance(message, Wanted)
    return message


async def test_ids_before_the_tape_become_a_gap_and_are_wanted(rig: Rig) -> None:
    await rig.tell(100, 50)
    told = await wanted(rig, post(rig, "?from_id=10&to_id=99&since=1723161600000"))
    assert told.ranges == ((10, 99),) and told.since == (1_723_161_600_000_000_000,)
    await rig.bus.settled("repairs")
    (gap,) = (await rig.get(f"/v1/coverage/{BTC}"))["gaps"]
    assert (gap["left_id"], gap["right_id"], gap["reason"], gap["state"]) == (9, 100, "backfill", "open")
    await rig.tell(10, 90, late=True)
    assert (await rig.get(f"/v1/coverage/{BTC}"))["gaps"] == []


async def test_without_ids_all_that_is_missing_is_asked_for(rig: Rig) -> None:
    await rig.tell(1, 10)
    await rig.tell(20, 10)
    body = await post(rig)
    assert body == {"instrument": BTC, "asked": []}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?from_id=1", "to_id"),
        ("?to_id=1", "from_id"),
        ("?from_id=5&to_id=4", "to_id"),
        ("?from_id=0&to_id=10000000", "to_id"),
        ("?from_id=-1&to_id=4", "from_id"),
        ("?from_id=x&to_id=4", "from_id"),
    ],
)
async def test_what_is_no_range_is_refused_by_name(rig: Rig, query: str, field: str) -> None:
    assert (await post(rig, query, 400))["field"] == field


async def test_another_sites_page_is_refused(rig: Rig) -> None:
    assert (await post(rig, "", 400, origin="http://evil.example"))["field"] == "origin"
    await post(rig, "", 202, origin=rig.gateway.url)


async def test_an_unknown_instrument_is_not_found(tmp_path: Any) -> None:
    async with running(tmp_path, ids=("sim:ETHUSDT",)) as rig:
        await post(rig, "", 404)
