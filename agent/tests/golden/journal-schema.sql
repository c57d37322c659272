CREATE TABLE orders (
    id                 TEXT PRIMARY KEY NOT NULL,
    deployment         TEXT NOT NULL,
    coordinator        TEXT NOT NULL,
    document           BLOB NOT NULL,
    received_ms        INTEGER NOT NULL,
    -- Of the trust root that the order was verified under.
    trust_root_version INTEGER NOT NULL,
    -- The refusal's name and words; both absent for an accepted order.
    refused_code       TEXT,
    refused_message    TEXT
, plan BLOB, sealed BLOB) STRICT;

CREATE TABLE statements (
    order_id TEXT NOT NULL REFERENCES orders (id),
    position INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    PRIMARY KEY (order_id, position)
) STRICT;

CREATE TABLE deployments (
    id             TEXT PRIMARY KEY NOT NULL,
    order_id       TEXT NOT NULL UNIQUE REFERENCES orders (id),
    app            TEXT NOT NULL,
    manifest       TEXT NOT NULL,
    -- Below `releases/`, once staged.
    release        TEXT,
    ended          INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1)),
    -- Events up to here are durable at the coordinator.
    acknowledged   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX deployments_open ON deployments (app) WHERE ended = 0;

CREATE TABLE events (
    deployment TEXT NOT NULL REFERENCES deployments (id),
    sequence   INTEGER NOT NULL CHECK (sequence > 0),
    at_ms      INTEGER NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (deployment, sequence)
) STRICT;

CREATE TABLE logs (
    deployment   TEXT NOT NULL REFERENCES deployments (id),
    attempt      TEXT NOT NULL,
    -- Of the finished attempt's log file; absent while it may grow.
    length       INTEGER,
    -- Durable at the coordinator up to here.
    acknowledged INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (deployment, attempt)
) STRICT;

CREATE TABLE apps (
    app             TEXT NOT NULL,
    environment     TEXT NOT NULL,
    highest_epoch   INTEGER,
    highest_ms      INTEGER,
    succeeded_epoch INTEGER,
    succeeded_ms    INTEGER, failed_epoch INTEGER, failed_ms INTEGER, config_sequence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (app, environment)
) STRICT;

CREATE TABLE pointers (
    app             TEXT NOT NULL,
    environment     TEXT NOT NULL,
    pointer         TEXT NOT NULL CHECK (pointer IN ('good', 'before')),
    manifest        TEXT NOT NULL,
    version         TEXT NOT NULL,
    published_epoch INTEGER NOT NULL,
    published_ms    INTEGER NOT NULL,
    release         TEXT NOT NULL, config_sequence INTEGER, config TEXT, sealed BLOB,
    PRIMARY KEY (app, environment, pointer)
) STRICT;

CREATE TABLE terms (
    app         TEXT NOT NULL,
    environment TEXT NOT NULL,
    coordinator TEXT NOT NULL,
    term        INTEGER NOT NULL,
    PRIMARY KEY (app, environment, coordinator)
) STRICT;

CREATE TABLE journal (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    id       TEXT    NOT NULL,
    position INTEGER NOT NULL
) STRICT;

CREATE TABLE audit_heads (
    coordinator       TEXT    PRIMARY KEY NOT NULL,
    -- The newest entry that it was told of. It never goes down.
    sequence          INTEGER NOT NULL,
    hash              TEXT    NOT NULL,
    -- When it was told last of an end that does not go with that one, and of which; absent: never.
    disputed_ms       INTEGER,
    disputed_sequence INTEGER,
    disputed_hash     TEXT
) STRICT;

CREATE TABLE receipts (
    deployment   TEXT    PRIMARY KEY NOT NULL REFERENCES deployments (id),
    -- Signed. Absent: the deployment ended under an agent that made none.
    envelope     BLOB,
    acknowledged INTEGER NOT NULL DEFAULT 0 CHECK (acknowledged IN (0, 1))
) STRICT;

CREATE TABLE decided (
    app         TEXT NOT NULL,
    environment TEXT NOT NULL,
    -- The SHA-256 of the statement, whatever envelope is around it.
    statement   TEXT NOT NULL,
    PRIMARY KEY (app, environment, statement)
) STRICT;
