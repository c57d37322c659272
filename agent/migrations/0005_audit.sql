-- What this server remembers of each coordinator's audit log, and what it says of its deployments.

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

INSERT INTO receipts (deployment, acknowledged) SELECT id, 1 FROM deployments WHERE ended = 1;
