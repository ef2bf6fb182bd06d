"""``/v1/orders``: what a store of scanned orders answers, page by page, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tapewick.chain.keccak import checksum
from tapewick.scans import lease_name
from tests.contract.chains import COMPONENT, CONTRACT, USER, Chain, fold, step_of
from tests.gateways.rig import Rig, running

SHOWN = f"31337/{checksum(CONTRACT)}"


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[tuple[Rig, Chain]]:
    """A gateway on a store that holds ten blocks with an event each."""
    made = Chain(5)
    async with running(tmp_path) as rig:
        await rig.store.lease("me", [lease_name(COMPONENT)], 60)
        await rig.store.commit_scan(step_of(made, "", made.grow(10, events=1)), holder="me")
        yield rig, made


async def test_orders_are_listed_newest_first_by_finality(chain: tuple[Rig, Chain]) -> None:
    rig, own = chain
    orders = sorted(fold(own.canonical).values(), key=lambda one: (one.created_at, int(one.order_id)), reverse=True)
    for finality, height in (("pending", 10), ("confirmed", 8), ("finalized", 5)):
        rows = (await rig.get(f"/v1/orders?finality={finality}"))["orders"]
        assert [row["id"] for row in rows] == [one.order_id for one in orders if one.last_block <= height]
        assert {row["component"] for row in rows} == {SHOWN}
    everything = (await rig.get("/v1/orders?finality=pending"))["orders"]
    first = orders[0]
    assert everything[0]["amount_in"] == first.amount_in and everything[0]["user_address"] == checksum(USER)
    assert everything[0]["created_at"] == "1970-01-01T00:02:00+00:00" and everything[0]["executed_at"] is None
    assert (everything[0]["finality"], everything[0]["confirmations"]) == ("pending", 0)
    assert {row["finality"] for row in everything} == {"pending", "confirmed", "finalized"}
    assert (await rig.get("/v1/orders"))["orders"] == [row for row in everything if row["finality"] != "pending"]


async def test_pages_follow_each_other(chain: tuple[Rig, Chain]) -> None:
    rig, _ = chain
    whole = (await rig.get("/v1/orders?finality=pending"))["orders"]
    found: list[Any] = []
    path = "/v1/orders?finality=pending&limit=3"
    while path:
        page = await rig.get(path)
        assert 0 < len(page["orders"]) <= 3
        found, path = found + page["orders"], page["next"]
    assert found == whole


async def test_filters(chain: tuple[Rig, Chain]) -> None:
    rig, own = chain
    everything = (await rig.get("/v1/orders?finality=pending"))["orders"]
    for same in (
        f"user={USER.upper().replace('X', 'x')}",
        f"user={checksum(USER)}",
        "status=pending",
        "status=PENDING",
    ):
        assert (await rig.get(f"/v1/orders?finality=pending&{same}"))["orders"] == everything
    for none in ("user=0x" + "00" * 20, "status=executed", "component=1/0x" + "c0" * 20):
        assert await rig.get(f"/v1/orders?finality=pending&{none}") == {"orders": [], "next": None}
    assert (await rig.get(f"/v1/orders?finality=pending&component={SHOWN}"))["orders"] == everything


async def test_one_order_and_its_events(chain: tuple[Rig, Chain]) -> None:
    rig, own = chain
    id = own.canonical[-1].order_id
    order = (await rig.get(f"/v1/orders/{id}"))["order"]
    assert order["id"] == id and order["block_hash"] == own.blocks[-1].hash
    told = await rig.get(f"/v1/orders/{id}/events")
    events = [one for one in own.canonical if one.order_id == id]
    assert [one["tx_hash"] for one in told["events"]] == [one.tx_hash for one in events]
    assert told["total"] == len(events) and told["component"] == SHOWN
    assert told["events"][0]["old_status"] is None and told["events"][0]["new_status"] == "PENDING"
    assert told["events"][0]["event_data"] == events[0].fields
    assert await rig.get(f"/v1/orders/0{id}") == {"order": order}


async def test_the_same_number_of_two_contracts_wants_a_component(chain: tuple[Rig, Chain]) -> None:
    rig, own = chain
    other = f"31337/0x{'d1' * 20}"
    step = replace(step_of(own, "", [], news=()), component=other, orders=tuple(fold(own.canonical).values()))
    await rig.store.lease("me", [lease_name(other)], 60)
    await rig.store.commit_scan(step, holder="me")
    id = own.canonical[-1].order_id
    assert "component" in (await rig.get(f"/v1/orders/{id}", 400))["detail"]
    for component in (COMPONENT, other):
        found = await rig.get(f"/v1/orders/{id}?component={component}")
        assert found["order"]["component"].lower() == component
    assert (await rig.get(f"/v1/orders/{id}/events?component={other}"))["events"] == []


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/orders/abc", 400, "Invalid order_id format. Must be a number."),
        ("/v1/orders/-1", 400, "Must be a number"),
        ("/v1/orders/" + "9" * 79, 400, "Must be a number"),
        ("/v1/orders/424242", 404, "Order 424242 not found"),
        ("/v1/orders/424242/events", 404, "Order 424242 not found"),
        ("/v1/orders?status=open", 400, "Invalid status. Use: pending, executed, cancelled"),
        ("/v1/orders?user=0x12", 400, "write 0x and 40 hex digits"),
        ("/v1/orders?component=1", 400, "CHAINID/0xADDRESS"),
        ("/v1/orders?limit=0", 400, "limit"),
        ("/v1/orders?limit=1001", 400, "limit"),
        ("/v1/orders?finality=sure", 400, "finality"),
        ("/v1/orders?cursor=zzz", 400, "take the address in next"),
        ("/v1/orders?cursor=%00%ff", 400, "take the address in next"),
        ("/v1/orders?offset=5", 400, "unknown parameter"),
    ],
)
async def test_what_is_wrong_is_named(chain: tuple[Rig, Chain], path: str, status: int, says: str) -> None:
    rig, _ = chain
    assert says in str(await rig.get(path, status))
