-- Who did what, in a chain of hashes (docs/formats.md, "audit entry"); what agents remember of it; and what they say they
-- ran. Times are Unix milliseconds, digests and ids are lower-case hex.

-- The entry is all there is: what is looked for is looked for in it, so that no column can say something else.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    entry    TEXT    NOT NULL,
    -- SHA-256 of the hash before and of the entry's bytes.
    hash     TEXT    NOT NULL
) STRICT;

-- Against mistakes; against who has the database there are the heads that others remember.
CREATE TRIGGER audit_grows_at_its_end BEFORE INSERT ON audit
WHEN NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM audit)
BEGIN SELECT RAISE(ABORT, 'the audit log grows at its end only'); END;
CREATE TRIGGER audit_is_not_altered BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is not altered'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'nothing is deleted from the audit log'); END;

-- The newest entry that each server's agent has seen, as it said when it connected.
CREATE TABLE audit_heads (
    server   TEXT    PRIMARY KEY REFERENCES servers (name) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    hash     TEXT    NOT NULL,
    seen_ms  INTEGER NOT NULL
) STRICT;

-- Agents that have seen an entry that is not here: somebody rewrote the log, or it was restored from a backup.
CREATE TABLE audit_disputes (
    server   TEXT    PRIMARY KEY REFERENCES servers (name) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    hash     TEXT    NOT NULL,
    -- What stands there instead; '': nothing.
    found    TEXT    NOT NULL,
    seen_ms  INTEGER NOT NULL
) STRICT;

-- The keys that agents sign receipts with, each endorsed by a key that the agent proved to have when it connected.
CREATE TABLE receipt_keys (
    server   TEXT    NOT NULL,
    -- The endorsement: an envelope.
    envelope BLOB    NOT NULL,
    digest   TEXT    NOT NULL,
    -- SHA-256 of the endorsing key's SPKI.
    spki     TEXT    NOT NULL,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (server, digest)
) STRICT;

-- Servers and rollouts are names, not references: a receipt outlives both.
CREATE TABLE receipts (
    deployment  TEXT    PRIMARY KEY,
    server      TEXT    NOT NULL,
    rollout     TEXT    NOT NULL,
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    artifact    TEXT    NOT NULL,
    envelope    BLOB    NOT NULL,
    digest      TEXT    NOT NULL,
    received_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX receipts_by_artifact ON receipts (artifact, environment);

-- The apps that an operator of role ci is for; none: every app.
CREATE TABLE operator_apps (
    operator TEXT NOT NULL REFERENCES operators (name) ON DELETE CASCADE,
    app      TEXT NOT NULL,
    PRIMARY KEY (operator, app)
) STRICT, WITHOUT ROWID;
-- A JSON list.
ALTER TABLE tokens ADD COLUMN apps TEXT NOT NULL DEFAULT '[]';
