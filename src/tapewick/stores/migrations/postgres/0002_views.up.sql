-- Tables for people: decimals, timestamps, names. Every number is exact; timestamps have microseconds.

CREATE TABLE scale_factors AS
SELECT s::SMALLINT AS scale, (CASE s WHEN 0 THEN '1' ELSE '0.' || repeat('0', s - 1) || '1' END)::NUMERIC AS factor
FROM generate_series(0, 40) AS digits(s);

-- hi * 2^64 + lo, the low word being unsigned.
CREATE FUNCTION wide(hi BIGINT, lo BIGINT) RETURNS NUMERIC LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (hi::NUMERIC + CASE WHEN lo < 0 THEN 1 ELSE 0 END) * 18446744073709551616 + lo $$;

-- The words of such a sum; one that 128 bits cannot hold is an error.
CREATE FUNCTION high_word(sum NUMERIC) RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (div(sum, 18446744073709551616) - CASE WHEN mod(sum, 18446744073709551616) < 0 THEN 1 ELSE 0 END)::BIGINT $$;

CREATE FUNCTION low_word(sum NUMERIC) RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (word - CASE WHEN word >= 9223372036854775808 THEN 18446744073709551616
                       WHEN word < -9223372036854775808 THEN -18446744073709551616 ELSE 0 END)::BIGINT
   FROM (SELECT mod(sum, 18446744073709551616) AS word) AS low $$;

CREATE FUNCTION tf_name(tf SMALLINT) RETURNS TEXT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT ('{1s,1m,3m,5m,15m,30m,45m,1h,2h,3h,4h,6h,8h,12h,1d,3d,1w,1M}'::TEXT[])[tf + 1] $$;

CREATE FUNCTION known_time(ns BIGINT) RETURNS TIMESTAMPTZ LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN ns > -9223372036854775808 THEN 'epoch'::TIMESTAMPTZ + (ns / 1000) * '1 microsecond'::INTERVAL END $$;

CREATE VIEW v_instruments AS
SELECT id AS instrument, venue, symbol, base, quote, price_scale, size_scale, status, id_kind, granularity,
       epoch, seq, pos, known_time(watermark) AS watermark
FROM instruments LEFT JOIN tape_head USING (number);

CREATE VIEW v_trades AS
SELECT i.id AS instrument, t.seq, t.trade_id, t.first_id, t.count,
       known_time(t.ts_event) AS ts_event, known_time(t.ts_recv) AS ts_recv,
       t.price * p.factor AS price, t.size * s.factor AS size,
       CASE t.side WHEN 1 THEN 'buy' WHEN -1 THEN 'sell' ELSE 'unknown' END AS side, t.late
FROM trades t
JOIN instruments i USING (number)
LEFT JOIN scale_factors p ON p.scale = i.price_scale
LEFT JOIN scale_factors s ON s.scale = i.size_scale;

-- One row per candle, by the rule every reader follows: the tape where complete, else the import, else the tape.
CREATE VIEW shown_candles AS
SELECT c.* FROM candle_rows c
LEFT JOIN candle_rows other
    ON other.number = c.number AND other.tf = c.tf AND other.open_time = c.open_time AND other.origin = 1 - c.origin
WHERE other.complete IS NULL OR (c.complete = 1 AND c.origin = 0) OR (other.complete <> 1 AND c.origin = 1);

CREATE VIEW v_candles AS
SELECT i.id AS instrument, tf_name(c.tf) AS tf, known_time(c.open_time) AS open_time,
       nullif(c.open, 0) * p.factor AS open, nullif(c.high, 0) * p.factor AS high,
       nullif(c.low, 0) * p.factor AS low, nullif(c.close, 0) * p.factor AS close,
       wide(volume_hi, volume_lo) * s.factor AS volume,
       wide(quote_volume_hi, quote_volume_lo) * q.factor AS quote_volume,
       wide(taker_buy_volume_hi, taker_buy_volume_lo) * s.factor AS taker_buy_volume,
       wide(taker_buy_quote_volume_hi, taker_buy_quote_volume_lo) * q.factor AS taker_buy_quote_volume,
       c.trades, c.first_id, c.last_id,
       div(wide(quote_volume_hi, quote_volume_lo) * 10000, nullif(wide(volume_hi, volume_lo), 0)) * w.factor AS vwap,
       ('{open,closed,final}'::TEXT[])[c.state + 1] AS state, c.rev,
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
