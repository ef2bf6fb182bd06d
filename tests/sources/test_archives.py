"""The venue's public files: names, dates, checksums, bombs, what they vouch for."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tapewick.errors import BadPayload, ConfigError, Disconnected, SourceError, VenueRefused
from tapewick.model import Event, Instrument, TradeBatch
from tapewick.sources import _archive_zip
from tapewick.sources._archive_zip import ZipText, check_zip
from tapewick.sources.archives import Archive, ArchiveTrades, Fetcher, Imported, Imports, named, planned
from tapewick.timeframe import parse
from tests.sources.archive_server import ArchiveServer, zipped

DAY = 1_700_006_400_000  # ms, a UTC midnight
SPOT = "data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2023-11-15.zip"


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        yield server


def rows(first: int, last: int, *, unit: int = 1, skip: range = range(0), day: int = 15) -> str:
    start = DAY + (day - 15) * 86_400_000
    return "".join(
        f"{id},100.5{id % 10},0.25000000,25.1250,{(start + id) * unit},{'True' if id % 2 else 'False'},True\n"
        for id in range(first, last + 1)
        if id not in skip
    )


async def trades(server: ArchiveServer, tmp_path: Path, *origins: str) -> tuple[list[Event], dict[str, str]]:
    """All events of the archives at ``origins``, and what was told of each."""
    told: dict[str, str] = {}
    async with Fetcher(tmp_path, base_url=server.url) as fetcher:
        found = [named(origin if "://" in origin else f"{server.url}/{origin}", None) for origin in origins]
        pairs = [(archive, await fetcher.published(archive) or "") for archive in found]
        source = ArchiveTrades(pairs, fetcher, told=lambda archive, outcome: told.update({archive.name: outcome}))
        events = [event async for event in source.events()]
    return events, told


def ids(events: list[Event]) -> list[int]:
    return [id for event in events if isinstance(event, TradeBatch) for id in event.trade_id.tolist()]


def covers(events: list[Event]) -> list[tuple[int, int]]:
    return [pair for event in events if isinstance(event, TradeBatch) for pair in event.covers or ()]


def left_behind(folder: Path) -> list[Path]:
    return list(folder.iterdir())


# Names and dates.


@pytest.mark.parametrize(
    ("origin", "instrument", "expected"),
    [
        (f"http://x/{SPOT}", None, Archive("binance", "trades", "BTCUSDT", "", "2023-11-15")),
        (
            "/a/data/futures/um/monthly/aggTrades/ETHUSDT/ETHUSDT-aggTrades-2024-02.zip",
            None,
            Archive("binance-usdm", "aggTrades", "ETHUSDT", "", "2024-02"),
        ),
        (
            "data/futures/cm/daily/klines/BTCUSD_PERP/1m/BTCUSD_PERP-1m-2024-02-03.zip",
            None,
            Archive("binance-coinm", "klines", "BTCUSD_PERP", "1m", "2024-02-03"),
        ),
        ("BTCUSDT-1mo-2024-02.zip", "binance:BTCUSDT", Archive("binance", "klines", "BTCUSDT", "1mo", "2024-02")),
    ],
)
def test_a_name_says_what_a_file_holds(origin: str, instrument: str | None, expected: Archive) -> None:
    found = named(origin, instrument)
    assert found._replace(origin="") == expected
    assert f"/{found.path}".endswith(f"/{found.name}")
    if "data/" in origin:
        assert origin.endswith(found.path)


def test_the_month_is_spelled_as_the_venue_does() -> None:
    assert named("BTCUSDT-1mo-2024-02.zip", "binance:BTCUSDT").tf == parse("1M")
    (file,) = planned("BTCUSDT", "klines", parse("1M"), dt.date(2024, 2, 5), dt.date(2024, 2, 6), dt.date(2025, 1, 1))
    assert file.path == "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2024-02.zip"


@pytest.mark.parametrize(
    ("origin", "instrument", "problem"),
    [
        ("trades.zip", "binance:BTCUSDT", "not named as the venue names"),
        ("BTCUSDT-trades-2024-02-03.zip", None, "does not tell which market"),
        ("BTCUSDT-trades-2024-02-03.zip", "binance:ETHUSDT", "is of BTCUSDT, not of binance:ETHUSDT"),
        ("BTCUSDT-books-2024-02-03.zip", "binance:BTCUSDT", "not named as the venue names"),
    ],
)
def test_names_are_never_guessed(origin: str, instrument: str | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        named(origin, instrument)


def test_whole_months_that_are_over_come_as_one_file() -> None:
    first, last, today = dt.date(2023, 12, 30), dt.date(2024, 3, 2), dt.date(2024, 3, 3)
    periods = [each.period for each in planned("binance:BTCUSDT", "trades", None, first, last, today)]
    assert periods == ["2023-12-30", "2023-12-31", "2024-01", "2024-02", "2024-03-01", "2024-03-02"]
    running = [
        each.period for each in planned("BTCUSDT", "trades", None, dt.date(2024, 2, 1), last, dt.date(2024, 2, 29))
    ]
    assert running[0] == "2024-02-01"
    assert len(running) == 29 + 2


def test_every_day_is_held_by_one_file() -> None:
    first, last = dt.date(2023, 11, 17), dt.date(2024, 4, 9)
    days: list[str] = []
    for file in planned("BTCUSDT", "trades", None, first, last, dt.date(2030, 1, 1)):
        days += [each.period for each in file.daily()] if len(file.period) == 7 else [file.period]
    assert days == [f"{first + dt.timedelta(days=n)}" for n in range((last - first).days + 1)]


def test_what_cannot_be_a_symbol_is_not_asked_for() -> None:
    day = dt.date(2024, 2, 5)
    with pytest.raises(ConfigError, match="cannot be a symbol"):
        list(planned("../../BTCUSDT", "trades", None, day, day, dt.date(2025, 1, 1)))


# Content.


async def test_a_file_covers_its_range_and_its_missing_ids_are_void(server: ArchiveServer, tmp_path: Path) -> None:
    server.publish(SPOT, rows(1000, 30_000, skip=range(5000, 5010)))
    events, told = await trades(server, tmp_path, SPOT)
    assert told == {"BTCUSDT-trades-2023-11-15.zip": "imported"}
    assert isinstance(events[0], Instrument)
    assert events[0].id == "binance:BTCUSDT"
    assert ids(events) == [*range(1000, 5000), *range(5010, 30_001)]
    spans = covers(events)
    assert len(spans) > 1  # many blocks, one range
    assert (spans[0][0], spans[-1][1]) == (1000, 30_000)
    assert all(b[0] == a[1] + 1 for a, b in zip(spans, spans[1:], strict=False))
    assert left_behind(tmp_path) == []


async def test_around_refused_rows_only_good_ids_are_vouched_for(server: ArchiveServer, tmp_path: Path) -> None:
    server.publish(SPOT, rows(1, 10) + "11,nonsense,1,1,1,True,True\n" + rows(12, 20))
    events, _ = await trades(server, tmp_path, SPOT)
    assert ids(events) == [*range(1, 11), *range(12, 21)]
    assert covers(events) == []  # so the records' own ids, and 11 stays a hole


@pytest.mark.parametrize("unit", [1, 1000])
async def test_milli_and_microseconds_are_told_apart(server: ArchiveServer, tmp_path: Path, unit: int) -> None:
    server.publish(SPOT, rows(1, 3, unit=unit))
    events, _ = await trades(server, tmp_path, SPOT)
    batch = next(event for event in events if isinstance(event, TradeBatch) and len(event))
    assert batch.ts_event.tolist() == [(DAY + id) * 1_000_000 for id in (1, 2, 3)]
    assert batch.side.tolist() == [-1, 1, -1]


async def test_futures_have_a_header(server: ArchiveServer, tmp_path: Path) -> None:
    path = "data/futures/um/daily/trades/BTCUSDT/BTCUSDT-trades-2023-11-15.zip"
    text = rows(1, 5).replace(",True\n", "\n").replace("True", "true").replace("False", "false")
    server.publish(path, "id,price,qty,quote_qty,time,is_buyer_maker\n" + text)
    events, _ = await trades(server, tmp_path, path)
    assert ids(events) == [1, 2, 3, 4, 5]
    assert covers(events) == [(1, 5)]


@pytest.mark.parametrize("header", [True, False])
async def test_aggregates_stand_for_their_ids(server: ArchiveServer, tmp_path: Path, header: bool) -> None:
    path = "data/futures/um/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2023-11-15.zip"
    names = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    text = f"7,100.5,2,10,12,{DAY},true\n8,100.6,1,13,13,{DAY + 1},false\n"
    server.publish(path, (names if header else "") + text)
    events, _ = await trades(server, tmp_path, path)
    assert isinstance(events[0], Instrument)
    assert (events[0].id, events[0].granularity) == ("binance-usdm:BTCUSDT", "agg")
    batch = next(event for event in events if isinstance(event, TradeBatch) and len(event))
    assert (batch.first_id.tolist(), batch.trade_id.tolist(), batch.count.tolist()) == ([10, 13], [12, 13], [3, 1])
    assert covers(events) == [(10, 13)]


async def test_a_wrong_checksum_stops_a_file_before_it_is_read(server: ArchiveServer, tmp_path: Path) -> None:
    other = SPOT.replace("15.zip", "16.zip")
    server.publish(SPOT, rows(1, 5), sha256="0" * 64)
    server.publish(other, rows(6, 9, day=16))
    told: dict[str, str] = {}
    async with Fetcher(tmp_path, base_url=server.url) as fetcher:
        found = [named(f"{server.url}/{path}", None) for path in (SPOT, other)]
        pairs = [(archive, await fetcher.published(archive) or "") for archive in found]
        source = ArchiveTrades(pairs, fetcher, told=lambda archive, outcome: told.update({archive.period: outcome}))
        events: list[Event] = []
        with pytest.raises(BadPayload, match=r"2023-11-15.zip has SHA-256 .* but 0{64} was published"):
            async for event in source.events():
                events += [event]
    assert ids(events) == [6, 7, 8, 9]  # the others go on
    assert told == {"2023-11-15": "refused", "2023-11-16": "imported"}
    assert [each.archive.period for each in source.done] == ["2023-11-16"]


@pytest.mark.parametrize("text", [b"<html>", b"", b"0" * 64, b"0" * 64 + b"  other.zip\n", b"xyz  BTCUSDT.zip"])
async def test_what_is_no_checksum_of_the_file_is_refused(server: ArchiveServer, tmp_path: Path, text: bytes) -> None:
    server.publish(SPOT, rows(1, 5))
    server.files[f"/{SPOT}.CHECKSUM"] = text
    async with Fetcher(tmp_path, base_url=server.url) as fetcher:
        with pytest.raises(BadPayload, match="holds no SHA-256 of BTCUSDT-trades-2023-11-15.zip"):
            await fetcher.published(named(f"{server.url}/{SPOT}", None))
    assert server.asked[f"/{SPOT}"] == 0


async def test_failures_are_tried_again_and_end(server: ArchiveServer, tmp_path: Path) -> None:
    server.publish(SPOT, rows(1, 5))
    archive = named(f"{server.url}/{SPOT}", None)
    async with Fetcher(tmp_path, base_url=server.url) as fetcher:
        server.fail[f"/{SPOT}"] = [500, 503]
        sha256 = await fetcher.published(archive)
        assert sha256 is not None
        assert (await fetcher.get(archive, sha256)).path.is_file()
        server.fail[f"/{SPOT}"] = [403]
        with pytest.raises(VenueRefused) as refused:
            await fetcher.get(archive, sha256)
        assert refused.value.status == 403
        assert server.asked[f"/{SPOT}"] == 4
        server.files.clear()
        assert await fetcher.published(archive) is None
    async with Fetcher(tmp_path, base_url="http://127.0.0.1:1", timeout=5) as fetcher:
        with pytest.raises(Disconnected):
            await fetcher.published(archive._replace(origin=""))


async def test_a_local_file_is_held_to_the_checksum_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-trades-2023-11-15.zip"
    path.write_bytes(zipped(rows(1, 5)))
    archive = named(str(path), "binance:BTCUSDT")
    async with Fetcher(tmp_path) as fetcher:
        own = await fetcher.published(archive)
        assert own == hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / f"{path.name}.CHECKSUM").write_text(f"{'a' * 64} *{path.name}\n")
        assert await fetcher.published(archive) == "a" * 64
        with pytest.raises(BadPayload, match="nothing of it was imported"):
            await fetcher.get(archive, "a" * 64)
        assert (await fetcher.get(archive, own)).temporary is False
    assert path.is_file()


# Bombs.


def lied(data: bytes, size: int) -> bytes:
    """The archive with another uncompressed size in both of its headers."""
    at = data.index(b"PK\x01\x02")
    data = data[: at + 24] + struct.pack("<I", size) + data[at + 28 :]
    return data[:22] + struct.pack("<I", size) + data[26:]


def two_members() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.csv", "1")
        archive.writestr("../b.csv", "2")
    return out.getvalue()


def many_members() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(2000):
            archive.writestr(f"{number}.csv", "")
    return out.getvalue()


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "honest": (lambda: zipped(b"0" * (200 << 20)), "would expand from"),
    "says less": (lambda: lied(zipped(b"0" * (200 << 20)), 1000), "damaged zip data"),
    "says more": (lambda: lied(zipped(rows(1, 9)), 0xFFFFFF00), "would expand from"),
    "two files": (two_members, "holds 2 files"),
    "many files": (many_members, "lists too many files"),
    "another method": (lambda: zipped(rows(1, 9), method=zipfile.ZIP_LZMA), "packed by a method"),
    "cut short": (lambda: zipped(rows(1, 9000))[:-30], "cut short"),
    "no archive": (lambda: b"PK\x03\x04" + b"\0" * 100, "cut short"),
    "damaged": (lambda: zipped(rows(1, 9000))[:200] + b"\xff" * 50 + zipped(rows(1, 9000))[250:], "damaged zip data"),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_nothing_of_a_bomb_or_a_damaged_archive_is_imported(
    server: ArchiveServer, tmp_path: Path, name: str
) -> None:
    make, problem = BOMBS[name]
    data = make()
    server.files[f"/{SPOT}"] = data
    server.files[f"/{SPOT}.CHECKSUM"] = f"{hashlib.sha256(data).hexdigest()}  {SPOT.rpartition('/')[2]}".encode()
    with pytest.raises(BadPayload, match=problem):
        await trades(server, tmp_path, SPOT)
    assert left_behind(tmp_path) == []


def test_an_archive_may_be_as_small_as_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(b"0" * (900 << 10)))
    check_zip(path)
    monkeypatch.setattr(_archive_zip, "TEXT_BYTES", 1000)
    with pytest.raises(BadPayload, match="would expand"):
        ZipText(path)


# The record of imports.


def test_the_newest_line_counts_and_a_torn_one_harms_nothing(tmp_path: Path) -> None:
    imports = Imports(tmp_path)
    assert imports.known() == {}
    first, again, other = (Imported(name, sha, "E", 1) for name, sha in (("a", "1"), ("a", "2"), ("b", "3")))
    imports.add([first])
    with (tmp_path / "imports.jsonl").open("ab") as file:
        file.write(b'{"name":"c","sha')
    imports.add([again, other])
    imports.add([])
    assert imports.known() == {"a": again, "b": other}


async def test_a_source_that_cannot_be_had_is_told_at_the_end(server: ArchiveServer, tmp_path: Path) -> None:
    archive = named(f"{server.url}/{SPOT}", None)
    async with Fetcher(tmp_path) as fetcher:
        source = ArchiveTrades([(archive, "0" * 64)], fetcher, told=lambda archive, outcome: None)
        with pytest.raises(SourceError, match="answered HTTP 404"):
            _ = [event async for event in source.events()]
