CREATE OR REPLACE VIEW v_orders AS
SELECT component, order_id, o.status, user_address, json_extract_string(body, '$.token_in') AS token_in,
       json_extract_string(body, '$.token_out') AS token_out,
       TRY_CAST(json_extract_string(body, '$.amount_in') AS DECIMAL(38,18)) AS amount_in,
       TRY_CAST(json_extract_string(body, '$.min_amount_out') AS DECIMAL(38,18)) AS min_amount_out,
       TRY_CAST(json_extract_string(body, '$.amount_out') AS DECIMAL(38,18)) AS amount_out,
       TRY_CAST(json_extract_string(body, '$.target_price') AS DECIMAL(38,18)) AS target_price,
       json_extract_string(body, '$.order_type') AS order_type, known_time(nullif(created_at, 0)) AS created_at,
       known_time(nullif(o.updated_at, 0)) AS updated_at,
       known_time(nullif(json_extract_string(body, '$.executed_at')::BIGINT, 0)) AS executed_at,
       json_extract_string(body, '$.tx_hash') AS tx_hash, last_block,
       finality_name(last_block, confirmed, finalized) AS finality
FROM orders o JOIN scanner_state USING (component);
ALTER TABLE scanner_state DROP COLUMN said;
ALTER TABLE scanner_state DROP COLUMN first_block;
