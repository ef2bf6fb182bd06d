"""``tapewick import`` of archives: fetched, verified, imported once, imported again when published anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.tapes import Done, tapewick
from tests.sources.archive_server import ArchiveServer, zipped

DAY = 1_700_006_400_000  # ms, 2023-11-15
TRADES = "data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2023-11-{day}.zip"
KLINES = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-11-15.zip"


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        yield server


def trades(first: int, last: int, *, day: int = 15, step: int = 1000) -> str:
    start = DAY + (day - 15) * 86_400_000
    return "".join(
        f"{id},100.{id % 90 + 10},0.5,50.0,{start + (id - first) * step},{'True' if id % 3 else 'False'},True\n"
        for id in range(first, last + 1)
    )


def bars(count: int, *, volume: str = "2.5") -> str:
    return "".join(
        f"{DAY + n * 60_000},100.1,100.9,99.5,100.3,{volume},{DAY + n * 60_000 + 59_999},250.75,7,1.5,150.45,0\n"
        for n in range(count)
    )


async def run(folder: Path, server: ArchiveServer, *args: str, code: int = 0) -> tuple[dict[str, Any], Done]:
    done = await tapewick("import", *args, "--base", server.url, "--data", "d", "--json", cwd=folder)
    assert done.code == code, done
    return (json.loads(done.out) if done.out else {}), done


async def rows(folder: Path, *args: str) -> list[dict[str, Any]]:
    done = await tapewick(*args, "--data", "d", "--limit", "0", "--json", cwd=folder)
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


async def test_days_of_trades_are_fetched_and_kept(tmp_path: Path, server: ArchiveServer) -> None:
    server.publish(TRADES.format(day=15), trades(1, 300))
    server.publish(TRADES.format(day=16), trades(301, 500, day=16))
    asked = ("--archive", "BTCUSDT", "--from", "2023-11-15", "--to", "2023-11-16")
    found, _ = await run(tmp_path, server, *asked)
    assert (found["trades"], found["duplicates"], found["gaps"]) == (500, 0, 0)
    assert [each["outcome"] for each in found["files"]] == ["imported", "imported"]
    assert [row["trade_id"] for row in await rows(tmp_path, "trades", "binance:BTCUSDT")] == list(range(1, 501))
    done = await tapewick("coverage", "binance:BTCUSDT", "--data", "d", "--json", cwd=tmp_path)
    assert json.loads(done.out)["ranges"] == [[1, 500]]
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["imports.jsonl", "tape.duckdb"]

    found, _ = await run(tmp_path, server, *asked)  # again: nothing is even fetched
    assert [each["outcome"] for each in found["files"]] == ["same", "same"]
    assert server.asked["/" + TRADES.format(day=15)] == 1
    found, _ = await run(tmp_path, server, *asked, "--force")
    assert (found["trades"], found["duplicates"]) == (0, 500)
    found, _ = await run(tmp_path, server, *asked, "--check")
    assert [each["outcome"] for each in found["files"]] == ["same", "same"]


async def test_what_is_published_anew_is_imported_again(tmp_path: Path, server: ArchiveServer) -> None:
    server.publish(KLINES, bars(120))
    asked = ("--archive", "binance:BTCUSDT", "--kind", "klines", "--tf", "1m", "--from", "2023-11-15")
    found, _ = await run(tmp_path, server, *asked)
    assert found["bars"] == 120
    before = await rows(tmp_path, "candles", "binance:BTCUSDT", "1m")
    assert {(row["origin"], row["complete"], row["volume"]) for row in before} == {("import", None, "2.5")}
    hours = await rows(tmp_path, "candles", "binance:BTCUSDT", "1h")
    assert [row["trades"] for row in hours] == [420, 420]

    server.publish(KLINES, bars(120, volume="3.5"))
    found, _ = await run(tmp_path, server, *asked, "--check", code=4)
    assert [each["outcome"] for each in found["files"]] == ["changed"]
    assert {row["volume"] for row in await rows(tmp_path, "candles", "binance:BTCUSDT", "1m")} == {"2.5"}
    found, _ = await run(tmp_path, server, *asked)
    assert found["bars"] == 120
    assert {row["volume"] for row in await rows(tmp_path, "candles", "binance:BTCUSDT", "1m")} == {"3.5"}
    found, _ = await run(tmp_path, server, *asked, "--check")
    assert [each["outcome"] for each in found["files"]] == ["same"]


async def test_a_wrong_checksum_stores_nothing(tmp_path: Path, server: ArchiveServer) -> None:
    server.publish(TRADES.format(day=15), trades(1, 300), sha256="f" * 64)
    server.publish(KLINES, bars(5), sha256="f" * 64)
    for kind in (("--kind", "trades"), ("--kind", "klines", "--tf", "1m")):
        found, done = await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11-15", *kind, code=2)
        assert "was published for it" in done.err
        assert [each["outcome"] for each in found["files"]] == ["refused"]
    assert not (tmp_path / "d" / "imports.jsonl").exists()
    done = await tapewick("candles", "binance:BTCUSDT", "1m", "--data", "d", "--json", cwd=tmp_path)
    assert done.code != 0 or not done.out


async def test_a_month_that_is_not_published_comes_by_the_day(tmp_path: Path, server: ArchiveServer) -> None:
    for day in range(1, 31):
        server.publish(TRADES.format(day=f"{day:02}"), trades(day * 10, day * 10 + 9, day=day))
    found, _ = await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11")
    assert found["trades"] == 300
    assert server.asked["/data/spot/monthly/trades/BTCUSDT/BTCUSDT-trades-2023-11.zip.CHECKSUM"] == 1
    del server.files["/" + TRADES.format(day="07") + ".CHECKSUM"]
    found, done = await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11", code=3)
    assert "2023-11-07.zip is not published" in done.err
    assert [each["outcome"] for each in found["files"]].count("same") == 29


async def test_local_files_and_addresses(tmp_path: Path, server: ArchiveServer) -> None:
    path = tmp_path / "BTCUSDT-trades-2023-11-15.zip"
    path.write_bytes(zipped(trades(1, 50)))
    server.publish(TRADES.format(day=16), trades(51, 80, day=16))
    done = await tapewick("import", path.name, "--data", "d", cwd=tmp_path)
    assert (done.code, "add --instrument binance:BTCUSDT" in done.err) == (2, True)
    found, _ = await run(tmp_path, server, path.name, "--instrument", "binance:BTCUSDT")
    assert found["trades"] == 50
    found, _ = await run(tmp_path, server, f"{server.url}/{TRADES.format(day=16)}")
    assert found["trades"] == 30
    found, _ = await run(tmp_path, server, path.name, "--instrument", "binance:BTCUSDT")
    assert [each["outcome"] for each in found["files"]] == ["same"]
    done = await tapewick(  # the declared formats read zips as they are
        "import", path.name, "--format", "binance-trades-csv", "--instrument", "binance:XYZ", "--data", "d", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.code, json.loads(done.out)["trades"]) == (0, 50)


async def test_a_file_with_rows_of_another_day_is_refused_and_named(tmp_path: Path, server: ArchiveServer) -> None:
    server.publish(TRADES.format(day=14), trades(301, 500, day=15))
    server.publish(TRADES.format(day=15), trades(1, 300))
    asked = ("--archive", "BTCUSDT", "--from", "2023-11-14", "--to", "2023-11-15")
    found, done = await run(tmp_path, server, *asked, code=2)
    assert "BTCUSDT-trades-2023-11-14.zip: it holds rows of 2023-11-15" in done.err
    assert [each["outcome"] for each in found["files"]] == ["damaged", "imported"]
    assert [row["trade_id"] for row in await rows(tmp_path, "trades", "binance:BTCUSDT")] == list(range(1, 301))
    server.publish(KLINES.replace("-15.zip", "-16.zip"), bars(120))
    bars_of = ("--archive", "BTCUSDT", "--kind", "klines", "--tf", "1m", "--from", "2023-11-16")
    found, done = await run(tmp_path, server, *bars_of, code=2)
    assert "BTCUSDT-1m-2023-11-16.zip: it holds rows of 2023-11-15" in done.err
    assert [each["outcome"] for each in found["files"]] == ["damaged"]
    server.publish("data/spot/monthly/trades/BTCUSDT/BTCUSDT-trades-2023-11.zip", trades(301, 400, day=30))
    found, _ = await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11")
    assert [each["outcome"] for each in found["files"]] == ["imported"]


async def test_gaps_are_those_of_what_was_imported(tmp_path: Path, server: ArchiveServer) -> None:
    server.publish(TRADES.format(day=15), trades(1, 50))
    server.publish(TRADES.format(day=16), trades(61, 80, day=16))
    for other in ("15", "16"):
        server.publish(TRADES.format(day=other).replace("BTCUSDT", "ETHUSDT"), trades(1, 50, day=int(other)))
    found, _ = await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11-15", "--to", "2023-11-16")
    assert found["gaps"] == 1
    found, _ = await run(tmp_path, server, "--archive", "ETHUSDT", "--from", "2023-11-15")
    assert found["gaps"] == 0


async def test_a_lost_tape_is_filled_again(tmp_path: Path, server: ArchiveServer) -> None:
    server.publish(TRADES.format(day=15), trades(1, 50))
    await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11-15")
    (tmp_path / "d" / "tape.duckdb").unlink()
    found, _ = await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11-15")
    assert found["trades"] == 50


async def test_a_tape_keeps_its_granularity(tmp_path: Path, server: ArchiveServer) -> None:
    server.publish(TRADES.format(day=15), trades(1, 50))
    await run(tmp_path, server, "--archive", "BTCUSDT", "--from", "2023-11-15")
    _, done = await run(tmp_path, server, "--archive", "BTCUSDT", "--kind", "aggTrades", "--from", "2023-11-15", code=2)
    assert "--kind trades" in done.err


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ((), "nothing to import"),
        (("--archive", "BTCUSDT"), "needs --from"),
        (("--archive", "BTCUSDT", "--from", "yesterday"), "is no date"),
        (("--archive", "BTCUSDT", "--from", "2023-11-15", "--to", "2023-11-14"), "must not lie before"),
        (("--archive", "BTCUSDT", "--from", "2023-11-15", "--kind", "klines"), "--tf goes with"),
        (("--archive", "BTCUSDT", "--from", "2023-11-15", "--tf", "1m"), "--tf goes with"),
        (("--archive", "BTCUSDT", "--from", "2023-11-15", "x.zip"), "name files or --archive"),
        (("absent.zip",), "is no file"),
    ],
)
async def test_errors_say_what_to_do(
    tmp_path: Path, server: ArchiveServer, args: tuple[str, ...], problem: str
) -> None:
    _, done = await run(tmp_path, server, *args, code=2)
    assert problem in done.err
    assert not (tmp_path / "d").exists()
