-- Order books at intervals, whole to a stored depth. Prices and sizes are mantissas at the row's own
-- scales: an instrument that gets more digits later leaves its old books as they are.

CREATE TABLE books (
    number      INTEGER NOT NULL,
    ts          BIGINT NOT NULL,
    ts_event    BIGINT NOT NULL,
    ts_recv     BIGINT NOT NULL,
    run         TEXT NOT NULL,
    source      TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    first_id    BIGINT NOT NULL,
    last_id     BIGINT NOT NULL,
    price_scale SMALLINT NOT NULL,
    size_scale  SMALLINT NOT NULL,
    bid_price   BIGINT[] NOT NULL,
    bid_size    BIGINT[] NOT NULL,
    ask_price   BIGINT[] NOT NULL,
    ask_size    BIGINT[] NOT NULL,
    PRIMARY KEY (number, ts)
);

-- One row per level; level 1 is the best.
CREATE VIEW v_books AS
SELECT i.id AS instrument, known_time(b.ts) AS ts, b.run, b.seq, b.first_id, b.last_id, l.side, l.level,
       l.price * p.factor AS price, l.size * s.factor AS size
FROM books b
CROSS JOIN LATERAL (
    SELECT 'bid' AS side, level, price, size FROM unnest(b.bid_price, b.bid_size) WITH ORDINALITY AS u(price, size, level)
    UNION ALL
    SELECT 'ask', level, price, size FROM unnest(b.ask_price, b.ask_size) WITH ORDINALITY AS u(price, size, level)
) l
JOIN instruments i USING (number)
LEFT JOIN scale_factors p ON p.scale = b.price_scale
LEFT JOIN scale_factors s ON s.scale = b.size_scale;
