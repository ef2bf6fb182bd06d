-- Order books at intervals, whole to a stored depth. Prices and sizes are mantissas at the row's own
-- scales: an instrument that gets more digits later leaves its old books as they are.

CREATE TABLE books (
    number      INTEGER NOT NULL,
    ts          BIGINT NOT NULL,
    ts_event    BIGINT NOT NULL,
    ts_recv     BIGINT NOT NULL,
    run         VARCHAR NOT NULL,
    source      VARCHAR NOT NULL,
    seq         BIGINT NOT NULL,
    first_id    BIGINT NOT NULL,
    last_id     BIGINT NOT NULL,
    price_scale TINYINT NOT NULL,
    size_scale  TINYINT NOT NULL,
    bid_price   BIGINT[] NOT NULL,
    bid_size    BIGINT[] NOT NULL,
    ask_price   BIGINT[] NOT NULL,
    ask_size    BIGINT[] NOT NULL,
    PRIMARY KEY (number, ts)
);

-- One row per level; level 1 is the best.
CREATE VIEW v_books AS
WITH levels AS (
    SELECT number, ts, 'bid' AS side, unnest(range(1, len(bid_price) + 1)) AS level,
           unnest(bid_price) AS price, unnest(bid_size) AS size FROM books
    UNION ALL
    SELECT number, ts, 'ask', unnest(range(1, len(ask_price) + 1)), unnest(ask_price), unnest(ask_size) FROM books
)
SELECT i.id AS instrument, make_timestamp_ns(b.ts) AS ts, b.run, b.seq, b.first_id, b.last_id, l.side, l.level,
       TRY(l.price * p.factor) AS price, TRY(l.size * s.factor) AS size
FROM levels l
JOIN books b USING (number, ts)
JOIN instruments i USING (number)
LEFT JOIN scale_factors p ON p.scale = b.price_scale
LEFT JOIN scale_factors s ON s.scale = b.size_scale;
