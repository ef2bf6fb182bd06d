"""``tapewick verify`` against the simulated venue: equal, and every way not to be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tapewick.commands import verify as command
from tapewick.sim.venue import SimVenue
from tapewick.timeframe import parse
from tapewick.verify import Difference, Report
from tests.commands.tapes import Done, fill, tapewick
from tests.e2e.server import Server

MINUTES = 90


@pytest.fixture
async def venue() -> AsyncIterator[SimVenue]:
    """A venue whose trades began an hour and a half ago."""
    async with SimVenue(["BTCUSDT", "SOLUSDT"], seed=7, rate=2, catch_up=MINUTES) as venue:
        yield venue


async def verify(folder: Path, venue: SimVenue, *args: str, id: str = "sim:BTCUSDT") -> tuple[Done, dict[str, Any]]:
    """The command's end and its JSON, where it got that far."""
    done = await tapewick("verify", id, "--data", "d", "--rest-url", venue.rest_url, "--json", *args, cwd=folder)
    return done, json.loads(done.out) if done.out else {}


def changed(folder: Path, sql: str) -> None:
    with duckdb.connect(str(folder / "d" / "tape.duckdb")) as connection:
        connection.execute(sql)


def one(folder: Path, sql: str) -> Any:
    with duckdb.connect(str(folder / "d" / "tape.duckdb"), read_only=True) as connection:
        found = connection.execute(sql).fetchone()
    assert found is not None
    return found[0]


async def test_a_whole_tape_equals_the_venue(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    for id in ("sim:BTCUSDT", "sim:SOLUSDT"):
        done, found = await verify(tmp_path, venue, "--tf", "1m,5m,1h", id=id)
        assert done.code == 0, done
        assert (found["equal"], found["mismatches"], found["differences"]) == (True, 0, [])
        assert found["timeframes"][0]["compared"] >= MINUTES - 5
        assert all(each["equal"] == each["compared"] for each in found["timeframes"])


async def test_a_trade_deleted_from_the_store_is_found(tmp_path: Path, venue: SimVenue) -> None:
    count = await fill(tmp_path / "d", venue)
    changed(tmp_path, f"DELETE FROM trades WHERE trade_id = {count // 4} AND number = 1")
    id = one(tmp_path, "SELECT id FROM instruments WHERE number = 1")
    done, found = await verify(tmp_path, venue, "--tf", "1m", id=id)
    assert done.code == 4
    assert {"trades", "volume", "quote_volume"} <= {each["field"] for each in found["differences"]}
    assert {each["of"] for each in found["differences"]} == {"trades"}
    (minute,) = {each["open_time"] for each in found["differences"]}
    assert f"tapewick repair {id} --from {minute} --to {minute + 60_000} --force" in done.err
    done = await tapewick(
        "verify", id, "--data", "d", "--rest-url", venue.rest_url, "--tf", "1m", "--no-trades", cwd=tmp_path
    )
    assert done.code == 0  # the stored candle itself is still right


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume", "quote_volume", "trades"])
async def test_a_changed_candle_is_named_with_its_field(tmp_path: Path, venue: SimVenue, field: str) -> None:
    await fill(tmp_path / "d", venue)
    column = f"{field}_lo" if "volume" in field else field
    where = "number = (SELECT number FROM instruments WHERE id = 'sim:BTCUSDT') AND tf = 1 AND complete = 1"
    open_time = one(tmp_path, f"SELECT open_time FROM candles WHERE {where} ORDER BY open_time LIMIT 1 OFFSET 20")
    changed(tmp_path, f"UPDATE candles SET {column} = {column} + 1 WHERE {where} AND open_time = {open_time}")
    done, found = await verify(tmp_path, venue, "--tf", "1m")
    assert done.code == 4
    (difference,) = found["differences"]
    assert (difference["tf"], difference["open_time"]) == ("1m", open_time // 1_000_000)
    assert (difference["field"], difference["of"]) == (field, "candle")
    assert difference["ours"] != difference["venue"]


async def test_a_missing_candle_is_a_mismatch(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    where = "number = (SELECT number FROM instruments WHERE id = 'sim:BTCUSDT') AND tf = 1 AND complete = 1"
    open_time = one(tmp_path, f"SELECT open_time FROM candles WHERE {where} ORDER BY open_time LIMIT 1 OFFSET 20")
    changed(tmp_path, f"DELETE FROM candles WHERE {where} AND open_time = {open_time}")
    done, found = await verify(tmp_path, venue, "--tf", "1m")
    assert done.code == 4
    assert [(each["open_time"], each["field"]) for each in found["differences"]] == [(open_time // 1_000_000, "bar")]
    assert found["timeframes"][0]["missing_here"] == 1


async def test_a_server_without_a_closed_bar_of_a_timeframe_is_verified_in_the_others(
    tmp_path: Path, venue: SimVenue
) -> None:
    await fill(tmp_path / "d", venue, prefix="binance")
    urls = {"TAPEWICK_BINANCE__REST_URL": venue.rest_url, "TAPEWICK_BINANCE__WS_URL": venue.ws_url}
    with Server("serve", "--source", "binance:BTCUSDT", "--port", "0", "--data", tmp_path / "d", **urls) as server:
        url = await asyncio.to_thread(server.ready)
        where = ("--url", url, "--rest-url", venue.rest_url)
        done = await tapewick(
            "verify", "binance:BTCUSDT", "--tf", "1s,1m,1M", "--last", "10m", *where, "--json", cwd=tmp_path
        )
    assert done.code == 0, done
    seconds, minutes, months = json.loads(done.out)["timeframes"]
    assert seconds["equal"] == seconds["compared"] > 0
    assert seconds["incomplete"] == 0
    assert (months["start"], months["end"]) == (None, None)
    assert minutes["equal"] == minutes["compared"] > 0
    assert months["compared"] == 0


async def test_a_server_with_a_trade_in_every_second_is_verified(tmp_path: Path) -> None:
    async with SimVenue(["BTCUSDT"], seed=7, rate=30, catch_up=40) as venue:
        await fill(tmp_path / "d", venue, prefix="binance")
        urls = {"TAPEWICK_BINANCE__REST_URL": venue.rest_url, "TAPEWICK_BINANCE__WS_URL": venue.ws_url}
        with Server("serve", "--source", "binance:BTCUSDT", "--port", "0", "--data", tmp_path / "d", **urls) as server:
            where = ("--url", await asyncio.to_thread(server.ready), "--rest-url", venue.rest_url)
            done = await tapewick("verify", "binance:BTCUSDT", "--tf", "1m", *where, "--json", cwd=tmp_path)
    assert done.code == 0, done
    assert json.loads(done.out)["timeframes"][0]["compared"] > 30


async def test_incomplete_candles_are_counted_apart(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue, lost=range(2000, 2003))
    done, found = await verify(tmp_path, venue, "--tf", "1m")
    before = found["timeframes"][0]["incomplete"]
    assert done.code == 0, done
    assert before >= 1
    done, found = await verify(tmp_path, venue, "--tf", "1m", "--strict")
    assert done.code == 4
    assert found["timeframes"][0]["incomplete"] == before
    assert {each["field"] for each in found["differences"]} >= {"trades", "volume"}


async def test_a_range_that_reaches_beyond_the_tape_lacks_bars(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    first = one(tmp_path, "SELECT min(open_time) // 1000000 FROM candles WHERE tf = 1")
    end = first + 10 * 60_000
    changed(tmp_path, f"DELETE FROM candles WHERE open_time < {(first + 5 * 60_000) * 1_000_000}")
    done, found = await verify(tmp_path, venue, "--tf", "1m", "--start", str(first), "--end", str(end), "--no-trades")
    assert done.code == 4
    assert found["timeframes"][0]["missing_here"] == 5
    done, found = await verify(tmp_path, venue, "--tf", "1m", "--no-trades")  # without: from our first one on
    assert done.code == 0


def test_people_get_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(parse("1m"), 0, 120 * 10**9, equal=1, differing=1)
    report.differences.append(Difference("1m", 60 * 10**9, "volume", "1", "2", "trades"))
    written: list[bytes] = []
    monkeypatch.setattr(command, "write", written.append)
    monkeypatch.setattr(command, "as_json", lambda args: False)

    class Arguments:
        instrument, color = "sim:BTCUSDT", "never"

    command._print(Arguments(), [report])  # type: ignore[arg-type]
    text = b"".join(written).decode()
    assert text.split("\n")[0].split() == (
        "tf from to compared equal differing missing here missing there incomplete here".split()
    )
    assert "1m 1970-01-01 00:01:00 volume: ours 1, venue 2 (sum of the stored trades)" in text
    assert text.endswith("sim:BTCUSDT: 1 mismatch\n")


async def test_errors_say_what_to_do(tmp_path: Path, venue: SimVenue) -> None:
    await fill(tmp_path / "d", venue)
    done, _ = await verify(tmp_path, venue, "--tf", "45m")
    assert (done.code, "no 45m bars" in done.err) == (2, True)
    for nothing in ("", " ", ","):
        done, _ = await verify(tmp_path, venue, "--tf", nothing)
        assert (done.code, "--tf names no timeframe: write it like" in done.err) == (2, True)
    done, _ = await verify(tmp_path, venue, id="sim:NOPE")
    assert (done.code, "no tape of 'sim:NOPE'" in done.err) == (2, True)
    done, _ = await verify(tmp_path, venue, "--last", "soon")
    assert (done.code, "no length of time" in done.err) == (2, True)
    done, _ = await verify(tmp_path, venue, "--start", "5", "--end", "3")
    assert done.code == 2
    done = await tapewick("verify", "kraken:XBTUSD", "--data", "d", cwd=tmp_path)
    assert (done.code, "--rest-url" in done.err) == (2, True)
    done = await tapewick("verify", "sim:BTCUSDT", "--data", "d", "--rest-url", "http://127.0.0.1:1", cwd=tmp_path)
    assert done.code == 3
    done, _ = await verify(tmp_path, venue, "--start", "2020-01-01", "--end", "2020-01-02")
    assert (done.code, "nothing was verified" in done.err) == (2, True)


def test_a_timeframe_without_a_closed_bar_is_not_called_equal(capsys: pytest.CaptureFixture[str]) -> None:
    class Arguments:
        instrument, color, json = "sim:X", "never", True

    reports = [Report(parse("1m"), 0, 60 * 10**9, equal=1), Report(parse("1M"), 0, 0)]
    row = command._row(reports[1])
    assert row[:3] == ("1M", "–", "nothing closed")
    assert "1970" not in "".join(row)
    command._print(Arguments(), reports)  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out)["timeframes"][1]["start"] is None
