"""What is DuckDB's own: the file and its owners, damage, full disks, the views, the doctor's check."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pytest

from tapewick.errors import StoreBusy, StoreDamaged, StoreError
from tapewick.model import Instrument, State, TapeState
from tapewick.stores.duckdb import DuckDBStore, set_wal_aside
from tapewick.timeframe import BY_NAME, SECOND, STORED, bucket
from tests.contract.tapes import HOUR, MINUTE, T0, fresh, instrument, part, row, trades, whole_book, write

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[tuple[DuckDBStore, TapeState]]:
    async with DuckDBStore(tmp_path) as store:
        [state] = await fresh(store)
        yield store, state


def rows(folder: Path, sql: str) -> list[dict[str, object]]:
    with duckdb.connect(str(folder / "tape.duckdb"), read_only=True) as connection:
        answer = connection.execute(sql)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, values, strict=True)) for values in answer.fetchall()]


# ── opening ──

OWNER = """
import asyncio, sys
from tapewick.stores.duckdb import DuckDBStore
async def main():
    async with DuckDBStore(sys.argv[1]):
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_folder_owned_by_another_process_is_busy(tmp_path: Path, read_only: bool) -> None:
    async with DuckDBStore(tmp_path):
        pass
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"open\n"
    with pytest.raises(StoreBusy, match="--url") as caught:
        async with DuckDBStore(tmp_path, read_only=read_only):
            pass
    assert str(tmp_path) in str(caught.value)
    await owner.communicate(b"")
    assert owner.returncode == 0
    async with DuckDBStore(tmp_path, read_only=read_only):
        pass


async def test_two_owners_in_one_process_are_busy_too(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path):
        for read_only in (False, True):
            with pytest.raises(StoreBusy):
                async with DuckDBStore(tmp_path, read_only=read_only):
                    pass
    async with DuckDBStore(tmp_path):
        pass


async def test_reading_where_nothing_is_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="tapewick demo"):
        async with DuckDBStore(tmp_path / "nothing", read_only=True):
            pass
    assert not (tmp_path / "nothing").exists()


async def test_a_read_only_store_reads_and_refuses_to_write(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 5))
    async with DuckDBStore(tmp_path, read_only=True) as one, DuckDBStore(tmp_path, read_only=True) as two:
        assert len((await one.trades("sim:AAA"))[0]) == len((await two.trades("sim:AAA"))[0]) == 5
        with pytest.raises(StoreError, match="read-only"):
            await one.commit([part(state, trades(state, 1))])


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    async with store:
        await store.put_instrument(instrument())
    with pytest.raises(StoreError, match="not open"):
        await store.head("sim:AAA")
    with pytest.raises(StoreError, match="not open"):
        await store.put_instrument(instrument("BBB"))


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create"):
        async with DuckDBStore(tmp_path / "file" / "data"):
            pass


async def test_closing_checkpoints(tmp_path: Path) -> None:
    log = tmp_path / "tape.duckdb.wal"
    async with DuckDBStore(tmp_path) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 50))
        assert log.exists()
    assert not log.exists()


# ── damage ──

CRASH = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[2])
from tapewick.stores.duckdb import DuckDBStore
from tests.contract.tapes import fresh, trades, write
async def main():
    async with DuckDBStore(sys.argv[1]) as store:
        [state] = await fresh(store)
        for _ in range(5):
            ranges = [(1001, 1400 + state.seq, 1, 2)]
            await write(store, state, trades(state, 400), ranges=ranges)
    async with DuckDBStore(sys.argv[1]) as store:
        [state] = await store.claim(["sim:AAA"])
        for _ in range(5):
            ranges = [(1001, 1400 + state.seq, 1, 2)]
            await write(store, state, trades(state, 400), ranges=ranges)
        print(state.epoch, flush=True)
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder whose owner was killed: 2000 trades in the file, 2000 more in the log; and its epoch."""
    folder = tmp_path_factory.mktemp("crashed") / "data"
    done = subprocess.run([sys.executable, "-c", CRASH, str(folder), ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    return folder, done.stdout.strip()


@pytest.fixture
def wreck(crashed: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of ``crashed`` to damage."""
    return Path(shutil.copytree(crashed[0], tmp_path / "data"))


async def test_a_killed_owner_leaves_every_commit(wreck: Path) -> None:
    async with DuckDBStore(wreck) as store:
        assert (await store.head("sim:AAA")).seq == len((await store.trades("sim:AAA"))[0]) == 4000


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize("how", ["header", "cut", "text", "empty", "block", "log"])
@pytest.mark.parametrize("read_only", [False, True])
async def test_a_damaged_file_names_the_doctor(wreck: Path, how: str, read_only: bool) -> None:
    file, log = wreck / "tape.duckdb", wreck / "tape.duckdb.wal"
    if how == "header":
        overwrite(file, 0, bytes(4096))
    elif how == "cut":
        os.truncate(file, 8000)
    elif how == "text":
        file.write_text("no database\n" * 1000)
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "block":
        overwrite(file, 3 * 4096, os.urandom(file.stat().st_size - 3 * 4096))
    elif how == "log":
        overwrite(
            log, log.stat().st_size // 2, bytes(byte ^ 8 for byte in log.read_bytes()[log.stat().st_size // 2 :][:4])
        )
    with pytest.raises(StoreDamaged, match="tapewick doctor") as caught:
        async with DuckDBStore(wreck, read_only=read_only):
            pass
    assert str(wreck) in str(caught.value) and "\n" not in str(caught.value)


async def test_a_cut_log_opens_as_a_prefix_of_whole_commits(wreck: Path) -> None:
    log = wreck / "tape.duckdb.wal"
    os.truncate(log, log.stat().st_size * 2 // 3)
    async with DuckDBStore(wreck) as store:
        [state] = await store.claim(["sim:AAA"])
        assert 2000 <= state.seq < 4000 and state.seq == state.pos * 400
        assert len((await store.trades("sim:AAA"))[0]) == state.seq
        assert await store.check() == []


async def test_a_damaged_log_can_be_set_aside_and_the_epoch_renewed(wreck: Path, crashed: tuple[Path, str]) -> None:
    log = wreck / "tape.duckdb.wal"
    overwrite(log, 5000, b"\xff" * 64)
    kept = log.read_bytes()
    aside = set_wal_aside(wreck)
    assert aside is not None and aside.read_bytes() == kept and not log.exists()
    assert set_wal_aside(wreck) is None
    async with DuckDBStore(wreck) as store:
        assert (await store.head("sim:AAA")).epoch == crashed[1]
        await store.renew_epochs()
        head = await store.head("sim:AAA")
        assert head.seq == 2000 and len(head.epoch) == 8 and head.epoch != crashed[1]


FULL = """
import asyncio, resource, signal, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from tapewick.errors import StoreError
from tapewick.stores.duckdb import DuckDBStore
from tests.contract.tapes import fresh, trades, part
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
numbers = np.random.default_rng(1)
async def main():
    async with DuckDBStore(sys.argv[1]) as store:
        [state] = await fresh(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
        for _ in range(400):
            n = int(sys.argv[4])
            commit = part(state, trades(state, n), ranges=[(1001, 1000 + state.seq + n, 1, 2)])
            for column in (commit.trades[0].price, commit.trades[0].size, commit.trades[0].ts_recv):
                column[:] = numbers.integers(1, 2**62, n)  # so that it compresses badly
            try:
                await store.commit([commit])
            except StoreError as error:
                print(type(error).__name__, str(error).replace(sys.argv[1], "DIR"))
                break
            state.seq, state.pos = commit.head.seq, commit.head.pos
        else:
            print("never full")
        assert (await store.head("sim:AAA")).seq == state.seq
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert await store.commit([commit]) == frozenset()
        batch, head = await store.trades("sim:AAA")
        assert len(batch) == head.seq == commit.head.seq
        assert await store.check() == [], await store.check()
    async with DuckDBStore(sys.argv[1]) as store:
        assert len((await store.trades("sim:AAA"))[0]) == commit.head.seq
        print("ok")
asyncio.run(main())
"""


@pytest.mark.parametrize(("limit", "n"), [(1_200_000, 3000), (17_500_000, 30_000)], ids=["log", "checkpoint"])
def test_a_full_disk_refuses_the_commit_and_takes_it_later(tmp_path: Path, limit: int, n: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), ROOT, str(limit), str(n)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("StoreError the disk that holds DIR is full: free some space") and last == "ok"


# ── views ──


@pytest.mark.parametrize(("price_scale", "size_scale"), [(0, 0), (2, 5), (8, 8), (18, 0), (9, 9)])
async def test_views_show_exact_decimals_and_times(tmp_path: Path, price_scale: int, size_scale: int) -> None:
    price, size = 9_223_372_036_854_775_783 // 1000, 4_611_686_018_427_387_847
    volume, quote = 2**66 + 12345, 2**64 + 1
    async with DuckDBStore(tmp_path) as store:
        own = Instrument(
            id="sim:AAA", venue="sim", symbol="AAA", price_scale=price_scale, size_scale=size_scale, base="A", quote="Q"
        )
        await store.put_instrument(own)
        [state] = await store.claim(["sim:AAA"])
        batch = trades(state, 3)
        batch.price[0], batch.size[0] = price, size
        candle = row(
            T0, open=price, high=price, low=1, close=7, volume=volume, quote_volume=quote,
            taker_buy_volume=0, taker_buy_quote_volume=3,
        )  # fmt: skip
        others = [row(T0 + k * 60 * SECOND, complete=c, state=s) for k, c, s in ((1, 0, 1), (2, -1, 0))]
        await write(store, state, batch, np.concatenate([candle, *others]), ranges=[(1001, 1003, T0, -(2**63))])
    first = rows(tmp_path, "SELECT * FROM v_trades ORDER BY seq")[0]
    assert first["price"] == Decimal(price).scaleb(-price_scale)
    assert first["size"] == Decimal(size).scaleb(-size_scale)
    assert first["ts_event"] == dt.datetime(2024, 8, 7) and first["side"] == "unknown"
    shown = rows(tmp_path, "SELECT * FROM v_candles ORDER BY open_time")
    one = shown[0]
    assert (one["instrument"], one["tf"], one["open_time"]) == ("sim:AAA", "1m", dt.datetime(2024, 8, 7))
    assert one["open"] == Decimal(price).scaleb(-price_scale) and one["low"] == Decimal(1).scaleb(-price_scale)
    fits = volume * 10 ** (18 - size_scale) < 10**38
    assert one["volume"] == (Decimal(volume).scaleb(-size_scale) if fits else None)
    scale = price_scale + size_scale
    fits = scale <= 18 and quote * 10 ** (18 - scale) < 10**38
    assert one["quote_volume"] == (Decimal(quote).scaleb(-scale) if fits else None)
    assert [r["complete"] for r in shown] == [True, False, None]
    assert [r["state"] for r in shown] == ["final", "closed", "open"]
    [covered] = rows(tmp_path, "SELECT * FROM v_coverage")
    assert covered == {
        "instrument": "sim:AAA", "from_id": 1001, "to_id": 1003, "from_ts": dt.datetime(2024, 8, 7), "to_ts": None,
    }  # fmt: skip
    [seen] = rows(tmp_path, "SELECT * FROM v_instruments")
    assert (seen["instrument"], seen["seq"], seen["price_scale"]) == ("sim:AAA", 3, price_scale)


async def test_the_candle_view_follows_the_read_rule_and_names_every_timeframe(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path) as store:
        [state] = await fresh(store)
        each = np.concatenate([row(bucket(tf, T0), tf.index, state=State.OPEN, complete=0) for tf in STORED])
        day = BY_NAME["1d"].index
        await write(store, state, None, each)
        await write(
            store, state, None, np.concatenate([row(T0, HOUR, close=11), row(T0, MINUTE, close=12, complete=0)])
        )
        imported = [row(T0, tf, close=999) for tf in (HOUR, MINUTE, day)]
        await store.put_imported("sim:AAA", np.concatenate(imported))
        candles, _ = await store.candles("sim:AAA", MINUTE)
        assert candles["close"].tolist() == [999]
    shown = {r["tf"]: r for r in rows(tmp_path, "SELECT * FROM v_candles")}
    assert set(shown) == {tf.name for tf in STORED}
    assert [shown[tf]["close"] for tf in ("1h", "1m", "1d")] == [Decimal("0.11"), Decimal("9.99"), Decimal("9.99")]
    assert [shown[tf]["origin"] for tf in ("1h", "1m", "1d", "1w")] == ["tape", "import", "import", "tape"]


async def test_vwap_is_truncated_at_four_more_digits(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path) as store:
        [state] = await fresh(store)
        await write(store, state, None, np.concatenate([row(T0, volume=3, quote_volume=2000), row(T0, HOUR, volume=0)]))
    found = {r["tf"]: r["vwap"] for r in rows(tmp_path, "SELECT tf, vwap FROM v_candles")}
    assert found == {"1m": Decimal("6.666666"), "1h": None}  # 2000 / 3 at scale 2


# ── the doctor ──


async def test_check_finds_nothing_in_a_sound_store(filled: tuple[DuckDBStore, TapeState]) -> None:
    store, state = filled
    parts = [row(T0 + k * 60 * SECOND, trades=1, volume=2**64 - 1, pos=1, last_seq=1) for k in range(4)]
    whole = row(T0, BY_NAME["3m"].index, trades=3, volume=3 * (2**64 - 1), pos=1, last_seq=1)
    for candle, times in ((whole, 3), *((p, 1) for p in parts)):
        for name in ("quote_volume", "taker_buy_volume", "taker_buy_quote_volume"):
            candle[name + "_lo"], candle[name + "_hi"] = 5 * times, 0
    next_whole = row(T0 + 180 * SECOND, BY_NAME["3m"].index, trades=1, volume=2**64 - 1, pos=1, last_seq=1)
    for name in ("quote_volume", "taker_buy_volume", "taker_buy_quote_volume"):
        next_whole[name + "_lo"], next_whole[name + "_hi"] = 5, 0
    rows_ = np.concatenate([*parts, whole, next_whole])
    await write(store, state, trades(state, 4), rows_, ranges=[(1001, 1004, T0, T0)])
    assert await store.check() == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM trades WHERE seq = 7", "head is not at the last trade"),
        ("INSERT INTO trades FROM trades WHERE seq = 7", "head is not at the last trade"),
        ("UPDATE tape_head SET seq = 99", "head is not at the last trade"),
        ("INSERT INTO coverage SELECT number, 1005, 1011, 0, 0 FROM coverage", "overlap"),
        ("UPDATE coverage SET to_id = 1004", "ledger covers 4"),
        ("UPDATE candles SET pos = 77", "newer than the head"),
        ("INSERT INTO open_candles FROM candles", "also stored as closed"),
        ("UPDATE candles SET trades = 9 WHERE tf = 2", "3m candles are not the sum of their 1m"),
    ],
)
async def test_check_names_each_broken_invariant(tmp_path: Path, harm: str, said: str) -> None:
    async with DuckDBStore(tmp_path) as store:
        [state] = await fresh(store)
        plain = {name: 1 for name in ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")}
        plain |= {"trades": 1, "pos": 1, "last_seq": 1}
        minutes = [row(T0 + k * 180 * SECOND, **plain) for k in range(3)]
        wholes = [row(T0 + k * 180 * SECOND, BY_NAME["3m"].index, **plain) for k in range(3)]
        await write(store, state, trades(state, 10), np.concatenate(minutes + wholes), ranges=[(1001, 1010, T0, T0)])
        assert await store.check() == []
    with duckdb.connect(str(tmp_path / "tape.duckdb")) as connection:
        connection.execute(harm)
    async with DuckDBStore(tmp_path) as store:
        found = await store.check()
    assert any(said in line and line.startswith("sim:AAA: ") for line in found), found


async def test_more_trades_than_one_page_come_back_whole(
    filled: tuple[DuckDBStore, TapeState], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapewick.stores import _duckdb_read

    monkeypatch.setattr(_duckdb_read, "PAGE", 97)
    monkeypatch.setattr(_duckdb_read, "FEW", 10)
    store, state = filled
    for _ in range(3):
        await write(store, state, trades(state, 200))

    async def seqs(**wanted: object) -> list[int]:
        batch, _ = await store.trades("sim:AAA", **wanted)  # type: ignore[arg-type]
        assert batch.seq is not None
        return [int(seq) for seq in batch.seq]

    assert await seqs() == list(range(1, 601))
    assert await seqs(limit=250, newest=True) == list(range(351, 601))
    assert await seqs(since=5, limit=250) == list(range(6, 256))
    assert await seqs(start=T0 + 99 * SECOND, end=T0 + 400 * SECOND, limit=120, newest=True) == list(range(281, 401))
    assert await seqs(start=T0 + 99 * SECOND, end=T0 + 400 * SECOND) == list(range(100, 401))


async def test_the_view_of_books_has_a_row_per_level_with_decimals(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path) as store:
        await store.put_instrument(instrument("AAA"))
        await store.put_books([whole_book(T0), whole_book(T0 + SECOND, run="run-2")])
    sql = "SELECT side, level, price, size, last_id FROM v_books WHERE run = 'run-1' ORDER BY side DESC, level"
    shown = [tuple(one.values()) for one in rows(tmp_path, sql)]
    assert shown == [
        ("bid", 1, Decimal("0.105"), Decimal("0.1"), 99),
        ("bid", 2, Decimal("0.104"), Decimal(2**62).scaleb(-1), 99),
        ("bid", 3, Decimal("0.101"), Decimal("0.3"), 99),
        ("ask", 1, Decimal("0.106"), Decimal("0.9"), 99),
    ]
    times = rows(tmp_path, "SELECT DISTINCT instrument, ts FROM v_books ORDER BY ts")
    assert [one["instrument"] for one in times] == ["sim:AAA"] * 2 and times[0]["ts"] == dt.datetime(2024, 8, 7)
