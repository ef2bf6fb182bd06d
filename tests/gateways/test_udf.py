"""TradingView's UDF, over a real socket: shapes, aligned and exclusive ranges, countback, supersets, marks."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from asyncio import to_thread
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tapewick.gateways import _docs
from tapewick.gateways._udf_symbols import RESOLUTIONS
from tapewick.timeframe import BY_NAME, SECOND, bucket
from tests.gateways.rig import BTC, ETH, T0, Rig, running

S0 = T0 // SECOND
NODE = shutil.which("node")
TOKEN = "tok_0123456789abcdef"
needs_node = pytest.mark.skipif(NODE is None, reason="not run: Node is not installed")


async def bars(rig: Rig, resolution: str, to: int, **asked: int) -> dict[str, Any]:
    params = "".join(f"&{name.rstrip('_')}={value}" for name, value in asked.items())
    told: dict[str, Any] = await rig.get(f"/udf/history?symbol={BTC}&resolution={resolution}&to={to}{params}")
    return told


async def test_config_offers_what_is_served(rig: Rig) -> None:
    told = await rig.get("/udf/config")
    assert told["supports_search"] is True and told["supports_group_request"] is False
    assert told["supported_resolutions"] == [
        "1S", "1", "3", "5", "15", "30", "45", "60", "120", "180", "240", "360", "480", "720", "1D", "3D", "1W", "1M",
    ]  # fmt: skip
    assert [one["value"] for one in told["exchanges"]] == ["", "chainlink", "sim"]
    await rig.tell(1, 10)
    for resolution in told["supported_resolutions"]:
        assert (await bars(rig, resolution, S0 + 60, countback=1))["s"] == "ok"


async def test_symbols_by_every_name(rig: Rig) -> None:
    by_id = await rig.get(f"/udf/symbols?symbol={BTC}")
    assert by_id == await rig.get("/udf/symbols?symbol=SIM:BTCUSDT") == await rig.get("/udf/symbols?symbol=BTCUSDT")
    assert (by_id["name"], by_id["ticker"], by_id["full_name"]) == ("BTCUSDT", BTC, "SIM:BTCUSDT")
    assert (by_id["pricescale"], by_id["volume_precision"], by_id["minmov"]) == (100, 3, 1)
    oracle = await rig.get("/udf/symbols?symbol=CHAINLINK:ETH/USD")
    assert (oracle["ticker"], oracle["visible_plots_set"]) == (ETH, "ohlc")
    assert await rig.get("/udf/symbols?symbol=NOPE", 404) == {"s": "error", "errmsg": "unknown_symbol"}
    info = await rig.get("/udf/symbol_info?group=sim")
    assert info["symbol"] == ["BTCUSDT"] and info["pricescale"] == [100]
    assert (await rig.get("/udf/symbol_info?group=mars", 404))["s"] == "error"


async def test_search(rig: Rig) -> None:
    assert [one["ticker"] for one in await rig.get("/udf/search?query=usd")] == [BTC, ETH]
    assert [one["ticker"] for one in await rig.get("/udf/search?query=eth&exchange=CHAINLINK&type=")] == [ETH]
    assert await rig.get("/udf/search?query=usd&exchange=SIM&limit=1") == [
        {
            "symbol": "BTCUSDT", "full_name": "SIM:BTCUSDT", "description": "BTCUSDT", "exchange": "SIM",
            "ticker": BTC, "type": "crypto",
        }
    ]  # fmt: skip
    assert await rig.get("/udf/search?query=%27%3B--%00") == []


async def test_history_holds_the_candles(rig: Rig) -> None:
    await rig.tell(1, 3000)
    for resolution in ("1S", "1", "5", "60", "1D"):
        rows = (await rig.get(f"/v1/candles?instrument={BTC}&tf={RESOLUTIONS[resolution]}&limit=1000"))["candles"]
        told = await bars(rig, resolution, S0 + 86_400, countback=1000)
        assert told["t"] == [row["open_time"] // 1000 for row in rows]
        for short, name in (("o", "open"), ("h", "high"), ("l", "low"), ("c", "close"), ("v", "volume")):
            assert told[short] == [float(row[name]) for row in rows]


async def test_ranges_are_aligned_exclusive_and_nested(rig: Rig) -> None:
    await rig.tell(1, 3000)
    await rig.tell(3001, 1)
    await rig.tell(9000, 3000)  # a hole between
    chance = random.Random(7)
    for _ in range(40):
        resolution = chance.choice(["1S", "1", "3", "15"])
        tf = BY_NAME[RESOLUTIONS[resolution]]
        start, end = sorted(chance.sample(range(S0 - 300, S0 + 1500), 2))
        inner = await bars(rig, resolution, end, from_=start)
        outer = await bars(rig, resolution, end + chance.randrange(200), from_=start - chance.randrange(200))
        for told in (inner, outer):
            assert told["s"] in ("ok", "no_data")
        times = inner.get("t", [])
        assert times == sorted(set(times)) and all(start <= time < end for time in times)
        assert all(bucket(tf, time * SECOND) == time * SECOND for time in times)
        wide = dict(zip(outer.get("t", []), zip(*(outer.get(k, []) for k in "ohlcv"), strict=True), strict=True))
        for at, *values in zip(times, *(inner.get(k, []) for k in "ohlcv"), strict=True):
            assert wide[at] == tuple(values)
        count = chance.randrange(1, 50)
        back = await bars(rig, resolution, end, from_=start, countback=count)
        every = await bars(rig, resolution, end, countback=10_000)
        assert back.get("t", []) == every.get("t", [])[-count:]


async def test_no_data_names_the_closest_older_bar(rig: Rig) -> None:
    await rig.tell(1, 600)
    await rig.tell(9000, 10)  # ids are missing between: nothing is invented there
    assert await bars(rig, "1", S0 + 600, from_=S0 + 300) == {"s": "no_data", "nextTime": S0 + 60}
    assert await bars(rig, "1", S0, from_=S0 - 600) == {"s": "no_data"}
    assert await bars(rig, "1", S0, countback=5) == {"s": "no_data"}
    assert await bars(rig, "1", S0 - 5, from_=S0) == {"s": "no_data"}


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        (f"history?symbol={BTC}&resolution=7&to={S0}&countback=1", 400, "bad_resolution"),
        (f"history?symbol=NOPE&resolution=1&to={S0}&countback=1", 404, "unknown_symbol"),
        (f"history?symbol={BTC}&resolution=1&to={S0}", 400, "countback"),
        (f"history?symbol={BTC}&resolution=1&to=soon&countback=1", 400, "to"),
        (f"history?symbol={BTC}&resolution=1&countback=1", 400, "to"),
        (f"history?symbol={BTC}&resolution=1&to={10**18}&countback=1", 400, "to"),
        ("quotes?symbols=" + ",".join(["A"] * 21), 400, "20"),
        (f"marks?symbol={BTC}&resolution=1&to={S0}", 400, "from"),
    ],
)
async def test_refusals_have_the_shape_of_udf(rig: Rig, path: str, status: int, told: str) -> None:
    answer = await rig.get(f"/udf/{path}", status)
    assert answer.keys() == {"s", "errmsg"} and answer["s"] == "error"
    assert told in answer["errmsg"]


async def test_marks_tell_of_gaps_and_revisions(rig: Rig) -> None:
    await rig.tell(1, 700)
    await rig.tell(800, 3000)
    marks = await rig.get(f"/udf/marks?symbol={BTC}&resolution=1&from={S0}&to={S0 + 86_400}")
    assert {len(column) for column in marks.values()} == {len(marks["id"])}
    assert S0 + 60 in [at for at, label in zip(marks["time"], marks["label"], strict=True) if label == "!"]
    [gap] = await rig.get(f"/udf/timescale_marks?symbol={BTC}&resolution=1&from={S0}&to={S0 + 86_400}")
    assert gap["time"] == S0 + 60 and gap["tooltip"][0] == "trades 701 to 799 are missing"
    await rig.tell(701, 99, late=True)
    marks = await rig.get(f"/udf/marks?symbol={BTC}&resolution=1&from={S0}&to={S0 + 86_400}")
    assert (S0 + 60, "R") in list(zip(marks["time"], marks["label"], strict=True))
    assert await rig.get(f"/udf/timescale_marks?symbol={BTC}&resolution=1&from={S0}&to={S0 + 86_400}") == []


async def test_quotes_and_time(rig: Rig) -> None:
    await rig.tell(1, 1000)
    ticker = await rig.get(f"/v1/ticker/{BTC}")
    told = await rig.get("/udf/quotes?symbols=SIM:BTCUSDT,NOPE")
    assert told["s"] == "ok" and told["d"][1] == {"s": "error", "n": "NOPE", "v": {}}
    quote = told["d"][0]
    assert (quote["n"], quote["v"]["lp"]) == ("SIM:BTCUSDT", float(ticker["last"]))
    assert quote["v"]["volume"] == float(ticker["volume_24h"])
    async with rig.http as client:
        time = await client.get("/udf/time")
    assert time.headers["content-type"].startswith("text/plain")
    assert int(time.text) == rig.clock.now() // SECOND


Told = Callable[[str], Awaitable[Any]]


@asynccontextmanager
async def charting(folder: Path, url: str, **options: str) -> AsyncIterator[Told]:
    """A chart in Node with the datafeed; waits for the next event of a kind and gives its value."""
    (folder / "datafeed.mjs").write_bytes(_docs.DATAFEED)
    script = folder / "chart.mjs"
    script.write_text(CHART)
    command = [NODE or "", "--experimental-websocket", "--no-warnings", str(script), url, BTC, json.dumps(options)]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=-1, stderr=-1, stdin=-1, text=True, bufsize=1)

    chart = await to_thread(start)
    assert chart.stdout is not None

    async def told(kind: str) -> Any:
        while True:
            line = await to_thread(chart.stdout.readline)  # type: ignore[union-attr]
            assert line, await to_thread(chart.stderr.read)  # type: ignore[union-attr]
            event = json.loads(line)
            if event["kind"] == kind:
                return event["value"]

    try:
        yield told
    finally:
        chart.kill()
        await to_thread(chart.communicate)


@needs_node
async def test_the_datafeed_tells_live_bars_and_when_its_past_changed(rig: Rig, tmp_path: Path) -> None:
    await rig.tell(1, 650)
    await rig.tell(700, 600)
    async with charting(tmp_path, rig.gateway.url) as told:
        symbol = await told("symbol")
        assert symbol["ticker"] == BTC
        past = await told("bars")
        assert [bar["time"] for bar in past] == [(S0 + 60 * i) * 1000 for i in range(3)]
        first = await told("tick")
        assert first["time"] == (S0 + 120) * 1000
        await rig.tell(1300, 600)
        while (tick := await told("tick"))["time"] < (S0 + 180) * 1000:
            pass
        rows = (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m"))["candles"]
        assert tick["open"] == float(next(r["open"] for r in rows if r["open_time"] == tick["time"]))
        await rig.tell(651, 49, late=True)
        assert (await told("reset"))["channel"] == f"candle@{BTC}@1m"


@needs_node
async def test_many_revised_bars_are_few_resets_and_a_token_lets_in(tmp_path: Path) -> None:
    async with running(tmp_path / "data", tokens=(TOKEN,)) as rig:
        await rig.tell(1, 10)
        for minute in range(12):  # each has a hole
            await rig.tell(600 * minute + 100, 500)
        async with charting(tmp_path, rig.gateway.url, token=TOKEN) as told:
            assert len(await told("bars")) == 12
            await told("tick")
            times = []
            for minutes in (range(1, 5), range(5, 10), range(10, 11)):
                for minute in minutes:
                    await rig.tell(600 * minute + 50, 20, late=True)
                times.append((await told("reset"))["at"])
            assert all(b - a > 990 for a, b in zip(times, times[1:], strict=False)), times


@needs_node
async def test_the_datafeed_says_that_its_token_is_not_known(tmp_path: Path) -> None:
    async with running(tmp_path / "data", tokens=(TOKEN,)) as rig:
        async with charting(tmp_path, rig.gateway.url, token="tok_wrong_wrong_wrong") as told:
            assert "not known here" in await told("error")
            assert await told("status") == "connected"
            assert await told("status") == "unauthorized"


def test_the_datafeed_is_small_and_names_every_resolution() -> None:
    text = _docs.DATAFEED.decode()
    assert all(f'"{name}"' in text for name in RESOLUTIONS.values())
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)


CHART = """
import { Datafeed } from "./datafeed.mjs";
const [url, name, options] = process.argv.slice(2);
const say = (kind, value) => console.log(JSON.stringify({ kind, value }));
const feed = new Datafeed(url, {
  ...JSON.parse(options),
  onReset: (channel) => say("reset", { channel, at: performance.now() }),
  onStatus: (status) => say("status", status),
});
const follow = (symbol) => feed.subscribeBars(symbol, "1", (bar) => say("tick", bar), "one", () => {});
feed.resolveSymbol(name, (symbol) => {
  say("symbol", symbol);
  const period = { from: 0, to: 4000000000, countBack: 100, firstDataRequest: true };
  feed.getBars(symbol, "1", period, (bars) => {
    say("bars", bars);
    follow(symbol);
  }, (error) => say("error", error));
}, (error) => {
  say("error", error);
  follow({ ticker: name });
});
"""
