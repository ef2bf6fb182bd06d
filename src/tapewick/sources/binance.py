"""Live trades from Binance: which addresses, which streams, what an instrument is. No reconnecting
(``net/websocket.py``), no parsing of trades (``engine.Decoder``), no repair of what was missed.

The source never gives up: an unreachable or refusing venue becomes ``Health`` events with the
cause and the remedy, and it tries again for ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec
import numpy as np

from tapewick.clock import Clock, RealClock
from tapewick.engine import Decoder, Group
from tapewick.errors import ConfigError, SourceError, VenueRefused
from tapewick.model import I64, Event, Health, Instrument, TradeBatch
from tapewick.net.backoff import Backoff
from tapewick.net.http import JsonClient
from tapewick.net.inbox import Inbox, Wakeup
from tapewick.net.websocket import Feed, LinkChange
from tapewick.sources._binance_listing import PRODUCTS, addresses, checked, chunks, listed

__all__ = ["PRODUCTS", "BinanceSource"]

STREAMS_PER_CONNECTION = 1024  # the venue's limit
STREAMS_PER_MESSAGE = 100  # keeps URLs and SUBSCRIBE messages near 2 KiB
TICK = 1.0
CLOCK_EVERY = 300.0
LISTING_EVERY = 3600.0
MAX_OFFSET = 24 * 3600 * 10**9  # a larger difference to the venue's clock is a broken answer


_ADDRESSES = "set BINANCE_BASE_URL and BINANCE_WEBSOCKET_BASE_URL to an address you may use"
_REMEDIES = {
    403: f"a firewall of the venue turns this machine away: {_ADDRESSES}, or try: tapewick demo",
    418: "this address is banned for too many requests: waiting as told",
    429: "too many requests: waiting as told",
    451: f"the venue does not serve this region: {_ADDRESSES}, or try: tapewick demo",
}
_UNREACHABLE = "trying again; check the network, BINANCE_BASE_URL and BINANCE_WEBSOCKET_BASE_URL, or try: tapewick demo"


class _Time(msgspec.Struct):
    serverTime: int


class _Tick(NamedTuple):
    """The venue's clock (ns) at this place in the order of events."""

    clock: int


Control: TypeAlias = LinkChange | _Tick | Instrument | Health


class BinanceSource:
    """Trades of ``symbols`` at one market kind of Binance, or at whatever speaks its protocol.

    ``venue`` is the prefix of instrument ids and picks the ``Product``. ``rest_url`` / ``ws_url`` replace
    its addresses; the product's own others stay as fallback only beside one of them.
    Counters: ``rejects`` (quarantined by reason), ``others`` (frames that are no wanted trade, by kind),
    ``jumps`` (holes seen in ids, by instrument). ``clock_offset``: venue minus local time in ns.
    """

    pull = False

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        venue: str = "binance",
        rest_url: str | None = None,
        ws_url: str | None = None,
        stream: Literal["trade", "aggTrade"] = "trade",
        clock: Clock | None = None,
        idle: float = 60.0,
        retry_cap: float = 60.0,
    ) -> None:
        if venue not in PRODUCTS and not (rest_url and ws_url):
            raise ConfigError(f"{venue!r} is no venue of this source; use one of {' '.join(PRODUCTS)}")
        self.name = venue
        self.rejects: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.jumps: Counter[str] = Counter()
        self.clock_offset = 0
        self._product = PRODUCTS.get(venue, PRODUCTS["binance"])
        self._symbols = tuple(dict.fromkeys(checked(symbol) for symbol in symbols))
        if not self._symbols:
            raise ConfigError(f"no symbol to collect: name at least one, as in {venue}:BTCUSDT")
        self._rest_urls = addresses(rest_url, self._product.rest)
        self._ws_urls = addresses(ws_url, self._product.ws)
        self._stream = stream
        self._clock = clock or RealClock()
        self._idle = idle
        self._retry_cap = retry_cap
        self._instruments: dict[str, Instrument] = {}
        self._newest: dict[str, int] = {}
        self._decoder = Decoder()
        self._said: tuple[str, str] = ("", "")
        self._ticking = False
        self.inbox: Inbox[Control] = Inbox()

    @property
    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """REST and WebSocket base addresses in the order they are tried."""
        return self._rest_urls, self._ws_urls

    async def events(self) -> AsyncGenerator[Event, None]:
        """Instruments, then batches, clock ticks each second, and health; never ends.

        Raises ``ConfigError`` when the venue does not list a symbol. Nothing the network does
        is raised.
        """
        work = asyncio.create_task(self._run())
        work.add_done_callback(self._ended)
        try:
            while True:
                item = await self.inbox.get()
                for event in self._translated(item):
                    yield event
        finally:
            work.cancel()
            await asyncio.wait({work})

    # From what the network brings to events.

    def _translated(self, item: Wakeup | Control) -> Iterable[Event]:
        if isinstance(item, Wakeup):
            return self._batches(item)
        if isinstance(item, _Tick):
            self._ticking = False
            return self._ticks(item.clock)
        if isinstance(item, LinkChange):
            self.rejects["oversize"] += item.feed.take_oversize()
            detail = self._advised(item.detail, item.state, item.status)
            return (Health(source=self.name, state=item.state, ts=item.ts, detail=detail),)
        return (item,)

    def _ticks(self, clock: int) -> Iterator[TradeBatch]:
        for instrument in self._instruments.values():
            yield TradeBatch.empty(instrument.id, clock=clock, source=self.name)

    def _batches(self, wakeup: Wakeup) -> list[TradeBatch]:
        decoded = self._decoder.frames(wakeup.frames, wakeup.recv)
        if decoded.rejects:
            self.rejects.update(decoded.rejects)
        if decoded.others:
            self.others.update(decoded.others)
            if any("serverShutdown" in kind for kind in decoded.others):
                wakeup.feed.renew()
        clock = int(decoded.last_recv) + self.clock_offset
        batches = []
        for group in decoded.groups:
            instrument = self._instruments.get(group.symbol)
            if instrument is None or group.kind != self._stream:
                self.others[f"unwanted {group.kind}"] += len(group.trade_id)
                continue
            batches.append(self._batch(instrument.id, group, clock))
        return batches

    def _batch(self, instrument: str, group: Group, clock: int) -> TradeBatch:
        covers = None
        if len(group.voids):
            covers = _ranges(group.first_id, group.trade_id, group.voids)
        elif len(group.trade_id):
            self._count_jumps(instrument, group.first_id, group.trade_id)
        return TradeBatch(
            instrument=instrument,
            trade_id=group.trade_id,
            first_id=group.first_id,
            count=group.count,
            ts_event=group.ts_event,
            ts_recv=group.ts_recv,
            price=group.price,
            size=group.size,
            side=group.side,
            price_scale=group.price_scale,
            size_scale=group.size_scale,
            covers=covers,
            clock=clock,
            source=self.name,
        )

    def _count_jumps(self, instrument: str, first_id: I64, trade_id: I64) -> None:
        newest = self._newest.get(instrument)
        holes = int(newest is not None and first_id[0] > newest + 1)
        if len(trade_id) > 1:
            holes += int(np.count_nonzero(first_id[1:] > trade_id[:-1] + 1))
        if holes:
            self.jumps[instrument] += holes
        self._newest[instrument] = max(newest or 0, int(trade_id[-1]))

    # What runs beside the consumer.

    def _ended(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.inbox.fail(error)

    async def _run(self) -> None:
        """List the instruments, then stream them; each failure to list is told and retried."""
        backoff = Backoff(cap=self._retry_cap)
        while True:
            for url in self._rest_urls:
                async with JsonClient(url) as rest:
                    try:
                        found = await self._listed(rest)
                    except SourceError as error:
                        self._say(error)
                        delay = backoff.delay(getattr(error, "retry_after", None))
                    else:
                        self._require(found)
                        self._announce(found)
                        await self._streamed(rest)
                await self._clock.sleep(delay)

    async def _streamed(self, rest: JsonClient) -> None:
        """Run the feeds, the clock and the hourly listing until cancelled."""
        await self._measure(rest)
        async with asyncio.TaskGroup() as group:
            for feed in self._feeds():
                group.create_task(feed.run())
            group.create_task(self._tick())
            group.create_task(self._keep_time(rest))
            group.create_task(self._keep_listing(rest))

    def _feeds(self) -> Iterator[Feed]:
        streams = [f"{symbol.lower()}@{self._stream}" for symbol in self._symbols]
        tier = self._product.tiers.get(self._stream, "")
        for chunk in chunks(streams, STREAMS_PER_CONNECTION):
            head, *rest = chunks(chunk, STREAMS_PER_MESSAGE)
            path = f"{tier}/stream?streams={'/'.join(quote(stream, safe='@') for stream in head)}"
            greeting = [
                msgspec.json.encode({"method": "SUBSCRIBE", "params": part, "id": number})
                for number, part in enumerate(rest, 1)
            ]
            yield Feed(
                [base + path for base in self._ws_urls],
                self.inbox,
                greeting=greeting,
                clock=self._clock,
                idle=self._idle,
                backoff=Backoff(cap=self._retry_cap),
            )

    async def _tick(self) -> None:
        """Put the venue's time in line each second, also while disconnected: it closes candles."""
        while True:
            await self._clock.sleep(TICK)
            if not self._ticking:
                self._ticking = True
                self.inbox.put(_Tick(self._clock.now() + self.clock_offset))

    async def _keep_time(self, rest: JsonClient) -> None:
        while True:
            await self._clock.sleep(CLOCK_EVERY)
            await self._measure(rest)

    async def _measure(self, rest: JsonClient) -> None:
        """Estimate ``clock_offset`` from the quickest of three answers; a failure keeps the last one."""
        samples = []
        try:
            for _ in range(3):
                sent = self._clock.now()
                answer = await rest.get(f"{self._product.root}/time", _Time)
                back = self._clock.now()
                samples.append((back - sent, answer.serverTime * 1_000_000 - (sent + back) // 2))
        except SourceError:
            self.rejects["time"] += 1
            return
        offset = min(samples)[1]
        if abs(offset) <= MAX_OFFSET:
            self.clock_offset = offset
        else:
            self.rejects["time"] += 1

    async def _keep_listing(self, rest: JsonClient) -> None:
        """Announce changes of status or scale within the hour."""
        while True:
            await self._clock.sleep(LISTING_EVERY)
            try:
                self._announce(await self._listed(rest))
            except SourceError:
                self.rejects["listing"] += 1

    # Instruments.

    def _announce(self, found: Iterable[Instrument]) -> None:
        for instrument in found:
            if self._instruments.get(instrument.symbol) != instrument:
                self._instruments[instrument.symbol] = instrument
                self._decoder.set_scale(instrument.symbol, instrument.price_scale, instrument.size_scale)
                self.inbox.put(instrument)

    def _require(self, found: Iterable[Instrument]) -> None:
        missing = set(self._symbols) - {instrument.symbol for instrument in found}
        if missing:
            raise ConfigError(
                f"{self.name} does not list {' '.join(sorted(missing))}; write symbols as the venue does "
                f"(BTCUSDT) and correct the source or the setting that names them"
            )

    async def _listed(self, rest: JsonClient) -> list[Instrument]:
        granularity: Literal["raw", "agg"] = "raw" if self._stream == "trade" else "agg"
        return await listed(rest, self._product, self._symbols, venue=self.name, granularity=granularity)

    # What to tell the operator.

    def _say(self, error: SourceError) -> None:
        """Report a failed request as health, unless the same was said last."""
        state: Literal["refused", "disconnected"] = "refused" if isinstance(error, VenueRefused) else "disconnected"
        detail = self._advised(str(error), state, getattr(error, "status", 0))
        if (state, detail) != self._said:
            self._said = (state, detail)
            self.inbox.put(Health(source=self.name, state=state, ts=self._clock.now(), detail=detail))

    def _advised(self, detail: str, state: str, status: int) -> str:
        if state == "connected":
            return detail
        advice = _REMEDIES.get(status) or ("the venue has a fault: trying again" if status >= 500 else _UNREACHABLE)
        return f"{detail}; {advice}"


def _ranges(first_id: I64, last_id: I64, voids: I64) -> tuple[tuple[int, int], ...]:
    """Closed id ranges that trades and void ids cover together, ascending and merged."""
    starts = np.concatenate([first_id, voids])
    ends = np.concatenate([last_id, voids])
    merged: list[tuple[int, int]] = []
    for at in np.argsort(starts, kind="stable").tolist():
        start, end = int(starts[at]), int(ends[at])
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)
