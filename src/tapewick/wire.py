"""The one binary codec: bus messages to protobuf bytes and back, without a protobuf runtime.

A column is a packed fixed-width field, so its payload is the numpy array's own memory:
encoding joins buffers, decoding returns views. The schema is
``proto/tapewick/v1``; output equals the generated code's, byte for byte.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np

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

__all__ = ["FRAME_TYPES", "body", "decode", "encode", "frame", "stamp", "stamped"]

_LITTLE = sys.byteorder == "little"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    """One field: its number and kind (str, int, bool, fixed, or a numpy dtype for a column)."""

    name: str
    number: int
    kind: str

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return np.dtype(self.kind) if self.kind[0] in "<i|" and self.kind != "int" else None


def _fields(text: str) -> tuple[_Field, ...]:
    parts = (item.split(":") for item in text.split())
    return tuple(_Field(name, number, kind) for number, (name, kind) in enumerate(parts, 1))


_CANDLE_COLUMNS = tuple(
    name for name in CANDLE.names or () if name not in ("number", "reserved", "pos", "tf", "rev")
)  # fmt: skip
_TRADES = _fields(
    "instrument:str price_scale:int size_scale:int trade_id:<i8 first_id:<i8 count:<i4 ts_event:<i8 ts_recv:<i8 "
    "price:<i8 size:<i8 side:i1 seq:<i8 covers_given:bool covers_from:<i8 covers_to:<i8 late:bool clock:fixed "
    "source:str epoch:str key:<i8"
)
_CANDLES = _fields(
    "instrument:str price_scale:int size_scale:int provisional:bool epoch:str pos:int open_time:<i8 open:<i8 "
    "high:<i8 low:<i8 close:<i8 volume_lo:<u8 volume_hi:<i8 quote_volume_lo:<u8 quote_volume_hi:<i8 "
    "taker_buy_volume_lo:<u8 taker_buy_volume_hi:<i8 taker_buy_quote_volume_lo:<u8 taker_buy_quote_volume_hi:<i8 "
    "trades:<i8 first_id:<i8 last_id:<i8 first_ts:<i8 last_ts:<i8 first_key:<i8 last_seq:<i8 row_pos:<i8 tf:<i4 "
    "rev:<i4 state:i1 complete:i1 origin:i1 filled:i1 change:i1 reason:i1"
)
_HEAD = _fields("instrument:str epoch:str seq:int pos:int watermark:fixed price_scale:int size_scale:int")
_WANTED = _fields("instrument:str from_id:<i8 to_id:<i8 since:<i8")
_GAP = _fields(
    "instrument:str left_id:fixed right_id:fixed left_ts:fixed right_ts:fixed reason:str state:str attempts:int"
)
_INSTRUMENT = _fields(
    "id:str venue:str symbol:str base:str quote:str price_scale:int size_scale:int status:str id_kind:str "
    "granularity:str"
)
_HEALTH = _fields("source:str state:str ts:fixed detail:str instrument:str collector:str")
_WATCH = _fields("instrument:str wanted:bool")
_BOOK = _fields(
    "instrument:str run:str prev_seq:int seq:int state:str snapshot:bool first_id:int last_id:int ts_event:fixed "
    "ts_recv:fixed bid_price:<i8 bid_size:<i8 ask_price:<i8 ask_size:<i8 price_scale:int size_scale:int source:str "
    "detail:str"
)
_QUOTE = _fields(
    "instrument:str update_id:int bid:fixed bid_size:fixed ask:fixed ask_size:fixed ts_event:fixed ts_recv:fixed "
    "price_scale:int size_scale:int source:str"
)
_FRAME = _fields("type:int channel:str pos:str from_pos:str to_pos:str ts:fixed kind:str reason:str late:bool")
_FRAME_REST = tuple(
    _Field(name, number, kind)
    for name, number, kind in (("count", 14, "int"), ("id", 15, "str"), ("code", 16, "str"), ("message", 17, "str"))
)
_CHANNEL_STATE = _fields("channel:str pos:str recovered:bool replayed:int levels:int code:int message:str")
_TICKER = _fields(
    "instrument:str last:str change_24h:str change_pct_24h:str open_24h:str high_24h:str low_24h:str volume_24h:str "
    "quote_volume_24h:str trades_24h:int vwap_24h:str session_high:str session_low:str session_vwap:str sma10:str "
    "ema20:str ts:fixed position:str"
)
_CONDITION = _fields(
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


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_TAGS = {(number, wire): _varint(number << 3 | wire) for number in range(1, 64) for wire in (_VARINT, _FIXED64, _BYTES)}


def _encode_fields(fields: tuple[_Field, ...], values: dict[str, Any]) -> bytes:
    """Protobuf bytes of ``values``; defaults are omitted, as proto3 does."""
    parts: list[Any] = []
    for name, number, kind in fields:
        value = values[name]
        if value is None:
            continue
        if kind == "str":
            raw: Any = value.encode()
        elif kind in ("int", "bool"):
            if value:
                parts += (_TAGS[number, _VARINT], _varint(int(value)))
            continue
        elif kind == "fixed":
            if value:
                parts += (_TAGS[number, _FIXED64], int(value).to_bytes(8, "little", signed=True))
            continue
        else:
            raw = np.ascontiguousarray(value, dtype=kind).tobytes()
        if raw:
            parts += (_TAGS[number, _BYTES], _varint(len(raw)), raw)
    return b"".join(parts)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError("the message is cut inside a number; is it a tapewick message?")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
        shift += 7


def _split(data: memoryview) -> list[tuple[int, int, Any]]:
    """(field number, wire type, value) of each field; groups are refused."""
    out: list[tuple[int, int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise WireError("field number 0; is it a tapewick message?")
        value: Any
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        else:
            if wire == _BYTES:
                size, at = _read_varint(data, at)
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
            else:
                raise WireError(f"wire type {wire} in field {number}; is it a tapewick message?")
            if at + size > len(data):
                raise WireError(f"field {number} is cut short")
            value, at = data[at : at + size], at + size
        out.append((number, wire, value))
    return out


def _signed(value: int, bits: int = 64) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _decode_fields(fields: tuple[_Field, ...], data: memoryview) -> dict[str, Any]:
    """Values by name: defaults where absent, columns as read-only views on ``data``."""
    found: dict[int, list[Any]] = {}
    kinds = {f.number: f for f in fields}
    for number, wire, value in _split(data):
        field = kinds.get(number)
        if field is not None and _accepts(field, wire):
            found.setdefault(number, []).append(value)
    return {field.name: _value(field, found.get(field.number, [])) for field in fields}


def _accepts(field: _Field, wire: int) -> bool:
    if field.dtype is None:
        return wire == {"str": _BYTES, "int": _VARINT, "bool": _VARINT, "fixed": _FIXED64}[field.kind]
    return wire == _BYTES or wire == {8: _FIXED64, 4: _FIXED32, 1: _BYTES}[field.dtype.itemsize]


def _value(field: _Field, parts: list[Any]) -> Any:
    kind, dtype = field.kind, field.dtype
    if dtype is not None:
        # bytes fields: the last one wins; repeated ones concatenate, whether packed or not
        raw = (parts[-1] if parts else b"") if dtype.itemsize == 1 else parts[0] if len(parts) == 1 else b"".join(parts)
        if len(raw) % dtype.itemsize:
            raise WireError(f"column {field.name} has {len(raw)} bytes, not a multiple of {dtype.itemsize}")
        column = np.frombuffer(raw, dtype)
        return column if _LITTLE else column.astype(dtype.newbyteorder("="))
    if not parts:
        return {"str": "", "int": 0, "bool": False, "fixed": 0}[kind]
    last = parts[-1]
    if kind == "str":
        try:
            return str(last, "utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"field {field.name} is not valid UTF-8") from error
    if kind == "fixed":
        return int.from_bytes(last, "little", signed=True)
    return bool(last) if kind == "bool" else _signed(last)


def _columns(values: dict[str, Any], names: tuple[str, ...]) -> int:
    """The common length of the columns ``names``; raises ``WireError`` where they differ."""
    sizes = {len(values[name]) for name in names}
    if len(sizes) > 1:
        detail = ", ".join(f"{name} {len(values[name])}" for name in names)
        raise WireError(f"columns of different length: {detail}")
    return sizes.pop() if sizes else 0


def _put_trades(m: TradeBatch) -> bytes:
    covers = m.covers or ()
    given = {
        "covers_given": m.covers is not None,
        "covers_from": [low for low, _ in covers],
        "covers_to": [high for _, high in covers],
    }
    return _encode_fields(_TRADES, {f.name: getattr(m, f.name, None) for f in _TRADES} | given)


def _get_trades(v: dict[str, Any]) -> TradeBatch:
    n = _columns(v, tuple(f.name for f in _TRADES[3:11]))
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
    return _encode_fields(_CANDLES, columns | head | own)


def _get_candles(v: dict[str, Any]) -> CandleBatch:
    n = _columns(v, tuple(f.name for f in _CANDLES[6:]))
    rows = np.zeros(n, CANDLE)
    for name in (*_CANDLE_COLUMNS, "tf", "rev"):
        rows[name] = v[name]
    rows["pos"] = v["row_pos"]
    return CandleBatch(rows=rows, pos=v["pos"], **{f.name: v[f.name] for f in _CANDLES[:5]})


def _put_wanted(m: Wanted) -> bytes:
    low, high = [r[0] for r in m.ranges], [r[1] for r in m.ranges]
    return _encode_fields(_WANTED, {"instrument": m.instrument, "from_id": low, "to_id": high, "since": m.since})


def _get_wanted(v: dict[str, Any]) -> Wanted:
    _columns(v, ("from_id", "to_id"))
    ranges = tuple(zip(v["from_id"].tolist(), v["to_id"].tolist(), strict=True))
    if len(v["since"]) not in (0, len(ranges)):
        raise WireError(f"columns of different length: since {len(v['since'])}, from_id {len(ranges)}")
    return Wanted(instrument=v["instrument"], ranges=ranges, since=tuple(v["since"].tolist()))


def _get_book(v: dict[str, Any]) -> BookUpdate:
    _columns(v, ("bid_price", "bid_size"))
    _columns(v, ("ask_price", "ask_size"))
    if v["state"] not in get_args(BookState):
        raise WireError(f"{v['state'][:20]!r} is no state of a book; is it a message of a newer version?")
    return BookUpdate(**v)


class _Kind(NamedTuple):
    number: int
    type: type
    fields: tuple[_Field, ...]
    put: Callable[[Any], bytes]
    get: Callable[[dict[str, Any]], Any]


def _plain(number: int, type_: type, fields: tuple[_Field, ...]) -> _Kind:
    """A message whose fields are its attributes; ``msgspec`` checks literals on the way in."""
    return _Kind(
        number,
        type_,
        fields,
        lambda m: _encode_fields(fields, {f.name: getattr(m, f.name) for f in fields}),
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
)
_BY_TYPE = {kind.type: kind for kind in _KINDS}
_BY_NUMBER = {kind.number: kind for kind in _KINDS}


def encode(message: Message) -> bytes:
    """The message as a protobuf ``Envelope``."""
    content = body(message)
    return b"".join((_TAGS[_BY_TYPE[type(message)].number, _BYTES], _varint(len(content)), content))


_ORIGIN, _NUMBER = 14, 15  # of an Envelope


def stamp(origin: int, number: int) -> bytes:
    """What, put after an ``Envelope``, says who put it on the bus and how many came before it."""
    return b"".join((_TAGS[_ORIGIN, _FIXED64], origin.to_bytes(8, "little"), _TAGS[_NUMBER, _VARINT], _varint(number)))


def stamped(data: bytes | memoryview) -> tuple[int, int]:
    """Origin and number of an ``Envelope``, 0 where it has none. Raises ``WireError`` as ``decode`` does."""
    found = {number: value for number, wire, value in _split(memoryview(data)) if (number, wire) in _STAMP}
    return int.from_bytes(found.get(_ORIGIN, b""), "little"), found.get(_NUMBER, 0)


_STAMP = {(_ORIGIN, _FIXED64), (_NUMBER, _VARINT)}


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
    head = _encode_fields(_FRAME, values)
    rest = _encode_fields(_FRAME_REST, values)
    rest += b"".join(_nested(18, _CHANNEL_STATE, one) for one in channels)
    rest += b"" if ticker is None else _nested(19, _TICKER, ticker)
    rest += b"".join(_nested(20, _CONDITION, one) for one in conditions)
    if data is None:
        return head + rest
    content = body(data)
    return b"".join((head, _TAGS[_FRAME_DATA[type(data)], _BYTES], _varint(len(content)), content, rest))


def _nested(number: int, fields: tuple[_Field, ...], values: Mapping[str, Any]) -> bytes:
    """A message within a message; absent values are omitted."""
    content = _encode_fields(fields, {field.name: values.get(field.name) for field in fields})
    return b"".join((_TAGS[number, _BYTES], _varint(len(content)), content))


def decode(data: bytes | memoryview) -> Message:
    """The message in an ``Envelope``. Columns are read-only views that keep ``data`` alive.

    Unknown fields are skipped. Raises ``WireError`` for bytes that are no tapewick message.
    """
    found = [(n, v) for n, wire, v in _split(memoryview(data)) if n in _BY_NUMBER and wire == _BYTES]
    if not found:
        raise WireError("no known message inside; is it a tapewick message of a newer version?")
    number, body = found[-1]
    kind = _BY_NUMBER[number]
    try:
        message: Message = kind.get(_decode_fields(kind.fields, body))
    except msgspec.ValidationError as error:
        raise WireError(f"{kind.type.__name__}: {error}") from error
    return message
