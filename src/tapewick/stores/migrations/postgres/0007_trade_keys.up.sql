-- The names of all trades ever taken of instruments whose ids are unique: two words of a 128-bit hash. They outlive
-- their trades, so that one sent again is known for good.

CREATE TABLE trade_keys (
    hi     BIGINT NOT NULL,
    lo     BIGINT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (number, hi, lo)
);

-- Tapes of before: their ids are their names.
INSERT INTO trade_keys
SELECT DISTINCT t.trade_id, 0, t.number FROM trades t JOIN instruments i USING (number) WHERE i.id_kind = 'unique';
