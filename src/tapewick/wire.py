"""The one binary codec: bus messages to protobuf bytes and back, without a protobuf runtime.

A column is a packed fixed-width field, so its payload is the numpy array's own memory:
encoding joins buffers, decoding returns views. The schema is
``proto/tapewick/v1``; output equals the generated code's, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np

from tapewick._wire_fields import (
    BYTES,
    FIXED64,
    TAGS,
    VARINT,
    Field,
    columns,
    decode_fields,
    encode_fields,
    fields,
    split,
    varint,
)
from tapewick._wire_orders import ANNOUNCEMENT, get_announcement, put_announcement
from tapewick.errors import WireError
from tapewick.model import (
    CANDLE,
    BookState,
    BookUpdate,
    CandleBatch,
    Gap,
    Head,
    Health,
    Instrument,
    Message,
    Quote,
    TradeBatch,
    Wanted,
    Watch,
)
from tapewick.scans import Announcement

__all__ = ["FRAME_TYPES", "body", "decode", "encode", "frame", "stamp", "stamped"]

_CANDLE_COLUMNS = tuple(
    name for name in CANDLE.names or () if name not in ("number", "reserved", "pos", "tf", "rev")
)  # fmt: skip
_TRADES = fields(
    "instrument:str price_scale:int size_scale:int trade_id:<i8 first_id:<i8 count:<i4 ts_event:<i8 ts_recv:<i8 "
    "price:<i8 size:<i8 side:i1 seq:<i8 covers_given:bool covers_from:<i8 covers_to:<i8 late:bool clock:fixed "
    "source:str epoch:str key:<i8"
)
_CANDLES = fields(
    "instrument:str price_scale:int size_scale:int provisional:bool epoch:str pos:int open_time:<i8 open:<i8 "
    "high:<i8 low:<i8 close:<i8 volume_lo:<u8 volume_hi:<i8 quote_volume_lo:<u8 quote_volume_hi:<i8 "
    "taker_buy_volume_lo:<u8 taker_buy_volume_hi:<i8 taker_buy_quote_volume_lo:<u8 taker_buy_quote_volume_hi:<i8 "
    "trades:<i8 first_id:<i8 last_id:<i8 first_ts:<i8 last_ts:<i8 first_key:<i8 last_seq:<i8 row_pos:<i8 tf:<i4 "
    "rev:<i4 state:i1 complete:i1 origin:i1 filled:i1 change:i1 reason:i1"
)
_HEAD = fields("instrument:str epoch:str seq:int pos:int watermark:fixed price_scale:int size_scale:int")
_WANTED = fields("instrument:str from_id:<i8 to_id:<i8 since:<i8")
_GAP = fields(
    "instrument:str left_id:fixed right_id:fixed left_ts:fixed right_ts:fixed reason:str state:str attempts:int"
)
_INSTRUMENT = fields(
    "id:str venue:str symbol:str base:str quote:str price_scale:int size_scale:int status:str id_kind:str "
    "granularity:str"
)
_HEALTH = fields("source:str state:str ts:fixed detail:str instrument:str collector:str")
_WATCH = fields("instrument:str wanted:bool")
_BOOK = fields(
    "instrument:str run:str prev_seq:int seq:int state:str snapshot:bool first_id:int last_id:int ts_event:fixed "
    "ts_recv:fixed bid_price:<i8 bid_size:<i8 ask_price:<i8 ask_size:<i8 price_scale:int size_scale:int source:str "
    "detail:str"
)
_QUOTE = fields(
    "instrument:str update_id:int bid:fixed bid_size:fixed ask:fixed ask_size:fixed ts_event:fixed ts_recv:fixed "
    "price_scale:int size_scale:int source:str"
)
_FRAME = fields("type:int channel:str pos:str from_pos:str to_pos:str ts:fixed kind:str reason:str late:bool")
_FRAME_REST = tuple(
    Field(name, number, kind)
    for name, number, kind in (("count", 14, "int"), ("id", 15, "str"), ("code", 16, "str"), ("message", 17, "str"))
)
_CHANNEL_STATE = fields("channel:str pos:str recovered:bool replayed:int levels:int code:int message:str")
_TICKER = fields(
    "instrument:str last:str change_24h:str change_pct_24h:str open_24h:str high_24h:str low_24h:str volume_24h:str "
    "quote_volume_24h:str trades_24h:int vwap_24h:str session_high:str session_low:str session_vwap:str sma10:str "
    "ema20:str ts:fixed position:str"
)
_CONDITION = fields(
    "kind:str instrument:str source:str state:str detail:str ts:fixed source_run:str seq:int last_update_id:int "
    "ts_event:fixed left_id:int right_id:int left_ts:fixed right_ts:fixed reason:str attempts:int"
)
_NO_FIELDS: dict[str, Any] = dict.fromkeys((f.name for f in (*_FRAME, *_FRAME_REST)), None)
FRAME_TYPES = {
    name: number
    for number, name in enumerate(
        "welcome subscribed snapshot event update gap skip notice pong unsubscribed list error".split(), 1
    )
}
"""Numbers of a frame's types, by the names that JSON frames give them."""


def _put_trades(m: TradeBatch) -> bytes:
    covers = m.covers or ()
    given = {
        "covers_given": m.covers is not None,
        "covers_from": [low for low, _ in covers],
        "covers_to": [high for _, high in covers],
    }
    return encode_fields(_TRADES, {f.name: getattr(m, f.name, None) for f in _TRADES} | given)


def _get_trades(v: dict[str, Any]) -> TradeBatch:
    n = columns(v, tuple(f.name for f in _TRADES[3:11]))
    covers_from, covers_to, given = (v.pop(name) for name in ("covers_from", "covers_to", "covers_given"))
    if len(covers_from) != len(covers_to):
        raise WireError("covers_from and covers_to differ in length")
    if len(v["seq"]) not in (0, n):
        raise WireError(f"columns of different length: seq {len(v['seq'])}, trade_id {n}")
    if len(v["key"]) not in (0, 2 * n):
        raise WireError(f"columns of different length: key {len(v['key'])} words, trade_id {n}")
    v["seq"] = v["seq"] if len(v["seq"]) else None
    v["key"] = v["key"].reshape(-1, 2) if len(v["key"]) else None
    covers = tuple(zip(covers_from.tolist(), covers_to.tolist(), strict=True)) if given else None
    return TradeBatch(covers=covers, **v)


def _put_candles(m: CandleBatch) -> bytes:
    columns = {name: m.rows[name] for name in (*_CANDLE_COLUMNS, "tf", "rev")}
    own = {"row_pos": m.rows["pos"], "pos": m.pos}
    head = {f.name: getattr(m, f.name) for f in _CANDLES[:5]}
    return encode_fields(_CANDLES, columns | head | own)


def _get_candles(v: dict[str, Any]) -> CandleBatch:
    n = columns(v, tuple(f.name for f in _CANDLES[6:]))
    rows = np.zeros(n, CANDLE)
    for name in (*_CANDLE_COLUMNS, "tf", "rev"):
        rows[name] = v[name]
    rows["pos"] = v["row_pos"]
    return CandleBatch(rows=rows, pos=v["pos"], **{f.name: v[f.name] for f in _CANDLES[:5]})


def _put_wanted(m: Wanted) -> bytes:
    low, high = [r[0] for r in m.ranges], [r[1] for r in m.ranges]
    return encode_fields(_WANTED, {"instrument": m.instrument, "from_id": low, "to_id": high, "since": m.since})


def _get_wanted(v: dict[str, Any]) -> Wanted:
    columns(v, ("from_id", "to_id"))
    ranges = tuple(zip(v["from_id"].tolist(), v["to_id"].tolist(), strict=True))
    if len(v["since"]) not in (0, len(ranges)):
        raise WireError(f"columns of different length: since {len(v['since'])}, from_id {len(ranges)}")
    return Wanted(instrument=v["instrument"], ranges=ranges, since=tuple(v["since"].tolist()))


def _get_book(v: dict[str, Any]) -> BookUpdate:
    columns(v, ("bid_price", "bid_size"))
    columns(v, ("ask_price", "ask_size"))
    if v["state"] not in get_args(BookState):
        raise WireError(f"{v['state'][:20]!r} is no state of a book; is it a message of a newer version?")
    return BookUpdate(**v)


class _Kind(NamedTuple):
    number: int
    type: type
    fields: tuple[Field, ...]
    put: Callable[[Any], bytes]
    get: Callable[[dict[str, Any]], Any]


def _plain(number: int, type_: type, fields: tuple[Field, ...]) -> _Kind:
    """A message whose fields are its attributes; ``msgspec`` checks literals on the way in."""
    return _Kind(
        number,
        type_,
        fields,
        lambda m: encode_fields(fields, {f.name: getattr(m, f.name) for f in fields}),
        lambda v: msgspec.convert(v, type_),
    )


_KINDS = (
    _Kind(1, TradeBatch, _TRADES, _put_trades, _get_trades),
    _Kind(2, CandleBatch, _CANDLES, _put_candles, _get_candles),
    _plain(3, Head, _HEAD),
    _Kind(4, Wanted, _WANTED, _put_wanted, _get_wanted),
    _plain(5, Instrument, _INSTRUMENT),
    _plain(6, Health, _HEALTH),
    _plain(7, BookUpdate, _BOOK)._replace(get=_get_book),
    _plain(8, Quote, _QUOTE),
    _plain(9, Gap, _GAP),
    _plain(10, Watch, _WATCH),
    _Kind(11, Announcement, ANNOUNCEMENT, put_announcement, get_announcement),
)
_BY_TYPE = {kind.type: kind for kind in _KINDS}
_BY_NUMBER = {kind.number: kind for kind in _KINDS}


def encode(message: Message) -> bytes:
    """The message as a protobuf ``Envelope``."""
    content = body(message)
    return b"".join((TAGS[_BY_TYPE[type(message)].number, BYTES], varint(len(content)), content))


_ORIGIN, _NUMBER = 14, 15  # of an Envelope


def stamp(origin: int, number: int) -> bytes:
    """What, put after an ``Envelope``, says who put it on the bus and how many came before it."""
    return b"".join((TAGS[_ORIGIN, FIXED64], origin.to_bytes(8, "little"), TAGS[_NUMBER, VARINT], varint(number)))


def stamped(data: bytes | memoryview) -> tuple[int, int]:
    """Origin and number of an ``Envelope``, 0 where it has none. Raises ``WireError`` as ``decode`` does."""
    found = {number: value for number, wire, value in split(memoryview(data)) if (number, wire) in _STAMP}
    return int.from_bytes(found.get(_ORIGIN, b""), "little"), found.get(_NUMBER, 0)


_STAMP = {(_ORIGIN, FIXED64), (_NUMBER, VARINT)}


def body(message: Message) -> bytes:
    """The message alone, without an ``Envelope``."""
    return _BY_TYPE[type(message)].put(message)


_FRAME_DATA: dict[type, int] = {TradeBatch: 10, CandleBatch: 11, BookUpdate: 12, Quote: 13}


def frame(
    type_: str,
    data: TradeBatch | CandleBatch | BookUpdate | Quote | None = None,
    *,
    channels: Sequence[Mapping[str, Any]] = (),
    ticker: Mapping[str, Any] | None = None,
    conditions: Sequence[Mapping[str, Any]] = (),
    **fields: str | int | bool,
) -> bytes:
    """A push ``Frame`` of the type a JSON frame would name, with ``fields`` of its schema, as protobuf.

    ``channels``, ``ticker`` and ``conditions`` become messages; what those have no field for is left out.
    """
    values: dict[str, Any] = {**_NO_FIELDS, **fields, "type": FRAME_TYPES[type_]}
    head = encode_fields(_FRAME, values)
    rest = encode_fields(_FRAME_REST, values)
    rest += b"".join(_nested(18, _CHANNEL_STATE, one) for one in channels)
    rest += b"" if ticker is None else _nested(19, _TICKER, ticker)
    rest += b"".join(_nested(20, _CONDITION, one) for one in conditions)
    if data is None:
        return head + rest
    content = body(data)
    return b"".join((head, TAGS[_FRAME_DATA[type(data)], BYTES], varint(len(content)), content, rest))


def _nested(number: int, fields: tuple[Field, ...], values: Mapping[str, Any]) -> bytes:
    """A message within a message; absent values are omitted."""
    content = encode_fields(fields, {field.name: values.get(field.name) for field in fields})
    return b"".join((TAGS[number, BYTES], varint(len(content)), content))


def decode(data: bytes | memoryview) -> Message:
    """The message in an ``Envelope``. Columns are read-only views that keep ``data`` alive.

    Unknown fields are skipped. Raises ``WireError`` for bytes that are no tapewick message.
    """
    found = [(n, v) for n, wire, v in split(memoryview(data)) if n in _BY_NUMBER and wire == BYTES]
    if not found:
        raise WireError("no known message inside; is it a tapewick message of a newer version?")
    number, body = found[-1]
    kind = _BY_NUMBER[number]
    try:
        message: Message = kind.get(decode_fields(kind.fields, body))
    except msgspec.ValidationError as error:
        raise WireError(f"{kind.type.__name__}: {error}") from error
    return message
