"""``repair --force``: stored trades are compared with the venue's again, and lost ones come back once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from tapewick.sim.market import Market
from tests.commands.test_mending import BTC, batch, fill, run, still

pytestmark = pytest.mark.timeout(180)

LAST = 3000
VALUES = (
    "tf, open_time, open, high, low, close, volume_lo, volume_hi, quote_volume_lo, quote_volume_hi, "
    "taker_buy_volume_lo, taker_buy_quote_volume_lo, trades, "
    "first_id, last_id, first_ts, last_ts, first_key, state, complete"
)
LOST = (1, 700, 999, 1000, 1001, 1500, 2999)


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(folder / "tape.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def candles(folder: Path) -> list[tuple[object, ...]]:
    return rows(folder, f"SELECT {VALUES} FROM candle_rows ORDER BY tf, open_time")


def trades(folder: Path) -> list[tuple[object, ...]]:
    return rows(folder, "SELECT trade_id, ts_event, price, size, side FROM trades ORDER BY trade_id")


def deleted(folder: Path, where: str) -> None:
    with duckdb.connect(str(folder / "tape.duckdb")) as connection:
        connection.execute(f"DELETE FROM trades WHERE {where}")


def span(market: Market) -> tuple[str, ...]:
    return "--from", str(market.time_of(1)), "--to", str(market.time_of(LAST) + 1), "--force", "--json"


async def test_deleted_trades_come_back_once_and_candles_keep_their_values(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        await fill(tmp_path, batch(market, 1, LAST))
        before, whole = candles(tmp_path), trades(tmp_path)
        revisions = set(rows(tmp_path, "SELECT open_time, rev FROM candle_rows WHERE tf = 1"))
        deleted(tmp_path, f"trade_id IN {LOST}")
        [told], _ = await run(venue, "repair", BTC, "--data", tmp_path, *span(market))
        assert (told["compared"], told["restored"], told["differing"], told["refused"]) == (LAST, len(LOST), 0, 0)
        assert trades(tmp_path) == whole
        assert candles(tmp_path) == before
        restored = rows(tmp_path, f"SELECT trade_id, seq, late FROM trades WHERE seq > {LAST} ORDER BY seq")
        assert restored == [(id, LAST + 1 + i, True) for i, id in enumerate(LOST)]
        assert told["position"].endswith(f":{LAST + len(LOST)}")
        changed = set(rows(tmp_path, "SELECT open_time, rev FROM candle_rows WHERE tf = 1")) - revisions
        closed = rows(
            tmp_path, f"SELECT count(DISTINCT ts_event // 60000000000) FROM trades WHERE trade_id IN {LOST[:6]}"
        )
        assert len(changed) == closed[0][0]  # the last one's minute is open
        [told], _ = await run(venue, "repair", BTC, "--data", tmp_path, *span(market))
        assert (told["compared"], told["restored"]) == (LAST, 0)
        [ledger], _ = await run(venue, "coverage", BTC, "--data", tmp_path, "--json")
        assert ledger["ranges"] == [[1, LAST]] and ledger["gaps"] == []


async def test_trades_the_candles_never_counted_are_folded_in(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        all = batch(market, 1, LAST)
        await fill(tmp_path / "whole", all)
        kept = all.select((~(all.trade_id % 700 == 0)).nonzero()[0])
        await fill(tmp_path / "d", replace(kept, covers=((1, LAST),)))
        assert candles(tmp_path / "d") != candles(tmp_path / "whole")
        [told], _ = await run(venue, "repair", BTC, "--data", tmp_path / "d", *span(market))
        assert (told["restored"], told["refused"]) == (LAST // 700, 0)
        assert trades(tmp_path / "d") == trades(tmp_path / "whole")
        assert candles(tmp_path / "d") == candles(tmp_path / "whole")


async def test_what_cannot_be_put_back_is_counted_and_left_alone(tmp_path: Path) -> None:
    async with still() as venue:
        market = venue.markets()["BTCUSDT"]
        await fill(tmp_path, batch(market, 1, LAST))
        deleted(tmp_path, "trade_id = 700")
        with duckdb.connect(str(tmp_path / "tape.duckdb")) as connection:
            connection.execute("UPDATE trades SET size = size + 1 WHERE trade_id = 900")
            minute = market.time_of(700) // 60_000 * 60_000_000_000
            connection.execute(f"UPDATE candles SET trades = trades + 5 WHERE tf = 1 AND open_time = {minute}")
        before = candles(tmp_path), trades(tmp_path)
        [told], _ = await run(venue, "repair", BTC, "--data", tmp_path, *span(market), code=4)
        assert (told["restored"], told["differing"], told["refused"]) == (0, 1, 1)
        assert (candles(tmp_path), trades(tmp_path)) == before


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--force",), "--from and --to"),
        (("--from", "2026-01-01"), "for --force"),
        (("--from", "5", "--to", "5", "--force"), "after --from"),
        (("--from", "1", "--to", "2", "--force", "--url", "http://127.0.0.1:1"), "stop the server"),
    ],
)
async def test_a_command_that_says_too_little_names_what_lacks(
    tmp_path: Path, given: tuple[str, ...], says: str
) -> None:
    async with still() as venue:
        where = () if "--url" in given else ("--data", tmp_path)
        _, said = await run(venue, "repair", BTC, *where, *given, code=2)
        assert says in said
