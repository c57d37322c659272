-- Artifacts that may begin by themselves somewhere, and what became of them; and what agents say of `rearm`. Times are Unix
-- milliseconds, digests and ids are lower-case hex.

CREATE TABLE candidates (
    number      INTEGER PRIMARY KEY,
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    version     TEXT    NOT NULL,
    -- '' for an artifact of every platform.
    platform    TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    -- The number of the publication that made it one: signed anew, it is one more.
    epoch       INTEGER NOT NULL,
    ms          INTEGER NOT NULL,
    since_ms    INTEGER NOT NULL,
    -- The environment in which a rollout of it succeeded, and that rollout. '': it was published.
    green_in    TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    standing    TEXT    NOT NULL CHECK (standing IN ('waiting', 'started', 'superseded', 'vetoed')),
    -- Of one that does not wait any more: since when, by whom ('': nobody, it followed), and why.
    settled_ms  INTEGER NOT NULL DEFAULT 0,
    settled_by  TEXT    NOT NULL DEFAULT '',
    because     TEXT    NOT NULL DEFAULT '',
    -- The rollout that it began with.
    rollout     TEXT,
    -- Why it was not let through when it was to begin, last. '': it was not tried, or not refused.
    refused     TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX candidates_one ON candidates (app, environment, digest, epoch, ms);
CREATE INDEX candidates_waiting ON candidates (app, environment) WHERE standing = 'waiting';

-- Since when the app's gate is re-armed there. NULL: it is not.
ALTER TABLE server_apps ADD COLUMN failed_epoch INTEGER;
ALTER TABLE server_apps ADD COLUMN failed_ms INTEGER;
