"""The body of ``POST /v1/ingest/trades``: one verdict per item, and the batches of what is sound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Literal

import msgspec
import numpy as np

from tapewick.decimals import INT64_MAX, parse_mantissa
from tapewick.errors import BadDecimal, BadRequest
from tapewick.keys import Grant
from tapewick.model import Instrument, TradeBatch

__all__ = ["VENUE", "IngestAnswer", "IngestBody", "Item", "Items", "Verdict", "decode", "registrable"]

VENUE = "hook"
"""The venue of all instruments that are written from outside: no trade of a collected venue can be forged."""

MS = 1_000_000
EARLIEST = 1_230_768_000_000  # 2009-01-01
AHEAD = 5_000  # ms by which a trade may lie in the future
LARGEST_ID = 2**62
SCALE = 8  # decimals of prices and sizes of new instruments
WORD = 2**64 - 1
LARGEST_WORTH = 2**96  # mantissas: so that 128-bit sums hold 2**31 of the largest trades
HEAD_ROOM = 1000  # factor that stays free above the largest price or size
DECIMAL = re.compile(r"\d{1,20}(\.\d{1,18})?", re.ASCII)
SYMBOL = re.compile(rf"{VENUE}:[A-Za-z0-9][A-Za-z0-9._/-]{{0,31}}", re.ASCII)
SIDES = {"buy": 1, "sell": -1, "unknown": 0}


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """One trade. ``trade_id``: an integer where ids are contiguous, else any text that names the trade."""

    price: str
    size: str
    ts_event: int
    trade_id: int | str | None = None
    instrument: str | None = None
    side: Literal["buy", "sell", "unknown"] = "unknown"


class IngestBody(msgspec.Struct, forbid_unknown_fields=True):
    """Trades of ``instrument``, or each of its own. ``id_kind``: of instruments that are new here (None: ``unique``);
    what is known must be of it. ``source``: which of the sender's programs names the trades; the same ``trade_id`` of
    two is two trades where ids are ``unique``."""

    trades: list[msgspec.Raw]
    instrument: str = ""
    id_kind: Literal["contiguous", "unique"] | None = None
    source: str = ""


class Verdict(msgspec.Struct, omit_defaults=True):
    """What became of the item at ``index``; of a rejected one, which field is wrong and why. A ``queued`` one is safe
    on the server's disk and will be stored once."""

    index: int
    verdict: Literal["accepted", "duplicate", "queued", "rejected"]
    field: str = ""
    reason: str = ""


class IngestAnswer(msgspec.Struct):
    """All accepted trades and duplicates are in the store when this is answered, those queued on disk."""

    accepted: int
    duplicates: int
    queued: int
    rejected: int
    verdicts: list[Verdict]


def decode(body: bytes, most: int) -> IngestBody:
    """The request. Raises ``BadRequest``."""
    try:
        found = msgspec.json.decode(body, type=IngestBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no batch of trades: {error}", field=_field(str(error)) or "body") from None
    if not found.trades:
        raise BadRequest("trades is empty: send at least one", field="trades")
    if len(found.trades) > most:
        raise BadRequest(f"{len(found.trades):,} trades in one request; send at most {most:,}", field="trades")
    if len(found.source) > 64 or "\0" in found.source:
        raise BadRequest("source is a text of up to 64 characters, none of them NUL", field="source")
    return found


def registrable(id: str) -> bool:
    """Whether ``id`` may become an instrument."""
    return SYMBOL.fullmatch(id) is not None


def _field(message: str) -> str:
    found = re.search(r"at `\$\.?([\w.\[\]]*)`", message) or re.search(r"field `(\w+)`", message)
    return found[1] if found else ""


class Items:
    """The items of one request on their way to verdicts. ``now`` in ms; ``key``: the request's idempotency key."""

    def __init__(self, body: IngestBody, grant: Grant, key: str, now: int) -> None:
        self._body, self._grant, self._key, self._now = body, grant, key, now
        self.verdicts: list[Verdict | None] = [None] * len(body.trades)
        self.items: dict[int, Item] = {}
        for index, raw in enumerate(body.trades):
            self._decode(index, raw)

    def instruments(self) -> set[str]:
        """Those that the items not rejected so far are of."""
        return {self._id(item) for item in self.items.values()}

    def reject(self, index: int, field: str, reason: str) -> None:
        """Leave an item out."""
        self.verdicts[index] = Verdict(index, "rejected", field, reason)
        self.items.pop(index, None)

    def new(self, id: str) -> Instrument:
        """The instrument ``id`` as it would be made."""
        venue, _, symbol = id.partition(":")
        kind = self._body.id_kind or "unique"
        return Instrument(id=id, venue=venue, symbol=symbol, price_scale=SCALE, size_scale=SCALE, id_kind=kind)

    def conflict(self, index: int) -> None:
        """Leave out an item whose id is another trade's."""
        id = self.items[index].trade_id
        self.reject(
            index, "trade_id", f"{id} is another trade: its price, size, side or time differ, and the first one stays"
        )

    def fitting(self, own: Instrument) -> bool:
        """Whether any item could be a trade of ``own``; nothing is decided of any."""
        return any(
            isinstance(self._made(index, item, own), list)
            for index, item in self.items.items()
            if self._id(item) == own.id
        )

    def _id(self, item: Item) -> str:
        return item.instrument if item.instrument is not None else self._body.instrument

    def _decode(self, index: int, raw: msgspec.Raw) -> None:
        try:
            item = msgspec.json.decode(raw, type=Item)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.reject(index, _field(str(error)) or "trades", str(error)[:200])
            return
        id = self._id(item)
        self.items[index] = item
        if not id:
            self.reject(index, "instrument", "the item names no instrument, and neither does the request")
        elif not registrable(id):
            self.reject(index, "instrument", f"only instruments of {VENUE}: can be written, with a plain symbol")
        elif not self._grant.covers(id):
            self.reject(index, "instrument", f"this key is for {self._grant.instruments} only")
        elif not EARLIEST <= item.ts_event <= self._now + AHEAD:
            self.reject(index, "ts_event", "not a time in ms between 2009 and now")
        elif item.trade_id is None and not self._key:
            raise BadRequest(
                "an item without trade_id needs the request's Idempotency-Key: without either it cannot be told from "
                "its own repetition",
                field="trade_id",
            )

    def batches(self, known: Mapping[str, Instrument], recv: int) -> list[tuple[TradeBatch, list[int]]]:
        """A batch per instrument, with the index of the item behind each of its trades. ``recv`` in ns."""
        rows: dict[str, dict[tuple[int, int], tuple[int, list[int]]]] = {}
        for index, item in list(self.items.items()):
            own = known.get(id := self._id(item))
            if own is None:
                self.reject(
                    index,
                    "instrument",
                    "no such instrument, and none is made (ingest.auto_register, ingest.max_instruments)",
                )
            elif (row := self._row(index, item, own)) is not None:
                mine = rows.setdefault(id, {})
                if (name := (row[-2], row[-1])) not in mine:
                    mine[name] = (index, row)
                elif own.id_kind == "contiguous" and mine[name][1] != row:
                    self.conflict(index)
                else:
                    self.verdicts[index] = Verdict(index, "duplicate")
        return [(_batch(known[id], recv, mine), [index for index, _ in mine.values()]) for id, mine in rows.items()]

    def _row(self, index: int, item: Item, own: Instrument) -> list[int] | None:
        """What ``_made`` makes of an item; None, and a verdict, where something is wrong with it."""
        row = self._made(index, item, own)
        if isinstance(row, list):
            return row
        self.reject(index, *row)
        return None

    def _made(self, index: int, item: Item, own: Instrument) -> list[int] | tuple[str, str]:
        """id, time, price, size, side and the two words of the name of an item; or a field that is wrong, and why."""
        if self._body.id_kind not in (None, own.id_kind):
            told = f"ids of {own.id} are {own.id_kind} since it was made"
            return "id_kind", f"{told}: leave id_kind out and send such ids, or take another instrument"
        name = self._name(index, item, own)
        if isinstance(name, str):
            return "trade_id", name
        values = []
        for field, text, scale in (("price", item.price, own.price_scale), ("size", item.size, own.size_scale)):
            value = _mantissa(text, scale)
            if isinstance(value, str):
                return field, value
            values.append(value)
        if values[0] * values[1] >= LARGEST_WORTH:
            return "size", "price times size is too large"
        id = name[0] if own.id_kind == "contiguous" else (name[0] & WORD) >> 2  # trades of one time: in order of names
        return [id, item.ts_event * MS, *values, SIDES[item.side], *name]

    def _name(self, index: int, item: Item, own: Instrument) -> tuple[int, int] | str:
        """What names the trade: its id, or the words of the hash of its sender and key; or what is wrong with it."""
        id = item.trade_id
        if own.id_kind == "contiguous":
            if not isinstance(id, int):
                return (
                    f"ids of {own.id} are contiguous: send an integer (id_kind of a new instrument sets what they are)"
                )
            return (id, 0) if 0 <= id < LARGEST_ID else "out of range"
        if isinstance(id, int):
            return f"ids of {own.id} are unique: send a text (or id_kind contiguous, where the instrument is new)"
        if id is not None and (not 1 <= len(id) <= 200 or "\0" in id):  # NUL parts what the name is made of
            return "1 to 200 characters are taken, none of them NUL"
        if id is None:
            parts: tuple[str, ...] = (self._grant.sender, "request", f"{self._key}\0{index}")
        else:  # a sender without a source: its names are those of before there were any
            own_names = ("sender", self._grant.source) if self._grant.source else ()
            parts = (*own_names, self._body.source, "id", id)
        digest = blake2b("\0".join((own.id, *parts)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return int.from_bytes(digest[:8], "big", signed=True), int.from_bytes(digest[8:], "big", signed=True)


def _mantissa(text: str, scale: int) -> int | str:
    if not DECIMAL.fullmatch(text):
        return 'not a plain decimal as text, like "61685.99"'
    try:
        value = parse_mantissa(text, scale)
    except BadDecimal as error:
        return str(error)
    if value <= 0:
        return "must be above 0"
    return value if value <= INT64_MAX // HEAD_ROOM else f"too large for {scale} decimals"


def _batch(own: Instrument, recv: int, rows: Mapping[tuple[int, int], tuple[int, list[int]]]) -> TradeBatch:
    columns = np.array([row for _, row in rows.values()], np.int64).T
    ids, times, prices, sizes, sides, *name = (np.ascontiguousarray(column) for column in columns)
    return TradeBatch(
        instrument=own.id,
        trade_id=ids,
        first_id=ids,
        count=np.ones(len(ids), np.int32),
        ts_event=times,
        ts_recv=np.full(len(ids), recv, np.int64),
        price=prices,
        size=sizes,
        side=sides.astype(np.int8),
        price_scale=own.price_scale,
        size_scale=own.size_scale,
        source="ingest",
        key=np.column_stack(name) if own.id_kind == "unique" else None,
    )
