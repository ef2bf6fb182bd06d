-- Who holds a name until when, by this server's clock. Every holder renews its rows again and again.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

-- Instruments somebody asked to be collected at run time.
CREATE TABLE watches (
    instrument TEXT PRIMARY KEY,
    since      TIMESTAMPTZ NOT NULL DEFAULT now()
);
