-- Who may come in, and what repeated requests were answered: shared by all gateways.

-- API keys. The id is the public beginning of a key, the digest the SHA-256 of the whole in hex. Times are seconds since
-- 1970; expires 0: never; revoked 0: it is not.
CREATE TABLE api_keys (
    id          TEXT PRIMARY KEY,
    digest      TEXT NOT NULL,
    scopes      TEXT[] NOT NULL,
    instruments TEXT NOT NULL,
    note        TEXT NOT NULL,
    created     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    revoked     BIGINT NOT NULL
);

-- Answers to requests with an idempotency key. Without an answer: the gateway that drew the turn works on it, until then.
CREATE TABLE ingest_keys (
    owner  TEXT NOT NULL,
    key    TEXT NOT NULL,
    digest BYTEA NOT NULL,
    at     BIGINT NOT NULL,
    answer BYTEA,
    turn   TEXT NOT NULL,
    until  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX ingest_keys_at ON ingest_keys (at);
