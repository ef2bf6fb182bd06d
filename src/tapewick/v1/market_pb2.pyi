from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("trades", "candles", "head", "wanted", "instrument", "health", "book", "quote", "gap", "watch", "announcement", "origin", "number")
    TRADES_FIELD_NUMBER: _ClassVar[int]
    CANDLES_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    BOOK_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    trades: Trades
    candles: Candles
    head: Head
    wanted: Wanted
    instrument: Instrument
    health: Health
    book: Book
    quote: Quote
    gap: Gap
    watch: Watch
    announcement: Announcement
    origin: int
    number: int
    def __init__(self, trades: _Optional[_Union[Trades, _Mapping]] = ..., candles: _Optional[_Union[Candles, _Mapping]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., wanted: _Optional[_Union[Wanted, _Mapping]] = ..., instrument: _Optional[_Union[Instrument, _Mapping]] = ..., health: _Optional[_Union[Health, _Mapping]] = ..., book: _Optional[_Union[Book, _Mapping]] = ..., quote: _Optional[_Union[Quote, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., watch: _Optional[_Union[Watch, _Mapping]] = ..., announcement: _Optional[_Union[Announcement, _Mapping]] = ..., origin: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Trades(_message.Message):
    __slots__ = ("instrument", "price_scale", "size_scale", "trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side", "seq", "covers_given", "covers_from", "covers_to", "late", "clock", "source", "epoch", "key")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    PRICE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SIZE_SCALE_FIELD_NUMBER: _ClassVar[int]
    TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TS_EVENT_FIELD_NUMBER: _ClassVar[int]
    TS_RECV_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    COVERS_GIVEN_FIELD_NUMBER: _ClassVar[int]
    COVERS_FROM_FIELD_NUMBER: _ClassVar[int]
    COVERS_TO_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    price_scale: int
    size_scale: int
    trade_id: _containers.RepeatedScalarFieldContainer[int]
    first_id: _containers.RepeatedScalarFieldContainer[int]
    count: _containers.RepeatedScalarFieldContainer[int]
    ts_event: _containers.RepeatedScalarFieldContainer[int]
    ts_recv: _containers.RepeatedScalarFieldContainer[int]
    price: _containers.RepeatedScalarFieldContainer[int]
    size: _containers.RepeatedScalarFieldContainer[int]
    side: bytes
    seq: _containers.RepeatedScalarFieldContainer[int]
    covers_given: bool
    covers_from: _containers.RepeatedScalarFieldContainer[int]
    covers_to: _containers.RepeatedScalarFieldContainer[int]
    late: bool
    clock: int
    source: str
    epoch: str
    key: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, instrument: _Optional[str] = ..., price_scale: _Optional[int] = ..., size_scale: _Optional[int] = ..., trade_id: _Optional[_Iterable[int]] = ..., first_id: _Optional[_Iterable[int]] = ..., count: _Optional[_Iterable[int]] = ..., ts_event: _Optional[_Iterable[int]] = ..., ts_recv: _Optional[_Iterable[int]] = ..., price: _Optional[_Iterable[int]] = ..., size: _Optional[_Iterable[int]] = ..., side: _Optional[bytes] = ..., seq: _Optional[_Iterable[int]] = ..., covers_given: _Optional[bool] = ..., covers_from: _Optional[_Iterable[int]] = ..., covers_to: _Optional[_Iterable[int]] = ..., late: _Optional[bool] = ..., clock: _Optional[int] = ..., source: _Optional[str] = ..., epoch: _Optional[str] = ..., key: _Optional[_Iterable[int]] = ...) -> None: ...

class Candles(_message.Message):
    __slots__ = ("instrument", "price_scale", "size_scale", "provisional", "epoch", "pos", "open_time", "open", "high", "low", "close", "volume_lo", "volume_hi", "quote_volume_lo", "quote_volume_hi", "taker_buy_volume_lo", "taker_buy_volume_hi", "taker_buy_quote_volume_lo", "taker_buy_quote_volume_hi", "trades", "first_id", "last_id", "first_ts", "last_ts", "first_key", "last_seq", "row_pos", "tf", "rev", "state", "complete", "origin", "filled", "change", "reason")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    PRICE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SIZE_SCALE_FIELD_NUMBER: _ClassVar[int]
    PROVISIONAL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    OPEN_TIME_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_LO_FIELD_NUMBER: _ClassVar[int]
    VOLUME_HI_FIELD_NUMBER: _ClassVar[int]
    QUOTE_VOLUME_LO_FIELD_NUMBER: _ClassVar[int]
    QUOTE_VOLUME_HI_FIELD_NUMBER: _ClassVar[int]
    TAKER_BUY_VOLUME_LO_FIELD_NUMBER: _ClassVar[int]
    TAKER_BUY_VOLUME_HI_FIELD_NUMBER: _ClassVar[int]
    TAKER_BUY_QUOTE_VOLUME_LO_FIELD_NUMBER: _ClassVar[int]
    TAKER_BUY_QUOTE_VOLUME_HI_FIELD_NUMBER: _ClassVar[int]
    TRADES_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_TS_FIELD_NUMBER: _ClassVar[int]
    LAST_TS_FIELD_NUMBER: _ClassVar[int]
    FIRST_KEY_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    ROW_POS_FIELD_NUMBER: _ClassVar[int]
    TF_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    FILLED_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    price_scale: int
    size_scale: int
    provisional: bool
    epoch: str
    pos: int
    open_time: _containers.RepeatedScalarFieldContainer[int]
    open: _containers.RepeatedScalarFieldContainer[int]
    high: _containers.RepeatedScalarFieldContainer[int]
    low: _containers.RepeatedScalarFieldContainer[int]
    close: _containers.RepeatedScalarFieldContainer[int]
    volume_lo: _containers.RepeatedScalarFieldContainer[int]
    volume_hi: _containers.RepeatedScalarFieldContainer[int]
    quote_volume_lo: _containers.RepeatedScalarFieldContainer[int]
    quote_volume_hi: _containers.RepeatedScalarFieldContainer[int]
    taker_buy_volume_lo: _containers.RepeatedScalarFieldContainer[int]
    taker_buy_volume_hi: _containers.RepeatedScalarFieldContainer[int]
    taker_buy_quote_volume_lo: _containers.RepeatedScalarFieldContainer[int]
    taker_buy_quote_volume_hi: _containers.RepeatedScalarFieldContainer[int]
    trades: _containers.RepeatedScalarFieldContainer[int]
    first_id: _containers.RepeatedScalarFieldContainer[int]
    last_id: _containers.RepeatedScalarFieldContainer[int]
    first_ts: _containers.RepeatedScalarFieldContainer[int]
    last_ts: _containers.RepeatedScalarFieldContainer[int]
    first_key: _containers.RepeatedScalarFieldContainer[int]
    last_seq: _containers.RepeatedScalarFieldContainer[int]
    row_pos: _containers.RepeatedScalarFieldContainer[int]
    tf: _containers.RepeatedScalarFieldContainer[int]
    rev: _containers.RepeatedScalarFieldContainer[int]
    state: bytes
    complete: bytes
    origin: bytes
    filled: bytes
    change: bytes
    reason: bytes
    def __init__(self, instrument: _Optional[str] = ..., price_scale: _Optional[int] = ..., size_scale: _Optional[int] = ..., provisional: _Optional[bool] = ..., epoch: _Optional[str] = ..., pos: _Optional[int] = ..., open_time: _Optional[_Iterable[int]] = ..., open: _Optional[_Iterable[int]] = ..., high: _Optional[_Iterable[int]] = ..., low: _Optional[_Iterable[int]] = ..., close: _Optional[_Iterable[int]] = ..., volume_lo: _Optional[_Iterable[int]] = ..., volume_hi: _Optional[_Iterable[int]] = ..., quote_volume_lo: _Optional[_Iterable[int]] = ..., quote_volume_hi: _Optional[_Iterable[int]] = ..., taker_buy_volume_lo: _Optional[_Iterable[int]] = ..., taker_buy_volume_hi: _Optional[_Iterable[int]] = ..., taker_buy_quote_volume_lo: _Optional[_Iterable[int]] = ..., taker_buy_quote_volume_hi: _Optional[_Iterable[int]] = ..., trades: _Optional[_Iterable[int]] = ..., first_id: _Optional[_Iterable[int]] = ..., last_id: _Optional[_Iterable[int]] = ..., first_ts: _Optional[_Iterable[int]] = ..., last_ts: _Optional[_Iterable[int]] = ..., first_key: _Optional[_Iterable[int]] = ..., last_seq: _Optional[_Iterable[int]] = ..., row_pos: _Optional[_Iterable[int]] = ..., tf: _Optional[_Iterable[int]] = ..., rev: _Optional[_Iterable[int]] = ..., state: _Optional[bytes] = ..., complete: _Optional[bytes] = ..., origin: _Optional[bytes] = ..., filled: _Optional[bytes] = ..., change: _Optional[bytes] = ..., reason: _Optional[bytes] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("instrument", "epoch", "seq", "pos", "watermark", "price_scale", "size_scale")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    PRICE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SIZE_SCALE_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    epoch: str
    seq: int
    pos: int
    watermark: int
    price_scale: int
    size_scale: int
    def __init__(self, instrument: _Optional[str] = ..., epoch: _Optional[str] = ..., seq: _Optional[int] = ..., pos: _Optional[int] = ..., watermark: _Optional[int] = ..., price_scale: _Optional[int] = ..., size_scale: _Optional[int] = ...) -> None: ...

class Wanted(_message.Message):
    __slots__ = ("instrument", "from_id", "to_id", "since")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    from_id: _containers.RepeatedScalarFieldContainer[int]
    to_id: _containers.RepeatedScalarFieldContainer[int]
    since: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, instrument: _Optional[str] = ..., from_id: _Optional[_Iterable[int]] = ..., to_id: _Optional[_Iterable[int]] = ..., since: _Optional[_Iterable[int]] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("instrument", "left_id", "right_id", "left_ts", "right_ts", "reason", "state", "attempts")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    LEFT_ID_FIELD_NUMBER: _ClassVar[int]
    RIGHT_ID_FIELD_NUMBER: _ClassVar[int]
    LEFT_TS_FIELD_NUMBER: _ClassVar[int]
    RIGHT_TS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    left_id: int
    right_id: int
    left_ts: int
    right_ts: int
    reason: str
    state: str
    attempts: int
    def __init__(self, instrument: _Optional[str] = ..., left_id: _Optional[int] = ..., right_id: _Optional[int] = ..., left_ts: _Optional[int] = ..., right_ts: _Optional[int] = ..., reason: _Optional[str] = ..., state: _Optional[str] = ..., attempts: _Optional[int] = ...) -> None: ...

class Instrument(_message.Message):
    __slots__ = ("id", "venue", "symbol", "base", "quote", "price_scale", "size_scale", "status", "id_kind", "granularity")
    ID_FIELD_NUMBER: _ClassVar[int]
    VENUE_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    PRICE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SIZE_SCALE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ID_KIND_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    venue: str
    symbol: str
    base: str
    quote: str
    price_scale: int
    size_scale: int
    status: str
    id_kind: str
    granularity: str
    def __init__(self, id: _Optional[str] = ..., venue: _Optional[str] = ..., symbol: _Optional[str] = ..., base: _Optional[str] = ..., quote: _Optional[str] = ..., price_scale: _Optional[int] = ..., size_scale: _Optional[int] = ..., status: _Optional[str] = ..., id_kind: _Optional[str] = ..., granularity: _Optional[str] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("source", "state", "ts", "detail", "instrument", "collector")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    COLLECTOR_FIELD_NUMBER: _ClassVar[int]
    source: str
    state: str
    ts: int
    detail: str
    instrument: str
    collector: str
    def __init__(self, source: _Optional[str] = ..., state: _Optional[str] = ..., ts: _Optional[int] = ..., detail: _Optional[str] = ..., instrument: _Optional[str] = ..., collector: _Optional[str] = ...) -> None: ...

class Watch(_message.Message):
    __slots__ = ("instrument", "wanted")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    wanted: bool
    def __init__(self, instrument: _Optional[str] = ..., wanted: _Optional[bool] = ...) -> None: ...

class Book(_message.Message):
    __slots__ = ("instrument", "run", "prev_seq", "seq", "state", "snapshot", "first_id", "last_id", "ts_event", "ts_recv", "bid_price", "bid_size", "ask_price", "ask_size", "price_scale", "size_scale", "source", "detail")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PREV_SEQ_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    TS_EVENT_FIELD_NUMBER: _ClassVar[int]
    TS_RECV_FIELD_NUMBER: _ClassVar[int]
    BID_PRICE_FIELD_NUMBER: _ClassVar[int]
    BID_SIZE_FIELD_NUMBER: _ClassVar[int]
    ASK_PRICE_FIELD_NUMBER: _ClassVar[int]
    ASK_SIZE_FIELD_NUMBER: _ClassVar[int]
    PRICE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SIZE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    run: str
    prev_seq: int
    seq: int
    state: str
    snapshot: bool
    first_id: int
    last_id: int
    ts_event: int
    ts_recv: int
    bid_price: _containers.RepeatedScalarFieldContainer[int]
    bid_size: _containers.RepeatedScalarFieldContainer[int]
    ask_price: _containers.RepeatedScalarFieldContainer[int]
    ask_size: _containers.RepeatedScalarFieldContainer[int]
    price_scale: int
    size_scale: int
    source: str
    detail: str
    def __init__(self, instrument: _Optional[str] = ..., run: _Optional[str] = ..., prev_seq: _Optional[int] = ..., seq: _Optional[int] = ..., state: _Optional[str] = ..., snapshot: _Optional[bool] = ..., first_id: _Optional[int] = ..., last_id: _Optional[int] = ..., ts_event: _Optional[int] = ..., ts_recv: _Optional[int] = ..., bid_price: _Optional[_Iterable[int]] = ..., bid_size: _Optional[_Iterable[int]] = ..., ask_price: _Optional[_Iterable[int]] = ..., ask_size: _Optional[_Iterable[int]] = ..., price_scale: _Optional[int] = ..., size_scale: _Optional[int] = ..., source: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Quote(_message.Message):
    __slots__ = ("instrument", "update_id", "bid", "bid_size", "ask", "ask_size", "ts_event", "ts_recv", "price_scale", "size_scale", "source")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    BID_FIELD_NUMBER: _ClassVar[int]
    BID_SIZE_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    ASK_SIZE_FIELD_NUMBER: _ClassVar[int]
    TS_EVENT_FIELD_NUMBER: _ClassVar[int]
    TS_RECV_FIELD_NUMBER: _ClassVar[int]
    PRICE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SIZE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    update_id: int
    bid: int
    bid_size: int
    ask: int
    ask_size: int
    ts_event: int
    ts_recv: int
    price_scale: int
    size_scale: int
    source: str
    def __init__(self, instrument: _Optional[str] = ..., update_id: _Optional[int] = ..., bid: _Optional[int] = ..., bid_size: _Optional[int] = ..., ask: _Optional[int] = ..., ask_size: _Optional[int] = ..., ts_event: _Optional[int] = ..., ts_recv: _Optional[int] = ..., price_scale: _Optional[int] = ..., size_scale: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class Announcement(_message.Message):
    __slots__ = ("component", "seq", "kind", "order_id", "finality", "confirmations", "event", "order")
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    FINALITY_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATIONS_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    component: str
    seq: int
    kind: str
    order_id: str
    finality: str
    confirmations: int
    event: OrderEvent
    order: Order
    def __init__(self, component: _Optional[str] = ..., seq: _Optional[int] = ..., kind: _Optional[str] = ..., order_id: _Optional[str] = ..., finality: _Optional[str] = ..., confirmations: _Optional[int] = ..., event: _Optional[_Union[OrderEvent, _Mapping]] = ..., order: _Optional[_Union[Order, _Mapping]] = ...) -> None: ...

class OrderEvent(_message.Message):
    __slots__ = ("contract", "block", "block_hash", "tx_hash", "log_index", "ts", "kind", "order_id", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    TX_HASH_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    contract: str
    block: int
    block_hash: str
    tx_hash: str
    log_index: int
    ts: int
    kind: str
    order_id: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, contract: _Optional[str] = ..., block: _Optional[int] = ..., block_hash: _Optional[str] = ..., tx_hash: _Optional[str] = ..., log_index: _Optional[int] = ..., ts: _Optional[int] = ..., kind: _Optional[str] = ..., order_id: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("contract", "order_id", "status", "user", "token_in", "token_out", "amount_in", "target_price", "min_amount_out", "order_type", "is_long", "self_executable", "decimals_in", "decimals_out", "decimals_known", "stub", "created_at", "updated_at", "executed_at", "executor", "amount_out", "execution_tx_hash", "tx_hash", "block", "last_block", "last_block_hash")
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_OUT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_IN_FIELD_NUMBER: _ClassVar[int]
    TARGET_PRICE_FIELD_NUMBER: _ClassVar[int]
    MIN_AMOUNT_OUT_FIELD_NUMBER: _ClassVar[int]
    ORDER_TYPE_FIELD_NUMBER: _ClassVar[int]
    IS_LONG_FIELD_NUMBER: _ClassVar[int]
    SELF_EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    DECIMALS_IN_FIELD_NUMBER: _ClassVar[int]
    DECIMALS_OUT_FIELD_NUMBER: _ClassVar[int]
    DECIMALS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    STUB_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_AT_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_OUT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_TX_HASH_FIELD_NUMBER: _ClassVar[int]
    TX_HASH_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    LAST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    LAST_BLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    contract: str
    order_id: str
    status: str
    user: str
    token_in: str
    token_out: str
    amount_in: str
    target_price: str
    min_amount_out: str
    order_type: str
    is_long: bool
    self_executable: bool
    decimals_in: int
    decimals_out: int
    decimals_known: bool
    stub: bool
    created_at: int
    updated_at: int
    executed_at: int
    executor: str
    amount_out: str
    execution_tx_hash: str
    tx_hash: str
    block: int
    last_block: int
    last_block_hash: str
    def __init__(self, contract: _Optional[str] = ..., order_id: _Optional[str] = ..., status: _Optional[str] = ..., user: _Optional[str] = ..., token_in: _Optional[str] = ..., token_out: _Optional[str] = ..., amount_in: _Optional[str] = ..., target_price: _Optional[str] = ..., min_amount_out: _Optional[str] = ..., order_type: _Optional[str] = ..., is_long: _Optional[bool] = ..., self_executable: _Optional[bool] = ..., decimals_in: _Optional[int] = ..., decimals_out: _Optional[int] = ..., decimals_known: _Optional[bool] = ..., stub: _Optional[bool] = ..., created_at: _Optional[int] = ..., updated_at: _Optional[int] = ..., executed_at: _Optional[int] = ..., executor: _Optional[str] = ..., amount_out: _Optional[str] = ..., execution_tx_hash: _Optional[str] = ..., tx_hash: _Optional[str] = ..., block: _Optional[int] = ..., last_block: _Optional[int] = ..., last_block_hash: _Optional[str] = ...) -> None: ...
