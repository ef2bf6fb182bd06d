DROP VIEW candle_rows;
DROP TABLE trades;  -- one by one: hypertables are not dropped along with others
DROP TABLE candles;
DROP TABLE instruments, trade_hours, open_candles, coverage, gaps, tape_head;
