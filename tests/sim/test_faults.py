"""Scripted faults over real sockets: what a client sees, and that the truth stays the truth."""

from __future__ import annotations

import asyncio
import gzip
import http.client
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from picows import WSError

from tapewick.clock import ManualClock
from tapewick.errors import ConfigError, Disconnected, VenueRefused
from tapewick.sim.lapse import LapseClock
from tapewick.sim.script import KINDS
from tapewick.sim.venue import Fault, SimVenue, faults
from tests.sim.sockets import ORIGIN, connected, manual, rest
from tests.sim.test_streams import moved

pytestmark = pytest.mark.timeout(90)


def ids(frames: list[dict[str, Any]], key: str = "t") -> list[int]:
    return [frame[key] for frame in frames]


async def test_duplicates_are_sent_beside_each_frame() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@trade") as listener:
        venue.duplicate(3)
        got = ids(await moved(clock, listener, 4.0))
        truth = [trade.id for trade in venue.truth("BTCUSDT")]
        assert got == sorted(truth + truth[:3])


async def test_reordered_frames_all_come_in_another_order() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@trade") as listener:
        venue.reorder(10)
        got = ids(await moved(clock, listener, 4.0))
        truth = [trade.id for trade in venue.truth("BTCUSDT")]
        assert got != truth and sorted(got) == truth and got[10:] == truth[10:]
        venue.reorder(100_000)
        held = await moved(clock, listener, 1.0)
        assert held == [] and await moved(clock, listener, 2.0) != []


async def test_late_frames_come_behind_newer_ones() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@trade") as listener:
        venue.late(3, seconds=2.0)
        got = ids(await moved(clock, listener, 5.0))
        truth = [trade.id for trade in venue.truth("BTCUSDT")]
        assert got[0] == truth[3] and sorted(got) == truth


async def test_void_ids_are_shown_empty_and_are_in_no_bar() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@trade") as listener:
        venue.void(4)
        frames = await moved(clock, listener, 9.0)
        voids = venue.voids("BTCUSDT")
        assert len(voids) == 4
        empty = [frame for frame in frames if Decimal(frame["p"]) == 0]
        assert set(ids(empty)) == voids and all(Decimal(frame["q"]) == 0 for frame in empty)
        assert not voids & {trade.id for trade in venue.truth("BTCUSDT")}
        page = await rest(venue, "historicalTrades", symbol="BTCUSDT", fromId=min(voids), limit=1)
        assert Decimal(page[0]["price"]) == 0
        bar = venue.bars("BTCUSDT", "1h", start=ORIGIN + 3_600_000, end=venue.now())[0]
        assert bar.trades == len(venue.truth("BTCUSDT"))
        assert bar.trades + 4 == len(frames)


async def test_a_skipped_diff_breaks_the_chain_and_a_crossed_one_crosses() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@depth@100ms") as listener:
        whole = await moved(clock, listener, 1.0)
        venue.skip_depth(1)
        broken = await moved(clock, listener, 1.0)
        assert broken[0]["U"] > whole[-1]["u"] + 1
        venue.cross_book()
        crossed = (await moved(clock, listener, 1.0))[0]
        _, book = venue.book("BTCUSDT", crossed["u"])
        assert int(crossed["b"][0][0].replace(".", "")[:-6]) > next(iter(book.asks))


async def test_stale_snapshots_are_true_but_old() -> None:
    clock, venue = manual()
    async with venue:
        venue.stale_snapshots(1, seconds=30.0)
        old = await rest(venue, "depth", symbol="BTCUSDT", limit=5)
        new = await rest(venue, "depth", symbol="BTCUSDT", limit=5)
        assert new["lastUpdateId"] - old["lastUpdateId"] > 10_000
        assert venue.book("BTCUSDT", old["lastUpdateId"])[0] == old["lastUpdateId"]


async def test_a_shutdown_is_announced_before_the_end() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/stream") as combined, connected(venue, "/ws") as raw:
        venue.shut_down(close_after=1.0)
        assert (await combined.next())["stream"] == "!serverShutdown"
        assert (await raw.next())["e"] == "serverShutdown"
        await asyncio.sleep(0)
        clock.advance(1.5)
        await combined.gone.wait()
        assert await raw.frames.get() == b"close 1001"


async def test_times_turn_to_microseconds_for_a_while() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@trade") as listener:
        venue.microseconds(1.0)
        frames = await moved(clock, listener, 3.0)
        assert frames[0]["T"] > 10**15 > frames[-1]["T"]


@pytest.mark.parametrize("kind", ["json", "utf8", "nan", "overflow", "deep", "unknown", "foreign", "empty", "huge"])
async def test_damaged_frames_come_beside_the_good_ones(kind: Any) -> None:
    async with SimVenue(["BTCUSDT"], rate=0.001) as venue, connected(venue, "/ws/btcusdt@trade") as listener:
        venue.malformed(kind)
        if kind == "huge":  # beyond what the client takes
            await listener.gone.wait()
        else:
            assert isinstance(await listener.frames.get(), bytes)


def _get(port: int, accept: str = "gzip") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/api/v3/exchangeInfo", headers={"Accept-Encoding": accept})
    try:
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


async def test_damaged_answers_look_good_until_they_are_read() -> None:
    async with SimVenue() as venue:
        venue.damage("gzip")
        status, body = await asyncio.to_thread(_get, venue.port)
        assert status == 200
        with pytest.raises(EOFError):
            gzip.decompress(body)
        venue.damage("cut")
        with pytest.raises(http.client.IncompleteRead):
            await asyncio.to_thread(_get, venue.port)
        for kind, start in (("html", b"<html>"), ("json", b'{"timezone"'), ("empty", b"")):
            venue.damage(kind)  # type: ignore[arg-type]
            status, body = await asyncio.to_thread(_get, venue.port, "identity")
            assert status == 200 and body.startswith(start)
        assert gzip.decompress((await asyncio.to_thread(_get, venue.port))[1]).endswith(b"}")


@pytest.mark.parametrize("kind", ["gzip", "cut", "html", "json", "empty"])
async def test_our_own_client_takes_damage_for_a_fault_of_the_venue(kind: Any) -> None:
    async with SimVenue() as venue:
        venue.damage(kind)
        with pytest.raises((VenueRefused, Disconnected)):
            await rest(venue, "exchangeInfo")
        assert (await rest(venue, "exchangeInfo"))["timezone"] == "UTC"


async def test_refusals_end_by_count_and_by_time() -> None:
    clock, venue = manual()

    async def status() -> int:
        try:
            await rest(venue, "ping")
        except VenueRefused as error:
            return error.status
        return 200

    async with venue:
        venue.refuse(503, on="rest", count=2)
        assert [await status() for _ in range(3)] == [503, 503, 200]
        venue.refuse(418, retry_after=3, on="rest", seconds=5.0)
        assert await status() == 418
        clock.advance(5.0)
        assert await status() == 200
        async with connected(venue, "/ws"):
            pass


async def test_a_slow_answer_comes_after_its_delay_of_venue_time() -> None:
    async with SimVenue(clock=LapseClock(100.0)) as venue:
        before = venue.now()
        venue.slow(20.0)
        await rest(venue, "ping")
        assert venue.now() - before >= 20_000


async def test_a_skewed_clock_is_told_on_time() -> None:
    _, venue = manual()
    async with venue:
        venue.skew(-300.0)
        assert (await rest(venue, "time"))["serverTime"] == venue.now() - 300_000


def test_a_script_is_the_same_for_the_same_seed() -> None:
    script = faults(7, 300, span=60.0)
    assert script == faults(7, 300, span=60.0) != faults(8, 300, span=60.0)
    assert len(script) == 300 and all(1.0 <= fault.after <= 61.0 for fault in script)
    assert {fault.action for fault in faults(1, 2_000)} == {action for _, action, _ in KINDS.values()}
    assert all(fault.action == "void" for fault in faults(1, 20, kinds=["void"]))
    with pytest.raises(ConfigError, match="nonsense"):
        faults(1, 5, kinds=["nonsense"])


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_every_kind_of_fault_can_be_scripted(kind: str) -> None:
    script = faults(3, 4, span=0.1, kinds=[kind], after=0.0)
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=50.0, faults=script, speed=20.0) as venue:
        with suppress(WSError):  # refusals come at once
            async with connected(venue, "/stream?streams=btcusdt@trade/btcusdt@depth@100ms"):
                await venue.script_done.wait()
        await venue.script_done.wait()
        assert venue.injected.total() == 4


@pytest.mark.timeout(300)
async def test_the_truth_survives_a_fast_storm_of_faults() -> None:
    """Two minutes of the venue's time in six seconds, 120 faults, then every id by REST."""
    script = faults(11, 120)
    async with SimVenue(["BTCUSDT"], rate=20.0, speed=20.0, faults=script) as venue:
        while not venue.script_done.is_set():
            try:
                async with connected(venue, "/stream?streams=btcusdt@trade/btcusdt@depth@100ms") as listener:
                    waiting = [asyncio.create_task(listener.gone.wait()), asyncio.create_task(venue.script_done.wait())]
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=1.0)
                    for task in waiting:
                        task.cancel()
            except (OSError, WSError):
                await asyncio.sleep(0.01)
        assert venue.injected.total() == 120
        venue.refuse(None)
        truth = venue.truth("BTCUSDT")
        found: list[dict[str, Any]] = []
        assert truth[-1].id - truth[0].id + 1 == len(truth) + len(venue.voids("BTCUSDT") & set(range(1, truth[-1].id)))
        while not found or found[-1]["id"] < truth[-1].id:
            start = found[-1]["id"] + 1 if found else truth[0].id
            found += await rest(venue, "historicalTrades", symbol="BTCUSDT", fromId=start, limit=1000)
        real = [row for row in found if Decimal(row["price"]) and row["id"] <= truth[-1].id]
        assert [(row["id"], Decimal(row["price"])) for row in real] == [(t.id, Decimal(t.price)) for t in truth]


@pytest.mark.parametrize("make", [lambda: SimVenue(speed=50.0), lambda: SimVenue(clock=LapseClock(50.0, 10**18))])
async def test_a_lapse_makes_time_fly(make: Callable[[], SimVenue]) -> None:
    async with make() as venue, connected(venue, "/ws/btcusdt@trade") as listener:
        began = venue.now()
        while venue.now() - began < 10_000:
            frame = await listener.next()
        assert frame["T"] <= frame["E"] <= venue.now()


async def test_faults_are_named_by_their_methods() -> None:
    clock = ManualClock(ORIGIN * 1_000_000)
    async with SimVenue(clock=clock, faults=[Fault(1.0, "skip_ids", {"count": 3}), Fault(2.0, "expire")]) as venue:
        await asyncio.sleep(0)
        for _ in range(3):
            clock.advance(1.0)
            await asyncio.sleep(0.01)
        assert venue.injected == {"skip_ids": 1, "expire": 1}
