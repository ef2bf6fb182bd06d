"""A venue with nothing to compute: pages of ``historicalTrades`` made before, served over loopback HTTP.

It also lists the one symbol and tells the time, so that the live source can be pointed at it.

``python bench/pages.py TRADES`` prints its address once it listens; pages start at ids 1, 1001, 2001, …
and, asked for others, are cut out of these.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

import msgspec

from tapewick.sim.market import LISTING, Market

__all__ = ["START"]

START = 1_767_225_600_000
PAGE = 1000
LISTED = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "stepSize": "0.00001"},
    ],
}
_ASKED = re.compile(rb"GET /api/v3/historicalTrades\?(\S*)")


def rows(market: Market, low: int, high: int) -> list[dict[str, object]]:
    return [
        {
            "id": trade.id,
            "price": f"{trade.price}000000",
            "qty": f"{trade.size}000",
            "quoteQty": "0.00000000",
            "time": trade.time,
            "isBuyerMaker": trade.buyer_is_maker,
            "isBestMatch": True,
        }
        for trade in market.trades(low, high)
    ]


async def serve(trades: int) -> None:
    """Answer until killed. The symbol's prices have two digits, its sizes five; the venue prints eight."""
    market = Market(LISTING["BTCUSDT"], seed=1, rate=100.0, origin=START)
    ready = {low: msgspec.json.encode(rows(market, low, low + PAGE - 1)) for low in range(1, trades + 1, PAGE)}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            found = _ASKED.match(head)
            if found is None:
                known = (
                    {"symbols": [LISTED]} if b"exchangeInfo" in head else {"serverTime": time.time_ns() // 1_000_000}
                )
                body = msgspec.json.encode(known)
            else:
                asked = dict(part.split(b"=") for part in found[1].split(b"&"))
                low, limit = int(asked[b"fromId"]), int(asked[b"limit"])
                body = ready.get(low) if limit == PAGE else None
                if body is None:
                    body = msgspec.json.encode(rows(market, low, low + limit - 1))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()

    async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(until_gone, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
