-- Statements by which an accepted order decided something on this server: they decide nothing more.

CREATE TABLE decided (
    app         TEXT NOT NULL,
    environment TEXT NOT NULL,
    -- The SHA-256 of the statement, whatever envelope is around it.
    statement   TEXT NOT NULL,
    PRIMARY KEY (app, environment, statement)
) STRICT;
