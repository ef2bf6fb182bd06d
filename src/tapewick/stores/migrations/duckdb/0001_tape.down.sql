DROP TABLE tape_head;
DROP TABLE gaps;
DROP TABLE coverage;
DROP VIEW candle_rows;
DROP TABLE open_candles;
DROP TABLE candles;
DROP TABLE trades;
DROP TABLE instruments;
