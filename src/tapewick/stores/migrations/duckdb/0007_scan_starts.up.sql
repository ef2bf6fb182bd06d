-- Where each scanner began, which it does not go above again when all is scanned anew, and the number of the newest
-- announcement that the bus has taken. Of scanners from before: the lowest block of an event, and all but what is said
-- again by whoever scans next.
ALTER TABLE scanner_state ADD COLUMN first_block BIGINT DEFAULT 0;
ALTER TABLE scanner_state ADD COLUMN said BIGINT DEFAULT 0;
UPDATE scanner_state SET said = seq,
    first_block = least(cursor + 1, (SELECT min(e.block) FROM order_events e WHERE e.component = scanner_state.component));

-- Amounts of tokens exceed every decimal there is here: they are text, exact as in the body.
CREATE OR REPLACE VIEW v_orders AS
SELECT component, order_id, o.status, user_address, json_extract_string(body, '$.token_in') AS token_in,
       json_extract_string(body, '$.token_out') AS token_out,
       nullif(json_extract_string(body, '$.amount_in'), '') AS amount_in,
       nullif(json_extract_string(body, '$.min_amount_out'), '') AS min_amount_out,
       nullif(json_extract_string(body, '$.amount_out'), '') AS amount_out,
       nullif(json_extract_string(body, '$.target_price'), '') AS target_price,
       json_extract_string(body, '$.order_type') AS order_type, known_time(nullif(created_at, 0)) AS created_at,
       known_time(nullif(o.updated_at, 0)) AS updated_at,
       known_time(nullif(json_extract_string(body, '$.executed_at')::BIGINT, 0)) AS executed_at,
       json_extract_string(body, '$.tx_hash') AS tx_hash, last_block,
       finality_name(last_block, confirmed, finalized) AS finality
FROM orders o JOIN scanner_state USING (component);
