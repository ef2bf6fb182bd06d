-- What scanners of chains have found. Rows, blocks, cursor and announcements of a step are one transaction. There is one
-- writer, which looks at what is there before it adds: most rules that other databases keep by an index are its own.

-- How far each scanner is, one per contract. seq: of its newest announcement.
CREATE TABLE scanner_state (
    component   VARCHAR NOT NULL,
    cursor      BIGINT NOT NULL,
    cursor_hash VARCHAR NOT NULL,
    confirmed   BIGINT NOT NULL,
    finalized   BIGINT NOT NULL,
    status      VARCHAR NOT NULL,
    detail      VARCHAR NOT NULL,
    seq         BIGINT NOT NULL,
    updated_at  TIMESTAMP NOT NULL DEFAULT now()
);

-- The blocks that can still be replaced, and the newest that cannot.
CREATE TABLE blocks (
    component VARCHAR NOT NULL,
    hash      VARCHAR NOT NULL,
    number    BIGINT NOT NULL,
    parent    VARCHAR NOT NULL,
    ts        BIGINT NOT NULL,
    canonical BOOLEAN NOT NULL
);

-- Every log seen, also of blocks that were replaced.
CREATE TABLE order_events (
    chain      VARCHAR NOT NULL,
    block_hash VARCHAR NOT NULL,
    tx_hash    VARCHAR NOT NULL,
    log_index  BIGINT NOT NULL,
    component  VARCHAR NOT NULL,
    block      BIGINT NOT NULL,
    ts         BIGINT NOT NULL,
    kind       VARCHAR NOT NULL,
    order_id   VARCHAR NOT NULL,
    fields     VARCHAR NOT NULL,
    canonical  BOOLEAN NOT NULL
);

-- Orders, each the fold of its canonical events. order_key: the id in 78 digits, so that text sorts as numbers do.
CREATE TABLE orders (
    component    VARCHAR NOT NULL,
    order_key    VARCHAR NOT NULL,
    order_id     VARCHAR NOT NULL,
    status       VARCHAR NOT NULL,
    user_address VARCHAR NOT NULL,
    last_block   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    body         VARCHAR NOT NULL
);

-- What was announced, in order and without a hole per component.
CREATE TABLE order_log (
    component VARCHAR NOT NULL,
    seq       BIGINT NOT NULL,
    kind      VARCHAR NOT NULL,
    order_id  VARCHAR NOT NULL,
    body      VARCHAR NOT NULL
);

CREATE MACRO finality_name(block, confirmed, finalized) AS
CASE WHEN block <= finalized THEN 'finalized' WHEN block <= confirmed THEN 'confirmed' ELSE 'pending' END;

CREATE VIEW v_orders AS
SELECT component, order_id, o.status, user_address, json_extract_string(body, '$.token_in') AS token_in,
       json_extract_string(body, '$.token_out') AS token_out,
       TRY_CAST(json_extract_string(body, '$.amount_in') AS DECIMAL(38,18)) AS amount_in,
       TRY_CAST(json_extract_string(body, '$.min_amount_out') AS DECIMAL(38,18)) AS min_amount_out,
       TRY_CAST(json_extract_string(body, '$.amount_out') AS DECIMAL(38,18)) AS amount_out,
       TRY_CAST(json_extract_string(body, '$.target_price') AS DECIMAL(38,18)) AS target_price,
       json_extract_string(body, '$.order_type') AS order_type, known_time(nullif(created_at, 0)) AS created_at,
       known_time(nullif(o.updated_at, 0)) AS updated_at,
       known_time(nullif(json_extract_string(body, '$.executed_at')::BIGINT, 0)) AS executed_at,
       json_extract_string(body, '$.tx_hash') AS tx_hash, last_block,
       finality_name(last_block, confirmed, finalized) AS finality
FROM orders o JOIN scanner_state USING (component);

CREATE VIEW v_order_events AS
SELECT component, order_id, kind, block, block_hash, tx_hash, log_index, known_time(ts) AS ts, fields,
       CASE WHEN canonical THEN finality_name(block, confirmed, finalized) END AS finality, canonical, kind <> 'raw' AS decoded
FROM order_events JOIN scanner_state USING (component);
