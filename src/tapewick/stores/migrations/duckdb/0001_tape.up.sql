-- The tape and everything folded from it. Times are UTC ns, prices and sizes integer mantissas;
-- read the v_* views for decimals and timestamps.

CREATE TABLE instruments (
    number      INTEGER PRIMARY KEY,
    id          VARCHAR NOT NULL UNIQUE,
    venue       VARCHAR NOT NULL,
    symbol      VARCHAR NOT NULL,
    base        VARCHAR NOT NULL,
    quote       VARCHAR NOT NULL,
    price_scale TINYINT NOT NULL,
    size_scale  TINYINT NOT NULL,
    status      VARCHAR NOT NULL,
    id_kind     VARCHAR NOT NULL,
    granularity VARCHAR NOT NULL
);

-- No unique index: the coverage ledger dedupes before a trade gets its seq.
CREATE TABLE trades (
    number   INTEGER NOT NULL,
    seq      BIGINT NOT NULL,
    trade_id BIGINT NOT NULL,
    first_id BIGINT NOT NULL,
    count    INTEGER NOT NULL,
    ts_event BIGINT NOT NULL,
    ts_recv  BIGINT NOT NULL,
    price    BIGINT NOT NULL,
    size     BIGINT NOT NULL,
    side     TINYINT NOT NULL,
    late     BOOLEAN NOT NULL
);

-- Closed, final and imported candles. Their 128-bit sums are hi * 2^64 + lo.
CREATE TABLE candles (
    number                    INTEGER NOT NULL,
    tf                        TINYINT NOT NULL,
    open_time                 BIGINT NOT NULL,
    origin                    TINYINT NOT NULL,
    open                      BIGINT NOT NULL,
    high                      BIGINT NOT NULL,
    low                       BIGINT NOT NULL,
    close                     BIGINT NOT NULL,
    volume_lo                 UBIGINT NOT NULL,
    volume_hi                 BIGINT NOT NULL,
    quote_volume_lo           UBIGINT NOT NULL,
    quote_volume_hi           BIGINT NOT NULL,
    taker_buy_volume_lo       UBIGINT NOT NULL,
    taker_buy_volume_hi       BIGINT NOT NULL,
    taker_buy_quote_volume_lo UBIGINT NOT NULL,
    taker_buy_quote_volume_hi BIGINT NOT NULL,
    trades                    BIGINT NOT NULL,
    first_id                  BIGINT NOT NULL,
    last_id                   BIGINT NOT NULL,
    first_ts                  BIGINT NOT NULL,
    last_ts                   BIGINT NOT NULL,
    first_key                 BIGINT NOT NULL,
    last_seq                  BIGINT NOT NULL,
    pos                       BIGINT NOT NULL,
    rev                       INTEGER NOT NULL,
    state                     TINYINT NOT NULL,
    complete                  TINYINT NOT NULL,
    change                    TINYINT NOT NULL,
    reason                    TINYINT NOT NULL,
    PRIMARY KEY (number, tf, open_time, origin)
);

-- The candles still open, at most 17 per instrument. They are replaced by every commit, which
-- costs a third without the big table's index; a row moves to candles when it closes and
-- never comes back.
CREATE TABLE open_candles AS FROM candles LIMIT 0;

CREATE VIEW candle_rows AS FROM candles UNION ALL FROM open_candles;

CREATE TABLE coverage (
    number  INTEGER NOT NULL,
    from_id BIGINT NOT NULL,
    to_id   BIGINT NOT NULL,
    from_ts BIGINT NOT NULL,
    to_ts   BIGINT NOT NULL,
    PRIMARY KEY (number, from_id)
);

CREATE TABLE gaps (
    number      INTEGER NOT NULL,
    left_id     BIGINT NOT NULL,
    right_id    BIGINT NOT NULL,
    left_ts     BIGINT NOT NULL,
    right_ts    BIGINT NOT NULL,
    reason      VARCHAR NOT NULL,
    state       VARCHAR NOT NULL,
    attempts    INTEGER NOT NULL,
    detected_at BIGINT NOT NULL,
    closed_at   BIGINT NOT NULL,
    PRIMARY KEY (number, left_id, right_id)
);

CREATE TABLE tape_head (
    number    INTEGER PRIMARY KEY,
    epoch     VARCHAR NOT NULL,
    owner     BIGINT NOT NULL,
    seq       BIGINT NOT NULL,
    pos       BIGINT NOT NULL,
    watermark BIGINT NOT NULL
);
