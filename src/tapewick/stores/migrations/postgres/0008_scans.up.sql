-- What scanners of chains have found. Rows, blocks, cursor and announcements of a step are one transaction.

-- How far each scanner is, one per contract. seq: of its newest announcement.
CREATE TABLE scanner_state (
    component   TEXT PRIMARY KEY,
    cursor      BIGINT NOT NULL,
    cursor_hash TEXT NOT NULL,
    confirmed   BIGINT NOT NULL,
    finalized   BIGINT NOT NULL,
    status      TEXT NOT NULL,
    detail      TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    updated_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- The blocks that can still be replaced, and the newest that cannot.
CREATE TABLE blocks (
    component TEXT NOT NULL,
    hash      TEXT NOT NULL,
    number    BIGINT NOT NULL,
    parent    TEXT NOT NULL,
    ts        BIGINT NOT NULL,
    canonical BOOLEAN NOT NULL,
    PRIMARY KEY (component, hash)
);
CREATE UNIQUE INDEX blocks_canonical ON blocks (component, number) WHERE canonical;

-- Every log seen, also of blocks that were replaced. A log is one thing in one block; of those that count, a transaction's
-- log is there once.
CREATE TABLE order_events (
    chain      TEXT NOT NULL,
    block_hash TEXT NOT NULL,
    tx_hash    TEXT NOT NULL,
    log_index  BIGINT NOT NULL,
    component  TEXT NOT NULL,
    block      BIGINT NOT NULL,
    ts         BIGINT NOT NULL,
    kind       TEXT NOT NULL,
    order_id   TEXT NOT NULL,
    fields     JSONB NOT NULL,
    canonical  BOOLEAN NOT NULL,
    PRIMARY KEY (chain, block_hash, tx_hash, log_index)
);
CREATE UNIQUE INDEX order_events_once ON order_events (chain, tx_hash, log_index) WHERE canonical;
CREATE INDEX order_events_of ON order_events (component, order_id, block, log_index) WHERE canonical;
CREATE INDEX order_events_block ON order_events (component, block_hash);

-- Orders, each the fold of its canonical events. order_key: the id in 78 digits, so that text sorts as numbers do.
CREATE TABLE orders (
    component    TEXT NOT NULL,
    order_key    TEXT COLLATE "C" NOT NULL,
    order_id     TEXT NOT NULL,
    status       TEXT NOT NULL,
    user_address TEXT NOT NULL,
    last_block   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    body         JSONB NOT NULL,
    PRIMARY KEY (component, order_key)
);
CREATE INDEX orders_newest ON orders (created_at, component, order_key);
CREATE INDEX orders_user ON orders (user_address, created_at);

-- What was announced, in order and without a hole per component.
CREATE TABLE order_log (
    component TEXT NOT NULL,
    seq       BIGINT NOT NULL,
    kind      TEXT NOT NULL,
    order_id  TEXT NOT NULL,
    body      TEXT NOT NULL,
    PRIMARY KEY (component, seq)
);

CREATE FUNCTION finality_name(block BIGINT, confirmed BIGINT, finalized BIGINT) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN block <= finalized THEN 'finalized' WHEN block <= confirmed THEN 'confirmed' ELSE 'pending' END $$;

CREATE VIEW v_orders AS
SELECT component, order_id, o.status, user_address, body ->> 'token_in' AS token_in, body ->> 'token_out' AS token_out,
       nullif(body ->> 'amount_in', '')::NUMERIC AS amount_in,
       nullif(body ->> 'min_amount_out', '')::NUMERIC AS min_amount_out,
       nullif(body ->> 'amount_out', '')::NUMERIC AS amount_out,
       nullif(body ->> 'target_price', '')::NUMERIC AS target_price,
       body ->> 'order_type' AS order_type, known_time(nullif(created_at, 0)) AS created_at,
       known_time(nullif(o.updated_at, 0)) AS updated_at,
       known_time(nullif((body ->> 'executed_at')::BIGINT, 0)) AS executed_at,
       body ->> 'tx_hash' AS tx_hash, last_block,
       finality_name(last_block, confirmed, finalized) AS finality
FROM orders o JOIN scanner_state USING (component);

CREATE VIEW v_order_events AS
SELECT component, order_id, kind, block, block_hash, tx_hash, log_index, known_time(ts) AS ts, fields,
       CASE WHEN canonical THEN finality_name(block, confirmed, finalized) END AS finality, canonical, kind <> 'raw' AS decoded
FROM order_events JOIN scanner_state USING (component);
