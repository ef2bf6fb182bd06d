DROP TABLE ingest_keys, api_keys;
