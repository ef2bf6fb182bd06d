-- Instruments somebody asked to be collected at run time.

CREATE TABLE watches (
    instrument VARCHAR PRIMARY KEY,
    since      TIMESTAMP NOT NULL DEFAULT now()
);
