"""SC19: what venues and message servers send is validated, bounded and set aside like a stranger's input."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tapewick import metrics
from tapewick.buses.redis import FIELD
from tapewick.errors import SourceError
from tapewick.net.http import JsonClient
from tests.buses.rig import BusRig, got, head
from tests.gateways.rig import BTC, batch, running
from tests.parts.redis import RedisServer, redis_server  # noqa: F401
from tests.security.test_sc13_urls import answering

HOSTILE = ("", "rubbish", "\x01\x02", "[" * 5000, "\x7f" * 1000, "\n\x0b" * 50)


async def test_sc19_a_message_that_is_none_is_set_aside_and_the_next_one_arrives(
    redis_server: RedisServer,  # noqa: F811
) -> None:
    """Whoever can write to the message server sends rubbish into every stream of ours."""
    rig = BusRig("redis", redis_server)
    async with rig.open() as bus:
        reader = bus.subscribe(["head"])
        await bus.publish("head", head(1))
        assert (await got(reader, 1))[0].message == head(1)
        names = await asyncio.to_thread(redis_server.ask, "KEYS", f"{rig.name}*")
        streams = [line for line in names.split("\r\n") if line.startswith(rig.name)]
        before = metrics.quarantined.labels("bus")._value.get()
        for stream in streams:
            for text in HOSTILE:
                await asyncio.to_thread(redis_server.ask, "XADD", stream, "*", FIELD.decode(), text)
        await bus.publish("head", head(2))
        assert (await got(reader, 1))[0].message == head(2)
        assert metrics.quarantined.labels("bus")._value.get() >= before + len(HOSTILE)


async def test_sc19_an_answer_without_end_is_cut() -> None:
    async with answering("200 OK\r\nX: " + "a" * 10) as (url, _), JsonClient(url, max_bytes=1) as client:
        with pytest.raises(SourceError, match="more than 1 bytes"):
            await client.get("/", dict[str, int])


@pytest.mark.parametrize("status", ["200 OK", "500 Internal\r\nContent-Type: text/html"])
async def test_sc19_what_a_venue_says_cannot_begin_a_log_line(status: str) -> None:
    evil = "\x1b[2J\x07"
    async with answering(f"{status}\r\nX-Evil: {evil}") as (url, _), JsonClient(url) as client:
        try:
            answer = await client.get("/", list[int])
        except SourceError as error:
            assert not [char for char in str(error) if ord(char) < 32 or ord(char) == 127]
        else:
            raise AssertionError(answer)


async def test_sc19_impossible_trades_of_a_source_are_quarantined(tmp_path: Path) -> None:
    """They came over the bus as if from a collector; what is sound about the stream goes on."""
    async with running(tmp_path) as rig:
        await rig.tell(1, 10)
        before = metrics.quarantined.labels("price")._value.get()
        bad = batch(11, 10)
        bad.price[3:6] = (0, -5, 2**62)
        bad.size[7] = -1
        await rig.bus.publish("trades", bad)
        await rig.bus.settled("trades")
        await rig.tell(21, 10)
        rows = (await rig.get(f"/v1/trades?instrument={BTC}&limit=1000"))["trades"]
        assert all(float(row["price"]) > 0 and float(row["size"]) >= 0 for row in rows), rows
        assert {row["trade_id"] for row in rows} >= {*range(1, 14), *range(21, 31)}
        assert metrics.quarantined.labels("price")._value.get() >= before
