"""The simulated venue's REST answers: which path, at what weight, from which symbols. No I/O."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from tapewick.sim import rest_market
from tapewick.sim.listing import exchange_info
from tapewick.sim.query import Query, Refused
from tapewick.sim.rest_trades import aggregates, trades
from tapewick.sim.symbol import Symbol

__all__ = ["Answer", "Rest"]

_PATH = re.compile(r"^/(?:api/v3|fapi/v1|dapi/v1)/([\w/]+)$", re.ASCII)
_FEES = "/sapi/v1/asset/tradeFee"  # a signed call in truth; some clients list no instrument without it
_WEIGHTS = {
    "exchangeInfo": 20,
    "trades": 25,
    "historicalTrades": 25,
    "aggTrades": 4,
    "klines": 2,
    "uiKlines": 2,
    "avgPrice": 2,
}


class Answer(NamedTuple):
    """Status, JSON body and the request weight it cost."""

    status: int
    body: bytes
    weight: int = 1


class Rest:
    """Answers for ``symbols``. ``stale``: ages in ms of the books the next depth requests get; ``skew``:
    how many ms the time told is ahead; ``candid``: its list says that the symbols are simulated."""

    def __init__(self, symbols: Mapping[str, Symbol], *, futures: bool = False, candid: bool = False) -> None:
        self._symbols, self._candid = symbols, candid
        self._futures = futures
        self.stale: deque[int] = deque()
        self.skew = 0

    async def answer(self, now: int, path: str, values: Mapping[str, str], *, unit: int = 1) -> Answer:
        """What ``GET path?values`` gets at venue time ``now`` (UTC ms); 404 for an unknown path.

        ``unit`` 1000: times in µs, as the client asked for.
        """
        matched = _PATH.match(path)
        name = matched[1] if matched else path if path == _FEES else ""
        query = Query(values, unit=unit)
        try:
            body = await self._body(name, now, query)
        except Refused as error:
            return Answer(error.status, msgspec.json.encode({"code": error.code, "msg": str(error)}))
        if body is None:
            return Answer(404, b'{"code":-1000,"msg":"Unknown path."}')
        return Answer(200, msgspec.json.encode(body), self._weight(name, query))

    async def _body(self, name: str, now: int, query: Query) -> Any:
        if name == "ping":
            return {}
        if name == "time":
            return {"serverTime": (now + self.skew) * query.unit}
        if name == "exchangeInfo":
            wanted = query.symbols(self._symbols)[0]
            return exchange_info(self._symbols, wanted, now * query.unit, candid=self._candid)
        if name == _FEES:
            fees = {"makerCommission": "0.001", "takerCommission": "0.001"}
            return [{"symbol": symbol, **fees} for symbol in query.symbols(self._symbols)[0]]
        if name.startswith("ticker"):
            return await self._tickers(name, now, query)
        if name not in _WEIGHTS and name != "depth":
            return None
        symbol = self._symbol(query)
        now = symbol.at(now)
        if name in ("trades", "historicalTrades"):
            return trades(symbol.tape, now, query, by_id=name == "historicalTrades")
        if name == "aggTrades":
            return aggregates(symbol.tape, now, query)
        if name == "depth":
            then = now - (self.stale.popleft() if self.stale else 0)
            body = rest_market.depth(symbol, then, query)
            times = {"E": then * query.unit, "T": then * query.unit} if self._futures else {}
            return {"lastUpdateId": body["lastUpdateId"], **times, **body}
        if name == "avgPrice":
            return rest_market.average_price(symbol, now, query)
        return await rest_market.klines(symbol, now, query)

    async def _tickers(self, name: str, now: int, query: Query) -> Any:
        if name not in ("ticker", "ticker/tradingDay", "ticker/24hr", "ticker/price", "ticker/bookTicker"):
            return None
        if name in ("ticker", "ticker/tradingDay") and "symbol" not in query and "symbols" not in query:
            query.text("symbol")
        wanted, single = query.symbols(self._symbols)
        bodies = []
        for symbol in (self._symbols[each] for each in wanted):
            at = symbol.at(now)
            if name == "ticker/price":
                bodies.append(rest_market.last_price(symbol, at))
            elif name == "ticker/bookTicker":
                bodies.append(rest_market.best_price(symbol, at))
            elif name == "ticker/24hr":
                bodies.append(await rest_market.day_ticker(symbol, at, query))
            else:
                bodies.append(await rest_market.rolling_ticker(symbol, at, query, today=name != "ticker"))
        return bodies[0] if single else bodies

    def _symbol(self, query: Query) -> Symbol:
        name = query.text("symbol")
        if name not in self._symbols:
            raise Refused(-1121, "Invalid symbol.")
        return self._symbols[name]

    def _weight(self, name: str, query: Query) -> int:
        if name == "depth":
            limit = query.limit(100, 5000)
            return next(weight for most, weight in ((100, 5), (500, 25), (1000, 50), (5000, 250)) if limit <= most)
        if not name.startswith("ticker"):
            return _WEIGHTS.get(name, 1)
        count = len(query.symbols(self._symbols)[0])
        if name in ("ticker/price", "ticker/bookTicker"):
            return 2 if "symbol" in query else 4
        if name == "ticker/24hr":
            return 2 if count <= 20 else 40 if count <= 100 else 80
        return min(4 * count, 200)
