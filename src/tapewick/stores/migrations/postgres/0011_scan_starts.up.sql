-- Where each scanner began, which it does not go above again when all is scanned anew, and the number of the newest
-- announcement that the bus has taken. Of scanners from before: the lowest block of an event, and all but what is said
-- again by whoever scans next.
ALTER TABLE scanner_state ADD COLUMN first_block BIGINT NOT NULL DEFAULT 0, ADD COLUMN said BIGINT NOT NULL DEFAULT 0;
UPDATE scanner_state s SET said = s.seq,
    first_block = least(s.cursor + 1, (SELECT min(e.block) FROM order_events e WHERE e.component = s.component));
