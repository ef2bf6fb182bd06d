DROP VIEW v_coverage, v_candles, shown_candles, v_trades, v_instruments;
DROP FUNCTION known_time(BIGINT), tf_name(SMALLINT), wide(BIGINT, BIGINT), high_word(NUMERIC), low_word(NUMERIC);
DROP TABLE scale_factors;
