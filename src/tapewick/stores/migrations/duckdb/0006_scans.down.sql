DROP VIEW v_order_events;
DROP VIEW v_orders;
DROP MACRO finality_name;
DROP TABLE order_log;
DROP TABLE orders;
DROP TABLE order_events;
DROP TABLE blocks;
DROP TABLE scanner_state;
