"""The client against a real read side: history as tables, refusals as errors, tokens, files."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick.client import Book, Client, Notice, Rows
from tapewick.errors import BadRequest, ConfigError, MissingExtra, ModelError, NotFound, SourceError, Unauthorized
from tapewick.timeframe import SECOND
from tests.booking import Run, Truth
from tests.conformance.tls import certificate
from tests.gateways.rig import BTC, ETH, STEP, T0, Rig, running

TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"
TOKEN = "long-enough-for-a-token-of-a-test"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "data", ids=(BTC, ETH)) as made:
        yield made


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[Client]:
    async with Client(rig.gateway.url) as made:
        yield made


async def test_candles_are_exact_columns(rig: Rig, client: Client) -> None:
    await rig.tell(1, 1500)
    told = (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=100"))["candles"]
    table = await client.candles(BTC, "1m")
    assert len(table) == len(told) == 3
    assert table["open_time"].tolist() == [row["open_time"] * 1_000_000 for row in told]
    assert table["open_time"].dtype == np.dtype("datetime64[ns]") and table["trades"].dtype == np.int64
    for name in ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_quote_volume", "vwap"):
        assert [str(value) for value in table[name]] == [str(Decimal(row[name])) for row in told]
        exact = [Decimal(int(value)).scaleb(-table.scale(name)) for value in table.mantissas(name)]
        assert exact == [Decimal(row[name]) for row in told]
        assert table.floats(name).tolist() == [float(row[name]) for row in told]
    assert (table.scale("close"), table.scale("volume"), table.scale("quote_volume")) == (2, 3, 5)
    assert table["complete"].tolist() == [row["complete"] for row in told]
    assert table.position == (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m"))["position"]


async def test_rows_are_those_asked_for_across_pages(rig: Rig, client: Client) -> None:
    await rig.tell(1, 2600)
    everything = await client.trades(BTC, limit=0)
    assert everything["seq"].tolist() == list(range(1, 2601)) and everything.position.endswith(":2600")
    assert (await client.trades(BTC, limit=1300))["seq"].tolist() == list(range(1301, 2601))
    assert (await client.trades(BTC, since=5, limit=1200))["seq"].tolist() == list(range(6, 1206))
    assert (await client.trades(BTC, start=T0 + 2590 * STEP, limit=0))["seq"].tolist() == list(range(2590, 2601))
    assert not len(await client.trades(ETH)) and not len(await client.candles(ETH, "1h"))
    seconds = await client.candles(BTC, "1s", limit=0)
    assert np.diff(seconds["open_time"].astype(np.int64)).tolist() == [SECOND] * (len(seconds) - 1)
    assert (await client.candles(BTC, "1s", limit=250)).rows == seconds.rows[-250:]
    assert (await client.candles(BTC, "1s", start=T0, limit=100)).rows == seconds.rows[:100]


@pytest.mark.parametrize(
    "start", [T0 + 60 * SECOND, "2024-08-09T00:01Z", "2024-08-09T00:01", dt.datetime(2024, 8, 9, 0, 1, tzinfo=dt.UTC)]
)
async def test_a_moment_may_be_written_in_any_usual_way(rig: Rig, client: Client, start: Any) -> None:
    await rig.tell(1, 1500)
    table = await client.candles(BTC, "1m", start=start, limit=1)
    assert table.rows[0].open_time == T0 + 60 * SECOND
    with pytest.raises(BadRequest, match="is no time: write it like"):
        await client.candles(BTC, "1m", start="yesterday")


async def test_single_answers_are_typed(rig: Rig, client: Client) -> None:
    await rig.tell(1, 700)
    assert [one.id for one in await client.instruments()] == [ETH, BTC]
    ticker, price = await client.ticker(BTC), await client.price(BTC, T0 + 10 * STEP)
    assert ticker.last == Decimal(10_000 + 700 * 37 % 500).scaleb(-2)
    assert (price.trade_id, price.ts_event) == (10, T0 + 10 * STEP) and isinstance(price.price, Decimal)
    assert (await client.coverage(BTC))["ranges"] == [[1, 700]]
    run = Run(Truth(), "run", 3)
    await rig.bus.publish("books", run.whole())
    await rig.bus.settled("books")
    book = await client.book(BTC, levels=5)
    assert isinstance(book, Book) and book.last_update_id == 3 and len(book.bids) == 5
    assert all(isinstance(part, Decimal) for level in book.bids + book.asks for part in level)


async def test_files_are_whole_or_absent(rig: Rig, client: Client, tmp_path: Path) -> None:
    await rig.tell(1, 700)
    position = await client.save(BTC, tmp_path / "trades.jsonl")
    assert position.endswith(":700") and len((tmp_path / "trades.jsonl").read_text().splitlines()) == 700
    await client.save(BTC, tmp_path / "candles.csv", "1m")
    assert (tmp_path / "candles.csv").read_text().startswith("instrument,tf,open_time")
    with pytest.raises(ConfigError, match="jsonl, csv, arrow or parquet"):
        await client.save(BTC, tmp_path / "trades.xls")
    with pytest.raises(NotFound):
        await client.save("sim:NOPE", tmp_path / "none.csv")
    left = await asyncio.to_thread(lambda: sorted(path.name for path in tmp_path.glob("*.*")))
    assert left == ["candles.csv", "trades.jsonl"]


async def test_refusals_name_the_cause(rig: Rig, client: Client) -> None:
    with pytest.raises(NotFound, match="there are: chainlink:ETH/USD, sim:BTCUSDT"):
        await client.candles("sim:NOPE", "1m")
    with pytest.raises(BadRequest, match="no timeframe|timeframe"):
        await client.candles(BTC, "7m")
    with pytest.raises(ConfigError, match="write it like"):
        Client("127.0.0.1:8080")
    for rows in (client.trades(BTC, limit=-1), client.candles(BTC, "1m", limit=-1)):
        with pytest.raises(BadRequest, match="limit must be >= 0"):
            await rows
    for at in (client.price(BTC, T0 // 10**6), client.candles(BTC, "1m", start=T0 // 10**6)):
        with pytest.raises(BadRequest, match="ns expected; this looks like ms"):
            await at
    with pytest.raises(BadRequest, match="looks like ms"):
        client.stream(TRADES, start=T0 // 10**6)
    with pytest.raises(BadRequest, match="unknown channel"):
        client.stream("trades@sim:BTCUSDT")
    with pytest.raises(BadRequest, match="none of these channels has an option levels"):
        client.stream(TRADES, levels=5)
    async with client.stream("trade@sim:NOPE") as stream:
        with pytest.raises(NotFound):
            await anext(stream)
    table = await client.trades(BTC)
    with pytest.raises(ModelError, match="no column 'prize'; there are: instrument"):
        table["prize"]


async def test_no_server_is_told_at_once() -> None:
    async with Client("http://127.0.0.1:9") as client:
        with pytest.raises(SourceError, match="is a server running there"):
            await client.instruments()
        async with client.stream(TRADES) as stream:
            with pytest.raises(SourceError, match="cannot be reached"):
                await anext(stream)


async def test_a_server_with_tokens_takes_the_right_one_only(tmp_path: Path) -> None:
    async with running(tmp_path / "data", ids=(BTC,), tokens=[TOKEN]) as rig:
        await rig.tell(1, 10)
        async with Client(rig.gateway.url, token=TOKEN) as client:
            assert len(await client.trades(BTC)) == 10
            async with client.stream(TRADES) as stream:
                item = await anext(stream)
                assert isinstance(item, Rows) and len(item) == 10
        for wrong in (None, TOKEN[::-1]):
            async with Client(rig.gateway.url, token=wrong) as client:
                with pytest.raises(Unauthorized, match="token"):
                    await client.instruments()
                async with client.stream(TRADES) as stream:
                    with pytest.raises(Unauthorized, match="token"):
                        await anext(stream)


async def test_a_server_behind_tls_is_trusted_by_its_authority_only(tmp_path: Path) -> None:
    made = await asyncio.to_thread(certificate, tmp_path)
    async with running(tmp_path / "data", ids=(BTC,), tls_cert=str(made.cert), tls_key=str(made.key)) as rig:
        await rig.tell(1, 10)
        assert rig.gateway.url.startswith("https://")
        for tls in (made.authority, ssl.create_default_context(cafile=made.authority)):
            async with Client(rig.gateway.url, tls=tls) as client, client.stream(TRADES) as stream:
                assert len(await client.trades(BTC)) == 10
                assert isinstance(await anext(stream), Rows)
        async with Client(rig.gateway.url) as client, client.stream(TRADES) as stream:
            with pytest.raises(SourceError, match="(?i)certificate"):
                await client.instruments()
            with pytest.raises(SourceError, match="(?i)certificate|cannot be reached"):
                await anext(stream)


async def test_other_kinds_of_channels_are_typed_too(rig: Rig, client: Client) -> None:
    await rig.tell(1, 700)
    run = Run(Truth(), "run", 3)
    await rig.bus.publish("books", run.whole())
    await rig.bus.settled("books")
    kinds: dict[str, str] = {}
    names = [f"{kind}@{BTC}" for kind in ("ticker", "bbo", "book", "book_top")]
    async with client.stream(*names, CANDLES, levels=5) as stream:
        async with asyncio.timeout(20):
            async for item in stream:
                assert isinstance(item, Rows | Notice)
                if isinstance(item, Rows):
                    kinds.update((item.channel, type(row).__name__) for row in item)
                if len(kinds) == 5:
                    break
    assert set(kinds.values()) == {"Ticker", "Quote", "dict", "Book", "Candle"}


async def test_frames_need_their_library(rig: Rig, client: Client) -> None:
    table = await client.trades(BTC)
    for make, extra in ((table.to_polars, "polars"), (table.to_pandas, "pandas"), (table.to_arrow, "arrow")):
        library = {"arrow": "pyarrow"}.get(extra, extra)
        with pytest.raises(MissingExtra, match=rf"pip install {library}, .*pip install 'tapewick\[{extra}\]'"):
            make()
    with pytest.raises(MissingExtra, match="polars"):
        table.frame()
    with pytest.raises(ConfigError, match="'exact' or 'float'"):
        table.to_numpy(decimals="double")  # type: ignore[arg-type]
