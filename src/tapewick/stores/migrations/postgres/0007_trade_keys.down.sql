DROP TABLE trade_keys;
