"""The unary calls of ``MarketData``: the answers of REST as column batches."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from msgspec.structs import replace as with_fields

from tapewick import wire
from tapewick.closed_candles import closed_candles, without_open
from tapewick.errors import BadRequest
from tapewick.gateways._paging import turn
from tapewick.gateways._since import changed_after, own_offset
from tapewick.market import CandleAnswer, Fill, Market, Window
from tapewick.model import NO_END, NO_TIME, Gap, position
from tapewick.proto_books import whole_book
from tapewick.timeframe import parse
from tapewick.v1 import market_pb2 as market_pb
from tapewick.v1 import service_pb2 as pb

__all__ = ["Queries", "gap_of"]

DEFAULT_ROWS, MOST_ROWS = 500, 10_000
DEFAULT_LEVELS, MOST_LEVELS = 100, 5000
FILLS: dict[int, Fill | None] = {0: None, 1: "prev", 2: "null"}
Call = Callable[[Any], Coroutine[Any, Any, Any]]
Read = Callable[[bytes], Any]


class Queries:
    """Each method answers one request; they raise ``ApiError`` and ``ModelError``."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def calls(self) -> dict[str, tuple[Read, Call]]:
        """How a request is read, and the method that answers it, by the call's name."""
        return {
            "ListInstruments": (pb.ListInstrumentsRequest.FromString, self.instruments),
            "GetCandles": (pb.GetCandlesRequest.FromString, self.candles),
            "GetTrades": (pb.GetTradesRequest.FromString, self.trades),
            "GetBook": (pb.GetBookRequest.FromString, self.book),
            "GetTicker": (pb.GetTickerRequest.FromString, self.ticker),
            "GetCoverage": (pb.GetCoverageRequest.FromString, self.coverage),
        }

    async def instruments(self, asked: pb.ListInstrumentsRequest) -> pb.ListInstrumentsResponse:
        found = [one for one in await self._market.instruments() if asked.venue in ("", one.venue)]
        rows = [market_pb.Instrument.FromString(wire.body(one)) for one in found]
        return pb.ListInstrumentsResponse(instruments=rows)

    async def candles(self, asked: pb.GetCandlesRequest) -> pb.GetCandlesResponse:
        following = pb.GetCandlesRequest()
        following.CopyFrom(asked)
        found, at, more = await (self._changed if asked.since else self._window)(asked, following)
        rows = market_pb.Candles.FromString(wire.body(replace(found.batch, epoch=found.head.epoch)))
        return pb.GetCandlesResponse(candles=rows, position=at, next=following if more else None)

    async def _window(
        self, asked: pb.GetCandlesRequest, following: pb.GetCandlesRequest
    ) -> tuple[CandleAnswer, str, bool]:
        """Rows by open time, their position, and whether ``following``, which is set to it, has more."""
        tf = parse(asked.timeframe)
        newest = not asked.HasField("start")
        window = Window(_time(asked, "start"), _time(asked, "end"), _limit(asked.limit), newest)
        _check_range(window.start, window.end)
        read = self._market.candles if asked.include_open else partial(closed_candles, self._market)
        found = await read(asked.instrument, tf, window, fill=_fill(asked.fill))
        later = turn(tf, window, found)
        if later is not None:
            setattr(following, later.bound, later.at)
        return found, position(found.head.epoch, found.head.pos), later is not None

    async def _changed(
        self, asked: pb.GetCandlesRequest, following: pb.GetCandlesRequest
    ) -> tuple[CandleAnswer, str, bool]:
        """Rows by position, as ``_window``."""
        if asked.HasField("start") or asked.HasField("end") or asked.fill:
            raise BadRequest("since cannot be combined with start, end or fill", field="since")
        tf, limit = parse(asked.timeframe), _limit(asked.limit)
        offset = await changed_after(self._market, asked.instrument, tf, asked.since)
        while True:
            found, more = await self._market.changes(asked.instrument, tf, offset, limit)
            offset = int(found.batch.rows["pos"][-1]) if more else found.head.pos
            told = found if asked.include_open else found._replace(batch=without_open(found.batch))
            if len(told.batch.rows) or not more:
                break
        following.since = at = position(found.head.epoch, offset)
        return told, at, more

    async def trades(self, asked: pb.GetTradesRequest) -> pb.GetTradesResponse:
        market, id, limit = self._market, asked.instrument, _limit(asked.limit)
        start, end = _time(asked, "start"), _time(asked, "end")
        _check_range(start, end)
        offset = own_offset(asked.since, await market.head(id)) if asked.since else None
        newest = offset is None and start is None
        batch, head = await market.trades(id, since=offset, start=start, end=end, limit=limit, newest=newest)
        more = not newest and batch.seq is not None and len(batch) >= limit
        at = position(head.epoch, int(batch.seq[-1]) if more and batch.seq is not None else head.seq)
        following = pb.GetTradesRequest()
        following.CopyFrom(asked)
        following.since = at
        rows = market_pb.Trades.FromString(wire.body(replace(batch, epoch=head.epoch)))
        return pb.GetTradesResponse(trades=rows, position=at, next=following if more else None)

    async def book(self, asked: pb.GetBookRequest) -> Any:
        levels = asked.levels or DEFAULT_LEVELS
        if not 0 < levels <= MOST_LEVELS:
            raise BadRequest(f"levels must lie between 1 and {MOST_LEVELS}", field="levels")
        at = _time(asked, "at")
        if at is None:
            return market_pb.Book.FromString(wire.body(whole_book(await self._market.book(asked.instrument), levels)))
        stored = market_pb.Book.FromString(wire.body(await self._market.stored_book(asked.instrument, at)))
        stored.state = "stored"
        for column in (stored.bid_price, stored.bid_size, stored.ask_price, stored.ask_size):
            del column[levels:]
        return stored

    async def ticker(self, asked: pb.GetTickerRequest) -> pb.Ticker:
        told = await self._market.ticker(asked.instrument)
        fields: dict[str, Any] = {
            name: told[name] for name in pb.Ticker.DESCRIPTOR.fields_by_name if told.get(name) is not None
        }
        if "ts" in fields:
            fields["ts"] = int(str(fields["ts"])) * 1_000_000
        return pb.Ticker(**fields)

    async def coverage(self, asked: pb.GetCoverageRequest) -> pb.Coverage:
        start, end = _time(asked, "start"), _time(asked, "end")
        _check_range(start, end)
        low, high = start or 0, 2**63 - 1 if end is None else end
        state = await self._market.coverage(asked.instrument)
        ranges = [(a, b) for a, b, since, until in state.ranges.tolist() if since < high and until >= low]
        gaps = [gap for gap in state.gaps if gap.state != "closed" and gap.left_ts < high and gap.right_ts >= low]
        told = pb.Coverage(
            instrument=state.instrument.id,
            id_kind=state.instrument.id_kind,
            trades=state.seq,
            first_id=[a for a, _ in ranges],
            last_id=[b for _, b in ranges],
            gaps=[gap_of(gap) for gap in gaps],
            position=position(state.epoch, state.seq),
        )
        if state.instrument.id_kind == "contiguous":
            told.complete = not gaps
        return told


def gap_of(gap: Gap) -> market_pb.Gap:
    """A time is left out where no trade is known on that side."""
    times = {"left_ts": gap.left_ts, "right_ts": gap.right_ts}
    known = {name: 0 if ts in (NO_TIME, NO_END) else ts for name, ts in times.items()}
    told: market_pb.Gap = market_pb.Gap.FromString(wire.body(with_fields(gap, **known)))
    return told


def _fill(asked: int) -> Fill | None:
    if asked not in FILLS:  # the schema lets any number through
        raise BadRequest(f"fill={asked} is unknown; use NONE (0), PREV (1) or NULL (2)", field="fill")
    return FILLS[asked]


def _limit(asked: int) -> int:
    limit = asked or DEFAULT_ROWS
    if not 0 < limit <= MOST_ROWS:
        raise BadRequest(f"limit must lie between 1 and {MOST_ROWS}", field="limit")
    return limit


def _time(asked: Any, field: str) -> int | None:
    if not asked.HasField(field):
        return None
    ns = int(getattr(asked, field))
    if ns < 0:
        raise BadRequest(f"{field} is a time in ns since 1970", field=field)
    return ns


def _check_range(start: int | None, end: int | None) -> None:
    if start is not None and end is not None and end <= start:
        raise BadRequest("end must be after start", field="end")
