DROP VIEW v_order_events, v_orders;
DROP FUNCTION finality_name(BIGINT, BIGINT, BIGINT);
DROP TABLE order_log, orders, order_events, blocks, scanner_state;
