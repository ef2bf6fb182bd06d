"""``max_rate``, ``mode`` and ``times`` of a subscription: how often what a newer value replaces is sent, and how."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tapewick import hub
from tapewick.errors import BadRequest
from tapewick.gateways._wishes import Wanted, request
from tapewick.outbox import Limits
from tests.gateways.event_source import opened
from tests.gateways.rig import BTC, Rig, running

CANDLES, TRADES = f"candle@{BTC}@1m", f"trade@{BTC}"


@pytest.mark.parametrize(
    ("options", "pace"),
    [
        ({}, None),
        ({"mode": "conflate"}, None),
        ({"mode": "all"}, 0.0),
        ({"mode": "latest"}, 1.0),
        ({"mode": "latest", "max_rate": 10}, 0.1),
        ({"mode": "conflate", "max_rate": 50}, 0.02),
        ({"max_rate": 3}, 0.5),
        ({"max_rate": 0.1}, 10.0),
    ],
)
def test_a_rate_is_a_step_that_is_never_passed(options: dict[str, Any], pace: float | None) -> None:
    for channel in (CANDLES, f"bbo@{BTC}", f"book_top@{BTC}"):
        assert request(Wanted(channel, **options)).pace == pace
    if options.get("max_rate"):
        assert pace and pace >= 1 / options["max_rate"]


@pytest.mark.parametrize(
    ("channel", "options"),
    [
        (CANDLES, {"mode": "all", "max_rate": 5}),
        (TRADES, {"max_rate": 5}),
        (TRADES, {"mode": "latest"}),
        (f"book@{BTC}", {"mode": "conflate"}),
        (f"bbo@{BTC}", {"times": "ns"}),
        ("health", {"max_rate": 1}),
    ],
)
def test_events_and_deltas_cannot_be_thinned_out(channel: str, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        request(Wanted(channel, **options))


@pytest.mark.parametrize("channel", [TRADES, f"book@{BTC}", "health"])
def test_where_nothing_is_left_out_all_may_be_asked_for(channel: str) -> None:
    assert request(Wanted(channel, mode="all")) == request(Wanted(channel))


async def test_a_slow_pace_and_the_default_each_get_their_own(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(flush_s=0.001)) as rig, rig.ws() as slow, rig.ws() as fast:
        await rig.tell(1, 5)
        slow.subscribe({"ch": CANDLES, "snapshot": 0, "max_rate": 0.1})
        fast.subscribe({"ch": CANDLES, "snapshot": 0})
        (told,) = await slow.got("subscribed")
        assert told["channels"][0]["max_rate"] == 0.1
        assert "max_rate" not in (await fast.got("subscribed"))[0]["channels"][0]
        count = 5
        while len(fast.of("update")) < 8:
            count += 1
            await rig.tell(count, 1)
            await asyncio.sleep(0.005)
        await slow.got("update")
        # one for its coming late, and the first at once; the next is due after ten seconds
        assert len(slow.of("update")) <= 2


async def test_every_value_is_sent_where_all_are_wanted(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(flush_s=60)) as rig, rig.ws() as c:
        c.subscribe({"ch": CANDLES, "snapshot": 1, "mode": "all"})
        await c.got("snapshot")
        for count in range(1, 31):
            await rig.tell(count, 1)
        await c.until(lambda c: (u := c.of("update")) and u[-1]["data"][0]["trades"] == 30)
        assert [u["data"][0]["trades"] for u in c.of("update")] == list(range(1, 31))


async def test_times_as_texts_of_ns_beside_the_default(rig: Rig) -> None:
    await rig.tell(1, 3)
    async with rig.ws() as ns, opened(rig.gateway.url, TRADES, times="ns", snapshot=3) as s, rig.ws() as ms:
        ns.subscribe({"ch": TRADES, "times": "ns", "snapshot": 3})
        ms.subscribe({"ch": TRADES, "snapshot": 3})
        for one in (ns, ms, s):
            await one.got("snapshot")  # type: ignore[attr-defined]
        await rig.tell(4, 2)
        for one in (ns, ms, s):
            await one.got("event")  # type: ignore[attr-defined]
        rows = [one.rows(TRADES, "snapshot", "event") for one in (ns, ms, s)]
        assert [int(row["ts_event"]) // 10**6 for row in rows[0]] == [row["ts_event"] for row in rows[1]]
        assert all(isinstance(row["ts_recv"], str) for row in rows[0]) and rows[0] == rows[2]
        (first, second), seqs = rows[:2], [row["seq"] for row in rows[0]]
        assert seqs == [row["seq"] for row in second] and first[0]["ts_event"].isdigit()


async def test_a_ticker_is_told_as_it_is_and_then_its_newest_state(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TICKER_PACE", 0.01)
    await rig.tell(1, 5)
    channel = f"ticker@{BTC}"
    async with rig.ws() as c, opened(rig.gateway.url, channel) as s:
        c.subscribe(channel)
        (told,) = await c.got("snapshot", ch=channel)
        asked = await rig.get(f"/v1/ticker/{BTC}")
        assert told["data"] == [asked] and "pos" not in told
        await s.got("snapshot")
        assert s.last_id == "", "there is nothing to resume"
        await rig.tell(6, 700)
        newest = await rig.get(f"/v1/ticker/{BTC}")
        assert newest != asked
        for one in (c, s):
            await one.until(lambda one: (u := one.of("update")) and u[-1]["data"] == [newest])  # type: ignore[attr-defined]
        c.send({"op": "unsubscribe", "channels": [{"ch": channel}]})
        await c.got("unsubscribed")
