-- Two agents under one identity, and a coordinator that is behind its agents.

-- The agent's journal as it was seen last, and how far; '' until the first session after an enrolment.
ALTER TABLE servers ADD COLUMN journal TEXT NOT NULL DEFAULT '';
ALTER TABLE servers ADD COLUMN journal_position INTEGER NOT NULL DEFAULT 0;
-- Why nothing is deployed to it and no session is taken; '' for a server that is not in quarantine.
ALTER TABLE servers ADD COLUMN quarantined TEXT NOT NULL DEFAULT '';
ALTER TABLE servers ADD COLUMN quarantined_ms INTEGER NOT NULL DEFAULT 0;
-- Whose identity it was then: another one since is an enrolment that told the two apart.
ALTER TABLE servers ADD COLUMN quarantined_uid TEXT NOT NULL DEFAULT '';

-- An agent has seen a term that this coordinator never gave: it was restored from a backup, and stops for a person.
CREATE TABLE behind (
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    -- The highest term seen, where, and when first.
    term        INTEGER NOT NULL,
    server      TEXT    NOT NULL,
    seen_ms     INTEGER NOT NULL,
    PRIMARY KEY (app, environment)
) STRICT;

-- Who said that this coordinator goes on all the same, and why.
CREATE TABLE take_overs (
    number      INTEGER PRIMARY KEY,
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    -- The highest term seen, where, and the term from which it goes on.
    seen        INTEGER NOT NULL,
    server      TEXT    NOT NULL,
    term        INTEGER NOT NULL,
    taken_by    TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    taken_ms    INTEGER NOT NULL
) STRICT;

-- Deployments that agents told of and that are not here.
CREATE TABLE unknown_deployments (
    server     TEXT    NOT NULL REFERENCES servers (name) ON DELETE CASCADE,
    deployment TEXT    NOT NULL,
    seen_ms    INTEGER NOT NULL,
    PRIMARY KEY (server, deployment)
) STRICT, WITHOUT ROWID;
