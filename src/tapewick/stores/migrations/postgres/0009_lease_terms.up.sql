-- For how many seconds a lease was given: one that says it holds for longer was given before the clock was set back.
ALTER TABLE leases ADD COLUMN lasts DOUBLE PRECISION NOT NULL DEFAULT 3600;
