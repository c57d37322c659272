-- How rollouts go about it, by environment; and what was foreseen of them. Times are Unix milliseconds, digests are
-- lower-case hex.

CREATE TABLE environments (
    name       TEXT    PRIMARY KEY,
    -- JSON; what is absent is as if nothing had been applied.
    settings   TEXT    NOT NULL,
    applied_ms INTEGER NOT NULL,
    applied_by TEXT    NOT NULL
) STRICT;

-- Who changed what there. Environments are names, not references: a hold can be lifted where nothing was ever applied.
CREATE TABLE environment_history (
    number      INTEGER PRIMARY KEY,
    environment TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    who         TEXT    NOT NULL,
    what        TEXT    NOT NULL,
    because     TEXT    NOT NULL
) STRICT;
CREATE INDEX environment_history_by_environment ON environment_history (environment, number);

-- What servers said that they would do. The newest are kept, so that a rollout can be held to one of them.
CREATE TABLE previews (
    number      INTEGER PRIMARY KEY,
    digest      TEXT    NOT NULL,
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    -- The artifact's manifest.
    artifact    TEXT    NOT NULL,
    made_ms     INTEGER NOT NULL,
    -- By server, what its steps' conditions came to; JSON.
    servers     TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX previews_one ON previews (digest, app, environment);
