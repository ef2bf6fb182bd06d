"""Trades through ``CcxtSource``: ccxt's own Binance class pointed at the address given, as JSON Lines of columns."""

import asyncio
import json
import sys
from contextlib import aclosing

from tapewick.model import Instrument, TradeBatch
from tapewick.sources.ccxt import CcxtSource


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


async def main(http: str, symbol: str, count: int) -> None:
    source = CcxtSource([symbol], venue="binance", options={"options": {"fetchMarkets": {"types": ["spot"]}}})
    exchange = source.exchange()
    exchange.urls["api"]["public"] = f"{http}/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"{http.replace('http', 'ws', 1)}/ws"
    exchange.has["fetchCurrencies"] = False
    seen = 0
    async with aclosing(source.events()) as events:
        async for event in events:
            if isinstance(event, Instrument):
                say(id=event.id, kind=event.id_kind, scales=[event.price_scale, event.size_scale])
            elif isinstance(event, TradeBatch) and len(event):
                columns = (event.trade_id, event.ts_event, event.price, event.size, event.side)
                rows = [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
                say(rows=rows, scales=[event.price_scale, event.size_scale])
                seen += len(rows)
                if seen >= count:
                    return


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
