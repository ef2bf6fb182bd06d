-- The names of all trades ever taken of instruments whose ids are unique: two words of a 128-bit hash. They outlive
-- their trades, so that one sent again is known for good. No index: names are random, so one would grow to many times
-- the table and lie in memory whole, while a scan of two packed columns takes milliseconds per million.

CREATE TABLE trade_keys (
    number INTEGER NOT NULL,
    hi     BIGINT NOT NULL,
    lo     BIGINT NOT NULL
);

-- Tapes of before: their ids are their names.
INSERT INTO trade_keys
SELECT DISTINCT t.number, t.trade_id, 0 FROM trades t JOIN instruments i USING (number) WHERE i.id_kind = 'unique';
