"""Exports and tables over a real socket: every format, exact, in pages, bounded per address."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import httpx2
import pytest

from tapewick import export
from tapewick.gateways._asking import HEAVY_ROWS
from tapewick.model import TradeBatch
from tests.gateways.rig import BTC, T0, Rig, running

MS0 = T0 // 1_000_000
MINUTE_MS = 60_000


async def fetch(rig: Rig, path: str, status: int = 200, **headers: str) -> httpx2.Response:
    async with rig.http as client:
        answer = await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == status, answer.text
    return answer


async def export_rows(rig: Rig, path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await fetch(rig, path)).text.splitlines()]


async def test_trades_in_pages_equal_the_tape(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 700)
    await rig.tell(1, 3000)
    told = await rig.get(f"/v1/trades?instrument={BTC}&limit=3000")
    answer = await fetch(rig, f"/v1/export/trades?instrument={BTC}")
    assert [json.loads(line) for line in answer.text.splitlines()] == told["trades"]
    assert answer.headers["tapewick-position"] == told["position"]
    assert answer.headers["content-disposition"] == 'attachment; filename="sim-BTCUSDT-trades.jsonl"'
    ranged = await export_rows(rig, f"/v1/export/trades?instrument={BTC}&start={MS0 + 100_000}&end={MS0 + 200_000}")
    assert ranged == [row for row in told["trades"] if 100_000 <= row["ts_event"] - MS0 < 200_000]
    since = told["position"].partition(":")[0] + ":2990"
    assert await export_rows(rig, f"/v1/export/trades?instrument={BTC}&since={since}") == told["trades"][-10:]


async def test_what_comes_while_it_is_written_is_not_in_the_file(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 100)
    await rig.tell(1, 1000)
    made = await export.trades(rig.market, BTC)
    seqs: list[int] = []
    async for batch in made.pages:
        assert isinstance(batch, TradeBatch) and batch.seq is not None
        seqs += batch.seq.tolist()
        await rig.tell(1001 + len(seqs) * 10, 10)
    assert seqs == list(range(1, 1001))
    assert made.position.endswith(":1000")


@pytest.mark.parametrize("tf", ["1s", "1m", "1h"])
async def test_candles_in_pages_equal_the_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch, tf: str) -> None:
    monkeypatch.setattr(export, "PAGE", 7)
    monkeypatch.setattr(export, "SECONDS_PAGE", 60)
    await rig.tell(1, 3000)
    await rig.tell(50_000, 300)  # after a long silence
    told = await rig.get(f"/v1/candles?instrument={BTC}&tf={tf}&limit=5000")
    assert await export_rows(rig, f"/v1/export/candles?instrument={BTC}&tf={tf}") == told["candles"]
    window = f"start={MS0 + 120_000}&end={MS0 + 240_000}"
    part = await rig.get(f"/v1/candles?instrument={BTC}&tf={tf}&limit=5000&{window}")
    assert await export_rows(rig, f"/v1/export/candles?instrument={BTC}&tf={tf}&{window}") == part["candles"]


async def test_parquet_and_csv_hold_the_same_candles(rig: Rig, tmp_path: Path) -> None:
    await rig.tell(1, 3000)
    told = (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=5000"))["candles"]
    path = tmp_path / "candles.parquet"
    path.write_bytes((await fetch(rig, f"/v1/export/candles?instrument={BTC}&tf=1m&format=parquet")).content)
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT epoch_ns(open_time) // 1000000, close, pos FROM '{path}'").fetchall()
    assert [(at, format(close.normalize(), "f"), pos) for at, close, pos in rows] == [
        (row["open_time"], row["close"], row["pos"]) for row in told
    ]
    table = await fetch(rig, f"/v1/export/candles?instrument={BTC}&tf=1m&format=csv")
    assert table.headers["content-type"].startswith("text/csv")
    assert [row["quote_volume"] for row in csv.DictReader(io.StringIO(table.text))] == [
        row["quote_volume"] for row in told
    ]


async def test_an_arrow_stream_begins_and_ends_as_one(rig: Rig) -> None:
    await rig.tell(1, 100)
    answer = await fetch(rig, f"/v1/export/trades?instrument={BTC}&format=arrow")
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert answer.content[:4] == b"\xff\xff\xff\xff" and answer.content[-8:] == b"\xff\xff\xff\xff\0\0\0\0"


@pytest.mark.parametrize("name", ["trades", "candles"])
async def test_columns_and_csv_say_what_rows_say(rig: Rig, name: str) -> None:
    await rig.tell(1, 3000)
    path = f"/v1/{name}?instrument={BTC}&limit=20&start={MS0}" + ("&tf=1m" if name == "candles" else "")
    rows = await rig.get(path)
    columns = await rig.get(path + "&format=columns")
    assert {field: columns[field] for field in ("position", "data_age_ms")} == {
        field: rows[field] for field in ("position", "data_age_ms")
    }
    for i, row in enumerate(rows[name]):
        assert {field: columns[name][field][i] for field in row} == row
    assert {len(column) for column in columns[name].values()} == {len(rows[name])}
    answer = await fetch(rig, path + "&format=csv")
    table = list(csv.DictReader(io.StringIO(answer.text)))
    words = {True: "true", False: "false", None: ""}
    assert [{field: line[field] for field in row} for row, line in zip(rows[name], table, strict=True)] == [
        {
            field: words[value] if value is None or isinstance(value, bool) else str(value)
            for field, value in row.items()
        }
        for row in rows[name]
    ]
    assert answer.headers["tapewick-position"] == rows["position"]
    if rows["next"]:
        assert answer.headers["link"].startswith("</v1/trades?") and "format=csv" in answer.headers["link"]


async def test_a_closed_range_has_a_tag_until_it_is_revised(rig: Rig) -> None:
    await rig.tell(1, 600)
    await rig.tell(700, 5000)  # ids 601 to 699 are missing
    path = f"/v1/candles?instrument={BTC}&tf=1m&start={MS0}&end={MS0 + 3 * MINUTE_MS}"
    first = await fetch(rig, path)
    tag = first.headers["etag"]
    assert tag.startswith('W/"') and first.headers["cache-control"] == "no-cache"
    assert (await fetch(rig, path, 304, if_none_match=tag)).content == b""
    assert (await fetch(rig, path, 304, if_none_match=f'"other", {tag}')).headers["etag"] == tag
    await rig.tell(5701, 100)  # the tape goes on: what has passed is the same
    rig.clock.advance(1_000_000_000)
    await fetch(rig, path, 304, if_none_match=tag)
    await rig.tell(601, 99, late=True)
    revised = await fetch(rig, path, 200, if_none_match=tag)
    assert revised.headers["etag"] != tag
    assert revised.json()["candles"][1]["rev"] > first.json()["candles"][1]["rev"]


async def test_what_can_still_grow_has_no_tag(rig: Rig) -> None:
    await rig.tell(1, 3000)
    for window in ("", f"&start={MS0}", f"&start={MS0}&end={MS0 + 86_400_000}"):
        answer = await fetch(rig, f"/v1/candles?instrument={BTC}&tf=1m{window}")
        assert "etag" not in answer.headers and answer.headers["cache-control"] == "no-store"


async def test_price_as_of_a_time(rig: Rig) -> None:
    await rig.tell(1, 600)
    await rig.tell(700, 3000)
    trades = {t["trade_id"]: t for t in (await rig.get(f"/v1/trades?instrument={BTC}&limit=4000"))["trades"]}
    at = trades[50]["ts_event"] + 50
    told = await rig.get(f"/v1/price/{quote(BTC, safe='')}?at={at}")
    assert (told["price"], told["trade_id"], told["age_ms"]) == (trades[50]["price"], 50, 50)
    assert told["complete"] is True
    in_gap = await rig.get(f"/v1/price/{BTC}?at={MS0 + 65_000}")
    assert (in_gap["trade_id"], in_gap["complete"]) == (600, False)
    now = await rig.get(f"/v1/price/{BTC}")
    assert (now["trade_id"], now["complete"]) == (3699, None)
    assert "no trade at or before" in (await rig.get(f"/v1/price/{BTC}?at={MS0}", 404))["detail"]


async def test_costly_requests_of_one_address_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path, heavy_requests=1) as rig:
        await rig.tell(1, 100)
        slot = rig.gateway.quota.slot("127.0.0.1")
        for path in ("/v1/export/trades?", "/v1/export/candles?tf=1m&", f"/v1/trades?limit={HEAVY_ROWS}&"):
            answer = await fetch(rig, f"{path}instrument={BTC}", 429)
            assert answer.headers["retry-after"] == "2"
            assert "server.heavy_requests" in answer.json()["detail"]
        await fetch(rig, f"/v1/trades?limit=10&instrument={BTC}")
        slot.end()
        for _ in range(3):  # each gives its place back
            await fetch(rig, f"/v1/export/trades?instrument={BTC}")
        await fetch(rig, "/v1/export/trades?instrument=no:such", 404)
        assert not rig.gateway.quota.busy


async def test_a_reader_that_leaves_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 10)
    async with running(tmp_path, heavy_requests=1) as rig:
        await rig.tell(1, 5000)
        async with rig.http as client, client.stream("GET", f"/v1/export/trades?instrument={BTC}") as answer:
            async for _ in answer.aiter_raw():
                break
        while rig.gateway.quota.busy:
            await rig.get(f"/v1/trades?instrument={BTC}&limit=1")
        await fetch(rig, f"/v1/export/trades?instrument={BTC}")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/export/trades?instrument=nosuch", "instrument"),
        (f"/v1/export/trades?instrument={BTC}&format=xls", "format"),
        (f"/v1/export/trades?instrument={BTC}&since=other:5", "since"),
        (f"/v1/export/candles?instrument={BTC}&tf=7m", "tf"),
        (f"/v1/export/candles?instrument={BTC}", "tf"),
        (f"/v1/export/candles?instrument={BTC}&tf=1m&start=5&end=5", "end"),
        (f"/v1/export/candles?instrument={BTC}&tf=1m&limit=5", "limit"),
        (f"/v1/candles?instrument={BTC}&tf=1m&format=arrow", "format"),
        (f"/v1/candles?instrument={BTC}&tf=1m&format=csv&indicators=sma3", "indicators"),
        (f"/v1/price/{BTC}?at=yesterday", "at"),
    ],
)
async def test_bad_requests_name_their_field(rig: Rig, path: str, field: str) -> None:
    await rig.tell(1, 10)
    assert (await rig.get(path, 400))["field"] == field
