-- Tables for people: decimals, timestamps, names. Decimals are DECIMAL(38,18) and exact; a value
-- that this type cannot hold exactly is NULL, never rounded.

-- mantissa * factor is exact because the factor is a decimal, not a power of a float.
CREATE TABLE scale_factors AS
SELECT s::TINYINT AS scale, (CASE s WHEN 0 THEN '1' ELSE '0.' || repeat('0', s - 1) || '1' END)::DECIMAL(19,18) AS factor
FROM range(19) AS digits(s);

CREATE MACRO wide(hi, lo) AS hi::HUGEINT * 18446744073709551616::HUGEINT + lo::HUGEINT;

CREATE MACRO tf_name(tf) AS
['1s', '1m', '3m', '5m', '15m', '30m', '45m', '1h', '2h', '3h', '4h', '6h', '8h', '12h', '1d', '3d', '1w', '1M'][tf + 1];

CREATE MACRO known_time(ns) AS CASE WHEN ns > -9223372036854775808 THEN make_timestamp_ns(ns) END;

CREATE VIEW v_instruments AS
SELECT id AS instrument, venue, symbol, base, quote, price_scale, size_scale, status, id_kind, granularity,
       epoch, seq, pos, known_time(watermark) AS watermark
FROM instruments LEFT JOIN tape_head USING (number);

CREATE VIEW v_trades AS
SELECT i.id AS instrument, t.seq, t.trade_id, t.first_id, t.count,
       make_timestamp_ns(t.ts_event) AS ts_event, known_time(t.ts_recv) AS ts_recv,
       TRY(t.price * p.factor) AS price, TRY(t.size * s.factor) AS size,
       CASE t.side WHEN 1 THEN 'buy' WHEN -1 THEN 'sell' ELSE 'unknown' END AS side, t.late
FROM trades t
JOIN instruments i USING (number)
LEFT JOIN scale_factors p ON p.scale = i.price_scale
LEFT JOIN scale_factors s ON s.scale = i.size_scale;

-- One row per candle, by the rule every reader follows: the tape where complete, else the import, else the tape.
CREATE VIEW shown_candles AS
SELECT c.* FROM candle_rows c
LEFT JOIN (SELECT number, tf, open_time, 1 - origin AS origin, complete FROM candle_rows) AS other
    USING (number, tf, open_time, origin)
WHERE other.complete IS NULL OR (c.complete = 1 AND c.origin = 0) OR (other.complete <> 1 AND c.origin = 1);

CREATE VIEW v_candles AS
SELECT i.id AS instrument, tf_name(c.tf) AS tf, make_timestamp(c.open_time // 1000) AS open_time,
       TRY(nullif(c.open, 0) * p.factor) AS open, TRY(nullif(c.high, 0) * p.factor) AS high,
       TRY(nullif(c.low, 0) * p.factor) AS low, TRY(nullif(c.close, 0) * p.factor) AS close,
       TRY(wide(volume_hi, volume_lo)::DECIMAL(38,0) * s.factor) AS volume,
       TRY(wide(quote_volume_hi, quote_volume_lo)::DECIMAL(38,0) * q.factor) AS quote_volume,
       TRY(wide(taker_buy_volume_hi, taker_buy_volume_lo)::DECIMAL(38,0) * s.factor) AS taker_buy_volume,
       TRY(wide(taker_buy_quote_volume_hi, taker_buy_quote_volume_lo)::DECIMAL(38,0) * q.factor) AS taker_buy_quote_volume,
       c.trades, c.first_id, c.last_id,
       TRY((wide(quote_volume_hi, quote_volume_lo) * 10000 // nullif(wide(volume_hi, volume_lo), 0))::DECIMAL(38,0)
           * w.factor) AS vwap,
       ['open', 'closed', 'final'][c.state + 1] AS state, c.rev,
       CASE c.complete WHEN 1 THEN true WHEN 0 THEN false END AS complete,
       c.last_seq, c.pos, CASE c.origin WHEN 0 THEN 'tape' ELSE 'import' END AS origin
FROM shown_candles c
JOIN instruments i USING (number)
LEFT JOIN scale_factors p ON p.scale = i.price_scale
LEFT JOIN scale_factors s ON s.scale = i.size_scale
LEFT JOIN scale_factors q ON q.scale = i.price_scale + i.size_scale
LEFT JOIN scale_factors w ON w.scale = i.price_scale + 4;

CREATE VIEW v_coverage AS
SELECT i.id AS instrument, c.from_id, c.to_id, known_time(c.from_ts) AS from_ts, known_time(c.to_ts) AS to_ts
FROM coverage c JOIN instruments i USING (number);
