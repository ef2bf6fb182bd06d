-- What has been let go: rows of the timeframe (0: trades, by ts_event) that began before the floor are no more. Of
-- those the newest change was ``pos`` (trades: the last seq): a reader that stands before it cannot resume exactly.

CREATE TABLE retention_floors (
    number INTEGER NOT NULL,
    tf     SMALLINT NOT NULL,
    floor  BIGINT NOT NULL,
    pos    BIGINT NOT NULL,
    PRIMARY KEY (number, tf)
);

-- The time that chunk policies count back from: no tape is younger. ns.
CREATE FUNCTION tape_now() RETURNS BIGINT LANGUAGE sql STABLE AS
$$ SELECT coalesce(min(watermark), 0) FROM tape_head WHERE watermark > 0 $$;
