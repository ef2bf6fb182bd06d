"""Books and quotes as JSON objects: the same on REST and on every push channel."""

from __future__ import annotations

import msgspec

from tapewick.books import BookView
from tapewick.decimals import format_mantissa
from tapewick.ladder import Levels, side_json
from tapewick.model import BookUpdate, Quote

__all__ = ["book_json", "delta_json", "quote_json", "state_json"]

MS = 1_000_000


def state_json(book: BookView | BookUpdate, state: str | None = None) -> bytes:
    """Where a book stands, without levels. ``state`` overrides its own; times are ms, or null."""
    told: dict[str, object] = {
        "instrument": book.instrument,
        "state": state or book.state,
        "source_run": book.run,
        "seq": book.seq,
        "first_update_id": book.first_id,
        "last_update_id": book.last_id,
        "ts_event": book.ts_event // MS or None,
    }
    if book.detail:
        told["detail"] = book.detail
    return msgspec.json.encode(told)


def book_json(book: BookView | BookUpdate, levels: Levels, state: str | None = None, **more: object) -> bytes:
    """A book with ``levels``, best first, and ``more`` fields."""
    scales = book.price_scale, book.size_scale
    bids = side_json(levels.bid_price, levels.bid_size, *scales)
    asks = side_json(levels.ask_price, levels.ask_size, *scales)
    extra = b"".join(b',"%s":%s' % (name.encode(), msgspec.json.encode(value)) for name, value in more.items())
    return state_json(book, state)[:-1] + extra + b',"bids":%s,"asks":%s}' % (bids, asks)


def delta_json(view: BookView, prev_seq: int, first_id: int, changed: Levels) -> bytes:
    """What ``changed`` since ``prev_seq``: quantity "0" removes a level."""
    told = {
        "state": view.state,
        "source_run": view.run,
        "prev_seq": prev_seq,
        "seq": view.seq,
        "first_update_id": first_id,
        "last_update_id": view.last_id,
        "ts_event": view.ts_event // MS or None,
    }
    scales = view.price_scale, view.size_scale
    sides = (
        side_json(changed.bid_price, changed.bid_size, *scales),
        side_json(changed.ask_price, changed.ask_size, *scales),
    )
    return msgspec.json.encode(told)[:-1] + b',"b":%s,"a":%s}' % sides


def quote_json(quote: Quote) -> bytes:
    """Best bid and ask."""
    return msgspec.json.encode(
        {
            "instrument": quote.instrument,
            "update_id": quote.update_id,
            "bid": format_mantissa(quote.bid, quote.price_scale),
            "bid_size": format_mantissa(quote.bid_size, quote.size_scale),
            "ask": format_mantissa(quote.ask, quote.price_scale),
            "ask_size": format_mantissa(quote.ask_size, quote.size_scale),
            "ts_event": quote.ts_event // MS or None,
            "ts_recv": quote.ts_recv // MS,
        }
    )
