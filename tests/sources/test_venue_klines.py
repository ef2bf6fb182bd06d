"""The venue's klines: every page of a range, exact numbers, and nothing taken that is no kline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from tapewick.errors import BadPayload, ConfigError
from tapewick.net.venue_client import VenueClient
from tapewick.sources.venue_klines import Bar, VenueKlines, shown
from tapewick.timeframe import bucket, next_open, parse

T0 = 1_700_006_400_000_000_000  # ns, a UTC midnight
MS = 1_000_000


def row(t: int, price: str = "100.50000000") -> list[object]:
    return [t // MS, price, price, price, price, "2.5", t // MS + 59_999, "251.25", 3, "1.5", "150.75", "0"]


@asynccontextmanager
async def venue(
    rows: Callable[[dict[str, str]], object], name: str = "binance"
) -> AsyncIterator[tuple[VenueKlines, list[str]]]:
    """Klines of a server that answers what ``rows`` makes of the query, and the requests it got."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode().split(" ")[1]
        asked.append(line)
        query = {key: values[0] for key, values in parse_qs(urlsplit(line).query).items()}
        body = msgspec.json.encode(rows(query))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, VenueKlines(VenueClient([url]), venue=name) as klines:
        yield klines, asked


def all_of(tf_name: str) -> Callable[[dict[str, str]], object]:
    """A venue that has every bar of ``tf_name``, a thousand at once."""
    tf = parse(tf_name)

    def rows(query: dict[str, str]) -> object:
        start, end = int(query["startTime"]) * MS, int(query["endTime"]) * MS
        t = bucket(tf, start) if bucket(tf, start) == start else next_open(tf, bucket(tf, start))
        found: list[object] = []
        while t <= end and len(found) < int(query["limit"]):
            found.append(row(t))
            t = next_open(tf, t)
        return found

    return rows


@pytest.mark.parametrize(("name", "count"), [("1m", 2500), ("1h", 30), ("3d", 40), ("1w", 20)])
async def test_every_bar_of_a_range(name: str, count: int) -> None:
    tf = parse(name)
    start = bucket(tf, T0)
    end = start + count * tf.length
    async with venue(all_of(name)) as (klines, asked):
        found = await klines.bars("BTCUSDT", tf, start, end)
    assert list(found) == list(range(start, end, tf.length))
    assert len(asked) == -(-count // 1000)


async def test_months_are_the_calendars() -> None:
    tf = parse("1M")
    async with venue(all_of("1M")) as (klines, _):
        found = await klines.bars("BTCUSDT", tf, bucket(tf, T0), T0 + 400 * 86_400 * 10**9)
    opens = list(found)
    assert all(next_open(tf, a) == b for a, b in zip(opens, opens[1:], strict=False))
    assert len(opens) == 14


async def test_coin_margined_ranges_are_short_and_their_turnover_is_another_unit() -> None:
    tf = parse("1d")
    async with venue(all_of("1d"), "binance-coinm") as (klines, asked):
        found = await klines.bars("BTCUSD_PERP", tf, T0, T0 + 500 * tf.length)
        assert len(found) == 500
        assert "quote_volume" not in klines.fields
        assert "taker_buy_quote_volume" not in klines.fields
    assert len(asked) == 3
    assert all(line.startswith("/dapi/v1/klines?") for line in asked)


async def test_numbers_are_kept_exactly() -> None:
    async with venue(lambda query: [row(T0, "0.00000001")]) as (klines, _):
        (bar,) = (await klines.bars("X", parse("1m"), T0, T0 + 60 * 10**9)).values()
    assert (shown(bar, "open"), shown(bar, "quote_volume"), shown(bar, "trades")) == ("0.00000001", "251.25", "3")
    assert isinstance(bar, Bar)


@pytest.mark.parametrize(
    "answer",
    [[[1, 2]], [["x"] * 12], [row(T0)[:8] + ["3"] + row(T0)[9:]], [row(T0, "one")], [row(T0, "1e99")], {"code": 1}],
)
async def test_what_is_no_kline_is_refused(answer: object) -> None:
    async with venue(lambda query: answer) as (klines, _):
        with pytest.raises(BadPayload):
            await klines.bars("X", parse("1m"), T0, T0 + 60 * 10**9)


async def test_rows_outside_the_range_are_left_out() -> None:
    minute = 60 * 10**9
    async with venue(lambda query: [row(T0 - minute), row(T0), row(T0 + minute)]) as (klines, _):
        assert list(await klines.bars("X", parse("1m"), T0, T0 + minute)) == [T0]


@pytest.mark.parametrize(("name", "tf"), [("binance", "45m"), ("binance", "3h"), ("binance-usdm", "1s")])
async def test_timeframes_the_venue_lacks(name: str, tf: str) -> None:
    async with venue(lambda query: [], name) as (klines, _):
        with pytest.raises(ConfigError, match=f"no {tf} bars"):
            await klines.bars("X", parse(tf), T0, T0 + 1)
