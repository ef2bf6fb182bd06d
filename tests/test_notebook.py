"""The client without await: from a script, inside a running loop, at the end of a program."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import tapewick
from tapewick.client import Client, Rows
from tapewick.errors import ConfigError, NotFound, SourceError
from tapewick.notebook import Connection, Feed, LiveTable
from tests.gateways.rig import BTC, Rig, running

ROOT = Path(__file__).parent.parent
TRADES, CANDLES = f"trade@{BTC}", f"candle@{BTC}@1m"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A server on the loop of the test: what blocks has to be called from another thread."""
    async with running(tmp_path / "data", ids=(BTC,)) as made:
        await made.tell(1, 1500)
        yield made


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "tapewick client"]


async def test_every_method_answers_without_await(rig: Rig, tmp_path: Path) -> None:
    def script() -> None:
        with tapewick.connect(rig.gateway.url) as tape:
            assert repr(tape) == f"<connection to {rig.gateway.url}>"
            assert [one.id for one in tape.instruments()] == [BTC]
            assert len(tape.candles(BTC, "1m")) == 3 and len(tape.trades(BTC, limit=10)) == 10
            assert tape.ticker(BTC).last == tape.price(BTC).price
            assert tape.coverage(BTC)["trades"] == 1500
            with pytest.raises(NotFound, match="depth"):
                tape.book(BTC)
            assert tape.save(BTC, tmp_path / "x.csv").endswith(":1500")
            with tape.stream(TRADES, snapshot=5) as feed:
                rows = next(feed)
                assert isinstance(rows, Rows) and len(rows) == 5
                assert feed.positions == {TRADES: rows.position}
                with pytest.raises(TimeoutError, match=r"nothing came within 0\.05 s"):
                    feed.take(timeout=0.05)
            assert list(feed) == []
            live = tape.live(CANDLES)
            assert live.frame.__doc__ and len(live.table()) == 3 and live.connected
            assert repr(live).startswith("<live, version ") and "<Table of 3 rows>" in live._repr_html_().replace(
                "&lt;", "<"
            ).replace("&gt;", ">")
        assert threads() == [] and len(live.table()) == 3
        with pytest.raises(ConfigError, match="closed: open another"):
            tape.instruments()
        tape.close()
        assert repr(tape).endswith(", closed>")

    await asyncio.to_thread(script)


async def test_a_live_table_follows_while_the_caller_does_something_else(rig: Rig) -> None:
    tape = await asyncio.to_thread(tapewick.connect, rig.gateway.url)
    live = await asyncio.to_thread(tape.live, TRADES, rows=100)
    version = live.version
    await rig.tell(1501, 30)
    await asyncio.to_thread(live.wait, 20, after=version)
    table = await asyncio.to_thread(live.table)
    while table["seq"][-1] != 1530:
        await asyncio.to_thread(live.wait, 20, after=version)
        table = await asyncio.to_thread(live.table)
    assert table["seq"].tolist() == list(range(1431, 1531))
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(live.wait, 0.05)
    await asyncio.to_thread(tape.close)


def test_it_works_inside_a_running_loop(tmp_path: Path) -> None:
    """The server runs in another thread; here a loop runs, as in a notebook, and the calls block it."""
    address: list[str] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(tmp_path / "data", ids=(BTC,)) as rig:
            await rig.tell(1, 700)
            address.append(rig.gateway.url)
            ready.set()
            await asyncio.to_thread(done.wait)

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    assert ready.wait(60)

    async def cells() -> None:
        tape: Connection = tapewick.connect(address[0])
        live = tape.live(CANDLES)
        assert len(live.table()) == 2 and len(tape.trades(BTC)) == 500
        tape.close()

    try:
        asyncio.run(cells())
    finally:
        done.set()
        server.join()


async def test_a_program_that_closes_nothing_ends(rig: Rig) -> None:
    code = (
        f"import tapewick; t = tapewick.connect({rig.gateway.url!r}); l = t.live({CANDLES!r}); "
        f"s = t.stream({TRADES!r}); next(s); print(len(l.table()), flush=True)"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT / "src"
    )
    async with asyncio.timeout(60):
        out, said = await child.communicate()
    assert (child.returncode, out, said) == (0, b"3\n", b"")


async def test_closing_ends_a_loop_that_waits_in_another_thread(rig: Rig) -> None:
    for close in (lambda tape, feed: tape.close(), lambda tape, feed: feed.close()):
        tape = await asyncio.to_thread(tapewick.connect, rig.gateway.url)
        feed = await asyncio.to_thread(tape.stream, TRADES, snapshot=1)
        assert await asyncio.to_thread(feed.take)
        looping = asyncio.create_task(asyncio.to_thread(list, feed))
        await asyncio.to_thread(close, tape, feed)
        assert await looping == []
        await asyncio.to_thread(tape.close)


def test_no_server_is_told_and_leaves_no_thread() -> None:
    with pytest.raises(SourceError, match="is a server running there"):
        tapewick.connect("http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="write it like"):
        tapewick.connect("localhost")
    assert threads() == []


async def test_threads_may_close_at_once_while_others_ask(rig: Rig) -> None:
    def script() -> list[str]:
        wrong: list[str] = []
        for _ in range(3):
            tape = tapewick.connect(rig.gateway.url)

            def ask(tape: Connection = tape, wrong: list[str] = wrong) -> None:
                try:
                    tape.trades(BTC, limit=10)
                except ConfigError:
                    pass
                except Exception as error:
                    wrong.append(repr(error))

            workers = [threading.Thread(target=one, daemon=True) for one in [ask, tape.close] * 4]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(20)
                wrong += ["hangs"] if worker.is_alive() else []
        return wrong

    assert await asyncio.to_thread(script) == []


def test_methods_have_the_arguments_and_the_words_of_the_client() -> None:
    returns = {"stream": Feed, "live": LiveTable}
    for name in (
        "instruments",
        "instrument",
        "candles",
        "trades",
        "ticker",
        "price",
        "book",
        "coverage",
        "save",
        *returns,
    ):
        own, theirs = getattr(Connection, name), getattr(Client, name)
        told, same = inspect.signature(own), inspect.signature(theirs)
        assert told.parameters == same.parameters and own.__name__ == name
        assert told.return_annotation == returns.get(name, same.return_annotation)
        assert theirs.__doc__ in own.__doc__ and "without ``await``" in own.__doc__
