from tapewick.v1 import market_pb2 as _market_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Backfill(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BACKFILL_ALL: _ClassVar[Backfill]
    BACKFILL_SKIP: _ClassVar[Backfill]
BACKFILL_ALL: Backfill
BACKFILL_SKIP: Backfill

class SubscribeRequest(_message.Message):
    __slots__ = ("id", "subscribe", "unsubscribe", "ping", "list")
    ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    id: str
    subscribe: Subscribe
    unsubscribe: Unsubscribe
    ping: Ping
    list: List
    def __init__(self, id: _Optional[str] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping]] = ..., unsubscribe: _Optional[_Union[Unsubscribe, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., list: _Optional[_Union[List, _Mapping]] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("channels",)
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedCompositeFieldContainer[Subscription]
    def __init__(self, channels: _Optional[_Iterable[_Union[Subscription, _Mapping]]] = ...) -> None: ...

class Unsubscribe(_message.Message):
    __slots__ = ("channels",)
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, channels: _Optional[_Iterable[str]] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class List(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Subscription(_message.Message):
    __slots__ = ("channel", "snapshot", "since", "since_ts", "backfill", "include_open", "levels", "strict")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_TS_FIELD_NUMBER: _ClassVar[int]
    BACKFILL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_OPEN_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    channel: str
    snapshot: int
    since: str
    since_ts: int
    backfill: Backfill
    include_open: bool
    levels: int
    strict: bool
    def __init__(self, channel: _Optional[str] = ..., snapshot: _Optional[int] = ..., since: _Optional[str] = ..., since_ts: _Optional[int] = ..., backfill: _Optional[_Union[Backfill, str]] = ..., include_open: _Optional[bool] = ..., levels: _Optional[int] = ..., strict: _Optional[bool] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("type", "channel", "pos", "from_pos", "to_pos", "ts", "kind", "reason", "late", "trades", "candles", "book", "quote", "ticker", "count", "id", "code", "message", "channels", "conditions")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[Frame.Type]
        WELCOME: _ClassVar[Frame.Type]
        SUBSCRIBED: _ClassVar[Frame.Type]
        SNAPSHOT: _ClassVar[Frame.Type]
        EVENT: _ClassVar[Frame.Type]
        UPDATE: _ClassVar[Frame.Type]
        GAP: _ClassVar[Frame.Type]
        SKIP: _ClassVar[Frame.Type]
        NOTICE: _ClassVar[Frame.Type]
        PONG: _ClassVar[Frame.Type]
        UNSUBSCRIBED: _ClassVar[Frame.Type]
        LIST: _ClassVar[Frame.Type]
        ERROR: _ClassVar[Frame.Type]
    TYPE_UNSPECIFIED: Frame.Type
    WELCOME: Frame.Type
    SUBSCRIBED: Frame.Type
    SNAPSHOT: Frame.Type
    EVENT: Frame.Type
    UPDATE: Frame.Type
    GAP: Frame.Type
    SKIP: Frame.Type
    NOTICE: Frame.Type
    PONG: Frame.Type
    UNSUBSCRIBED: Frame.Type
    LIST: Frame.Type
    ERROR: Frame.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    FROM_POS_FIELD_NUMBER: _ClassVar[int]
    TO_POS_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    TRADES_FIELD_NUMBER: _ClassVar[int]
    CANDLES_FIELD_NUMBER: _ClassVar[int]
    BOOK_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    TICKER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    type: Frame.Type
    channel: str
    pos: str
    from_pos: str
    to_pos: str
    ts: int
    kind: str
    reason: str
    late: bool
    trades: _market_pb2.Trades
    candles: _market_pb2.Candles
    book: _market_pb2.Book
    quote: _market_pb2.Quote
    ticker: Ticker
    count: int
    id: str
    code: str
    message: str
    channels: _containers.RepeatedCompositeFieldContainer[ChannelState]
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, type: _Optional[_Union[Frame.Type, str]] = ..., channel: _Optional[str] = ..., pos: _Optional[str] = ..., from_pos: _Optional[str] = ..., to_pos: _Optional[str] = ..., ts: _Optional[int] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ..., late: _Optional[bool] = ..., trades: _Optional[_Union[_market_pb2.Trades, _Mapping]] = ..., candles: _Optional[_Union[_market_pb2.Candles, _Mapping]] = ..., book: _Optional[_Union[_market_pb2.Book, _Mapping]] = ..., quote: _Optional[_Union[_market_pb2.Quote, _Mapping]] = ..., ticker: _Optional[_Union[Ticker, _Mapping]] = ..., count: _Optional[int] = ..., id: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., channels: _Optional[_Iterable[_Union[ChannelState, _Mapping]]] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("kind", "instrument", "source", "state", "detail", "ts", "source_run", "seq", "last_update_id", "ts_event", "left_id", "right_id", "left_ts", "right_ts", "reason", "attempts")
    KIND_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RUN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    TS_EVENT_FIELD_NUMBER: _ClassVar[int]
    LEFT_ID_FIELD_NUMBER: _ClassVar[int]
    RIGHT_ID_FIELD_NUMBER: _ClassVar[int]
    LEFT_TS_FIELD_NUMBER: _ClassVar[int]
    RIGHT_TS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    instrument: str
    source: str
    state: str
    detail: str
    ts: int
    source_run: str
    seq: int
    last_update_id: int
    ts_event: int
    left_id: int
    right_id: int
    left_ts: int
    right_ts: int
    reason: str
    attempts: int
    def __init__(self, kind: _Optional[str] = ..., instrument: _Optional[str] = ..., source: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., ts: _Optional[int] = ..., source_run: _Optional[str] = ..., seq: _Optional[int] = ..., last_update_id: _Optional[int] = ..., ts_event: _Optional[int] = ..., left_id: _Optional[int] = ..., right_id: _Optional[int] = ..., left_ts: _Optional[int] = ..., right_ts: _Optional[int] = ..., reason: _Optional[str] = ..., attempts: _Optional[int] = ...) -> None: ...

class ChannelState(_message.Message):
    __slots__ = ("channel", "pos", "recovered", "replayed", "levels", "code", "message")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    channel: str
    pos: str
    recovered: bool
    replayed: int
    levels: int
    code: int
    message: str
    def __init__(self, channel: _Optional[str] = ..., pos: _Optional[str] = ..., recovered: _Optional[bool] = ..., replayed: _Optional[int] = ..., levels: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Positions(_message.Message):
    __slots__ = ("channels",)
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedCompositeFieldContainer[ChannelState]
    def __init__(self, channels: _Optional[_Iterable[_Union[ChannelState, _Mapping]]] = ...) -> None: ...

class ListInstrumentsRequest(_message.Message):
    __slots__ = ("venue",)
    VENUE_FIELD_NUMBER: _ClassVar[int]
    venue: str
    def __init__(self, venue: _Optional[str] = ...) -> None: ...

class ListInstrumentsResponse(_message.Message):
    __slots__ = ("instruments",)
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    instruments: _containers.RepeatedCompositeFieldContainer[_market_pb2.Instrument]
    def __init__(self, instruments: _Optional[_Iterable[_Union[_market_pb2.Instrument, _Mapping]]] = ...) -> None: ...

class GetCandlesRequest(_message.Message):
    __slots__ = ("instrument", "timeframe", "start", "end", "limit", "since", "fill", "include_open")
    class Fill(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[GetCandlesRequest.Fill]
        PREV: _ClassVar[GetCandlesRequest.Fill]
        NULL: _ClassVar[GetCandlesRequest.Fill]
    NONE: GetCandlesRequest.Fill
    PREV: GetCandlesRequest.Fill
    NULL: GetCandlesRequest.Fill
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_OPEN_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    timeframe: str
    start: int
    end: int
    limit: int
    since: str
    fill: GetCandlesRequest.Fill
    include_open: bool
    def __init__(self, instrument: _Optional[str] = ..., timeframe: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., limit: _Optional[int] = ..., since: _Optional[str] = ..., fill: _Optional[_Union[GetCandlesRequest.Fill, str]] = ..., include_open: _Optional[bool] = ...) -> None: ...

class GetCandlesResponse(_message.Message):
    __slots__ = ("candles", "position", "next")
    CANDLES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    candles: _market_pb2.Candles
    position: str
    next: GetCandlesRequest
    def __init__(self, candles: _Optional[_Union[_market_pb2.Candles, _Mapping]] = ..., position: _Optional[str] = ..., next: _Optional[_Union[GetCandlesRequest, _Mapping]] = ...) -> None: ...

class GetTradesRequest(_message.Message):
    __slots__ = ("instrument", "since", "start", "end", "limit")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    since: str
    start: int
    end: int
    limit: int
    def __init__(self, instrument: _Optional[str] = ..., since: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class GetTradesResponse(_message.Message):
    __slots__ = ("trades", "position", "next")
    TRADES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    trades: _market_pb2.Trades
    position: str
    next: GetTradesRequest
    def __init__(self, trades: _Optional[_Union[_market_pb2.Trades, _Mapping]] = ..., position: _Optional[str] = ..., next: _Optional[_Union[GetTradesRequest, _Mapping]] = ...) -> None: ...

class GetBookRequest(_message.Message):
    __slots__ = ("instrument", "levels", "at")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    levels: int
    at: int
    def __init__(self, instrument: _Optional[str] = ..., levels: _Optional[int] = ..., at: _Optional[int] = ...) -> None: ...

class GetTickerRequest(_message.Message):
    __slots__ = ("instrument",)
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    def __init__(self, instrument: _Optional[str] = ...) -> None: ...

class Ticker(_message.Message):
    __slots__ = ("instrument", "last", "change_24h", "change_pct_24h", "open_24h", "high_24h", "low_24h", "volume_24h", "quote_volume_24h", "trades_24h", "vwap_24h", "session_high", "session_low", "session_vwap", "sma10", "ema20", "ts", "position")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    CHANGE_24H_FIELD_NUMBER: _ClassVar[int]
    CHANGE_PCT_24H_FIELD_NUMBER: _ClassVar[int]
    OPEN_24H_FIELD_NUMBER: _ClassVar[int]
    HIGH_24H_FIELD_NUMBER: _ClassVar[int]
    LOW_24H_FIELD_NUMBER: _ClassVar[int]
    VOLUME_24H_FIELD_NUMBER: _ClassVar[int]
    QUOTE_VOLUME_24H_FIELD_NUMBER: _ClassVar[int]
    TRADES_24H_FIELD_NUMBER: _ClassVar[int]
    VWAP_24H_FIELD_NUMBER: _ClassVar[int]
    SESSION_HIGH_FIELD_NUMBER: _ClassVar[int]
    SESSION_LOW_FIELD_NUMBER: _ClassVar[int]
    SESSION_VWAP_FIELD_NUMBER: _ClassVar[int]
    SMA10_FIELD_NUMBER: _ClassVar[int]
    EMA20_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    last: str
    change_24h: str
    change_pct_24h: str
    open_24h: str
    high_24h: str
    low_24h: str
    volume_24h: str
    quote_volume_24h: str
    trades_24h: int
    vwap_24h: str
    session_high: str
    session_low: str
    session_vwap: str
    sma10: str
    ema20: str
    ts: int
    position: str
    def __init__(self, instrument: _Optional[str] = ..., last: _Optional[str] = ..., change_24h: _Optional[str] = ..., change_pct_24h: _Optional[str] = ..., open_24h: _Optional[str] = ..., high_24h: _Optional[str] = ..., low_24h: _Optional[str] = ..., volume_24h: _Optional[str] = ..., quote_volume_24h: _Optional[str] = ..., trades_24h: _Optional[int] = ..., vwap_24h: _Optional[str] = ..., session_high: _Optional[str] = ..., session_low: _Optional[str] = ..., session_vwap: _Optional[str] = ..., sma10: _Optional[str] = ..., ema20: _Optional[str] = ..., ts: _Optional[int] = ..., position: _Optional[str] = ...) -> None: ...

class GetCoverageRequest(_message.Message):
    __slots__ = ("instrument", "start", "end")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    start: int
    end: int
    def __init__(self, instrument: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Coverage(_message.Message):
    __slots__ = ("instrument", "id_kind", "trades", "first_id", "last_id", "gaps", "complete", "position")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    ID_KIND_FIELD_NUMBER: _ClassVar[int]
    TRADES_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    id_kind: str
    trades: int
    first_id: _containers.RepeatedScalarFieldContainer[int]
    last_id: _containers.RepeatedScalarFieldContainer[int]
    gaps: _containers.RepeatedCompositeFieldContainer[_market_pb2.Gap]
    complete: bool
    position: str
    def __init__(self, instrument: _Optional[str] = ..., id_kind: _Optional[str] = ..., trades: _Optional[int] = ..., first_id: _Optional[_Iterable[int]] = ..., last_id: _Optional[_Iterable[int]] = ..., gaps: _Optional[_Iterable[_Union[_market_pb2.Gap, _Mapping]]] = ..., complete: _Optional[bool] = ..., position: _Optional[str] = ...) -> None: ...
