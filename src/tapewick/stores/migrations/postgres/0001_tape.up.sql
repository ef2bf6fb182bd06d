-- The tape and everything folded from it. Times are UTC ns, prices and sizes integer mantissas;
-- read the v_* views for decimals and timestamps. No column that is copied in bulk may be NULL or
-- of variable width: such rows go through COPY's binary format as they lie in memory.

CREATE TABLE instruments (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    venue       TEXT NOT NULL,
    symbol      TEXT NOT NULL,
    base        TEXT NOT NULL,
    quote       TEXT NOT NULL,
    price_scale SMALLINT NOT NULL,
    size_scale  SMALLINT NOT NULL,
    status      TEXT NOT NULL,
    id_kind     TEXT NOT NULL,
    granularity TEXT NOT NULL
);

-- No unique index: the coverage ledger dedupes before a trade gets its seq.
CREATE TABLE trades (
    seq      BIGINT NOT NULL,
    trade_id BIGINT NOT NULL,
    first_id BIGINT NOT NULL,
    ts_event BIGINT NOT NULL,
    ts_recv  BIGINT NOT NULL,
    price    BIGINT NOT NULL,
    size     BIGINT NOT NULL,
    number   INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    side     SMALLINT NOT NULL,
    late     BOOLEAN NOT NULL
);
CREATE INDEX trades_by_seq ON trades (number, seq);

-- Between which seqs the trades of an hour (its start, ns) lie: a window of time becomes a range of the index.
CREATE TABLE trade_hours (
    number    INTEGER NOT NULL,
    hour      BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq  BIGINT NOT NULL,
    PRIMARY KEY (number, hour)
) WITH (fillfactor = 50);

-- Closed, final and imported candles. Their 128-bit sums are wide(hi, lo); lo holds the bits of an unsigned word.
CREATE TABLE candles (
    open_time                 BIGINT NOT NULL,
    open                      BIGINT NOT NULL,
    high                      BIGINT NOT NULL,
    low                       BIGINT NOT NULL,
    close                     BIGINT NOT NULL,
    volume_lo                 BIGINT NOT NULL,
    volume_hi                 BIGINT NOT NULL,
    quote_volume_lo           BIGINT NOT NULL,
    quote_volume_hi           BIGINT NOT NULL,
    taker_buy_volume_lo       BIGINT NOT NULL,
    taker_buy_volume_hi       BIGINT NOT NULL,
    taker_buy_quote_volume_lo BIGINT NOT NULL,
    taker_buy_quote_volume_hi BIGINT NOT NULL,
    trades                    BIGINT NOT NULL,
    first_id                  BIGINT NOT NULL,
    last_id                   BIGINT NOT NULL,
    first_ts                  BIGINT NOT NULL,
    last_ts                   BIGINT NOT NULL,
    first_key                 BIGINT NOT NULL,
    last_seq                  BIGINT NOT NULL,
    pos                       BIGINT NOT NULL,
    number                    INTEGER NOT NULL,
    rev                       INTEGER NOT NULL,
    tf                        SMALLINT NOT NULL,
    origin                    SMALLINT NOT NULL,
    state                     SMALLINT NOT NULL,
    complete                  SMALLINT NOT NULL,
    change                    SMALLINT NOT NULL,
    reason                    SMALLINT NOT NULL,
    PRIMARY KEY (number, tf, open_time, origin)
);
CREATE INDEX candles_by_pos ON candles (number, tf, pos) WHERE origin = 0;
-- What an engine restarts from: the few that are not final.
CREATE INDEX candles_unsettled ON candles (number, tf, open_time) WHERE origin = 0 AND state < 2;

-- The candles still open, a few per instrument and timeframe. Every commit replaces them, which
-- costs less without the big table's indexes; a row moves to candles when it closes and never comes back.
CREATE TABLE open_candles (LIKE candles, PRIMARY KEY (number, tf, open_time))
    WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

CREATE VIEW candle_rows AS SELECT * FROM candles UNION ALL SELECT * FROM open_candles;

CREATE TABLE coverage (
    number  INTEGER NOT NULL,
    from_id BIGINT NOT NULL,
    to_id   BIGINT NOT NULL,
    from_ts BIGINT NOT NULL,
    to_ts   BIGINT NOT NULL,
    PRIMARY KEY (number, from_id)
) WITH (fillfactor = 50);

CREATE TABLE gaps (
    number      INTEGER NOT NULL,
    left_id     BIGINT NOT NULL,
    right_id    BIGINT NOT NULL,
    left_ts     BIGINT NOT NULL,
    right_ts    BIGINT NOT NULL,
    reason      TEXT NOT NULL,
    state       TEXT NOT NULL,
    attempts    INTEGER NOT NULL,
    detected_at BIGINT NOT NULL,
    closed_at   BIGINT NOT NULL,
    PRIMARY KEY (number, left_id, right_id)
);

CREATE TABLE tape_head (
    number    INTEGER PRIMARY KEY,
    epoch     TEXT NOT NULL,
    owner     BIGINT NOT NULL,
    seq       BIGINT NOT NULL,
    pos       BIGINT NOT NULL,
    watermark BIGINT NOT NULL
) WITH (fillfactor = 50);
