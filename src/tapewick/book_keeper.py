"""Stores order books at intervals, beside the engine and off its way.

Collectors publish each book whole every few seconds: the newest of those is what is stored, so
nothing is applied here, and every stored book is one its collector vouched for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from tapewick.clock import Clock
from tapewick.errors import StoreError
from tapewick.model import BookUpdate
from tapewick.protocols import Bus, Delivery, Store

__all__ = ["keep_books"]

log = structlog.get_logger()


async def keep_books(bus: Bus, store: Store, clock: Clock, *, interval: float, levels: int) -> None:
    """Store the newest whole book of each known instrument every ``interval`` seconds, ``levels`` a side.

    Ends with the bus, and raises what ended it. What a failing store did not take is superseded by the next.
    """
    newest: dict[str, BookUpdate] = {}
    follower = asyncio.create_task(_follow(bus.subscribe(("books",)), newest, levels), name="books-follow")
    try:
        while not follower.done():
            await clock.sleep(interval)
            held = len(newest)
            try:
                known = {instrument.id for instrument in await store.instruments()}
                rows = [book for id, book in newest.items() if id in known]
                newest.clear()
                await store.put_books(rows)
            except StoreError as error:
                log.error("books were not stored", books=held, cause=str(error))
    finally:
        follower.cancel()
        await asyncio.wait([follower])
    if not follower.cancelled():
        follower.result()


async def _follow(deliveries: AsyncIterator[Delivery], newest: dict[str, BookUpdate], levels: int) -> None:
    async for delivery in deliveries:
        book = delivery.message
        if isinstance(book, BookUpdate) and book.snapshot and book.state == "live":
            held = newest.get(book.instrument)
            if held is None or held.last_id <= book.last_id or held.run == book.run:
                newest[book.instrument] = _cut(book, levels)
        delivery.ack()


def _cut(book: BookUpdate, levels: int) -> BookUpdate:
    """A copy with the best ``levels`` of each side: the rest is not held on to."""
    sides = ("bid_price", "bid_size", "ask_price", "ask_size")
    return replace(book, **{name: getattr(book, name)[:levels].copy() for name in sides})
