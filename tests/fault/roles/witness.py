"""Clients that write down what they are shown while processes die, to be compared with what is stored in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from tapewick.client import Candle, Client, Notice, Rows, StreamGap
from tapewick.client import Trade as Shown
from tapewick.commands.feeder import Feeder
from tapewick.errors import SourceError
from tapewick.timeframe import STORED
from tests.engine.brute import Trade, candles, values
from tests.fault.roles.rig import PATIENCE, Cluster

__all__ = ["Names", "Poster", "Witness"]

RETRY = 0.1  # seconds


class Names:
    """Which trade each (instrument, epoch, seq) was shown to mean, by any witness at any time."""

    def __init__(self) -> None:
        self._meant: dict[tuple[str, str, int], Shown] = {}

    def note(self, epoch: str, trade: Shown) -> None:
        """Raises ``AssertionError`` when the name meant another trade before."""
        known = self._meant.setdefault((trade.instrument, epoch, trade.seq), trade)
        assert known == trade, f"{epoch}:{trade.seq} names two trades: {known} and {trade}"


class Witness:
    """One client on trades and 1m candles of every symbol; it resumes wherever a connection ends.

    ``trades`` by instrument in the order they came, ``candles`` every version of every closed one.
    """

    def __init__(self, url: str, ids: Iterable[str], names: Names, token: str | None = None) -> None:
        self.url, self.ids, self._names, self._token = url, list(ids), names, token
        self.trades: dict[str, list[Shown]] = {id: [] for id in self.ids}
        self.candles: dict[str, dict[tuple[int, int], Candle]] = {id: {} for id in self.ids}
        self.begins: dict[str, int] = {}  # open_time of the first candle shown
        self.disconnected = 0
        self.told: list[str] = []  # what the stream said of itself, for a failure
        self.positions: dict[str, str] = {}

    @property
    def channels(self) -> list[str]:
        return [name for id in self.ids for name in (f"trade@{id}", f"candle@{id}@1m")]

    @property
    def seen(self) -> int:
        """How many trades in all."""
        return sum(map(len, self.trades.values()))

    async def follow(self) -> None:
        """Go on from where it stands, for ever. Raises ``AssertionError`` for anything inexact."""
        async with Client(self.url, token=self._token, timeout=PATIENCE) as client:
            while True:
                since: Any = dict(self.positions) or None
                stream = client.stream(*self.channels, snapshot=1, since=since)
                try:
                    async for item in stream:
                        self._take(item)
                        self.positions |= stream.positions
                except SourceError as error:  # the first connection of a new stream failed
                    self.told.append(str(error))
                    await asyncio.sleep(RETRY)
                finally:
                    stream.close()

    def _take(self, item: Any) -> None:
        assert not isinstance(item, StreamGap), f"told that records are missing: {item}"
        if isinstance(item, Notice):
            self.disconnected += item.code == "disconnected"
            self.told.append(f"{item.code} {item.channel} {item.detail} at {self.seen}")
            return
        assert isinstance(item, Rows), item
        kind, id = item.channel.split("@")[:2]
        assert item.kind != "snapshot" or item.channel not in self.positions, f"{item} where there was something"
        for row in item.rows:
            if isinstance(row, Shown):
                self._names.note(item.position.rpartition(":")[0], row)
                self.trades[id].append(row)
            elif isinstance(row, Candle):
                self.begins.setdefault(id, row.open_time)
                if row.state != "open":
                    known = self.candles[id].setdefault((row.open_time, row.pos), row)
                    assert known == row, f"one pos, two candles: {known} and {row}"
            else:
                raise AssertionError(f"{kind}: {row}")

    async def assert_exact(self, cluster: Cluster) -> None:
        """Everything stored has come: each trade once and in order, each closed candle in its newest version."""
        async with Client(self.url, token=self._token, timeout=PATIENCE) as client:
            for id in self.ids:
                last = (await cluster.store.head(id)).seq

                async def all_came(id: str = id, last: int = last) -> bool:
                    return bool(self.trades[id]) and self.trades[id][-1].seq >= last

                at = self.trades[id][-1].seq if self.trades[id] else 0
                told = f"witness at {self.url}: {id} after {at}: the last trade, {last}, is shown; {self.told[-8:]}"
                await cluster.until(all_came, told)
                seqs = [trade.seq for trade in self.trades[id]]
                assert seqs == list(range(seqs[0], last + 1)), f"{id}: missed, doubled or out of order"
                stored = await client.trades(id, since=seqs[0] - 1, limit=0)
                assert self.trades[id] == list(stored.rows), f"{id}: event for event"

                await self._assert_candles(cluster, client, id)

    async def _assert_candles(self, cluster: Cluster, client: Client, id: str) -> None:
        settled: dict[int, Candle] = {}

        async def candles_came() -> bool:
            table = await client.candles(id, "1m", start=self.begins[id], limit=0)
            settled.clear()
            settled.update({row.open_time: row for row in table.rows if row.state != "open"})
            return self._newest(id) == settled

        try:
            await cluster.until(candles_came, f"witness at {self.url}: the candles of {id} shown are those stored")
        except AssertionError as error:
            shown = self._newest(id)
            differing = [at for at in shown.keys() | settled if shown.get(at) != settled.get(at)]
            pairs = [(shown.get(at), settled.get(at)) for at in differing[:3]]
            raise AssertionError(f"{error}; shown and stored: {pairs}; {self.positions}; {self.told[-8:]}") from None

    def _newest(self, id: str) -> dict[int, Candle]:
        """By open time, the newest version of each candle from the first that was open when it began."""
        newest: dict[int, Candle] = {}
        for (open_time, _), row in sorted(self.candles[id].items()):
            if open_time >= self.begins[id]:  # the one before may close only afterwards
                newest[open_time] = row
        return newest


class Poster:
    """Sends trades of an instrument of its own to a gateway and knows which were acknowledged."""

    def __init__(self, url: str, key: str, symbol: str, *, seed: int) -> None:
        self.id = f"hook:{symbol}"
        self.feeder = Feeder(url, key, self.id, seed=seed, patience=120)

    async def post(self, rate: int) -> None:
        """For ever; a batch that is not answered is sent again until it is."""
        await self.feeder.send(10**9, rate=rate, size=10)

    async def assert_once(self, own: Cluster) -> int:
        """Each acknowledged trade gets stored (a queued one waits on a disk) once, and none is twice; how many."""
        acknowledged = self.feeder.acknowledged

        async def all_stored() -> bool:
            tape, _ = await own.store.trades(self.id)
            return acknowledged <= set(tape.trade_id.tolist())

        await own.until(all_stored, "every acknowledged webhook trade is stored")
        while True:  # what was under way when the sender was stopped may still be coming
            tape, head = await own.store.trades(self.id)
            found = [(tf, (await own.store.candles(self.id, tf.index))[0]) for tf in STORED]
            if (await own.store.head(self.id)).pos == head.pos:
                break
        ids = tape.trade_id.tolist()
        assert len(set(ids)) == len(ids) == head.seq, "stored twice"
        columns = (tape.trade_id, tape.ts_event, tape.price, tape.size, tape.side)
        wanted = candles(Trade(*map(int, row)) for row in zip(*columns, strict=True))
        for tf, rows in found:
            got = {(tf.index, int(row["open_time"])): values(row) for row in rows}
            assert got == {key: value for key, value in wanted.items() if key[0] == tf.index}, f"{self.id} {tf.name}"
        return len(acknowledged)
