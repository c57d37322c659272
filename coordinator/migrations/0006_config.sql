-- What differs between environments, and the keys that secrets are sealed to. Times are Unix milliseconds, digests are
-- lower-case hex. No secret stands here: what is sealed, only its server opens.

-- As each server's agent said it; another enrolment under the same name has another key.
CREATE TABLE sealing_keys (
    server    TEXT    PRIMARY KEY REFERENCES servers (name) ON DELETE CASCADE,
    -- An age recipient.
    recipient TEXT    NOT NULL,
    added_ms  INTEGER NOT NULL
) STRICT;

-- Who vouched for a server's keys: the `enrolled` statement.
CREATE TABLE acceptances (
    server   TEXT    PRIMARY KEY REFERENCES servers (name) ON DELETE CASCADE,
    envelope BLOB    NOT NULL,
    added_by TEXT    NOT NULL,
    added_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE configs (
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    -- 1, 2, 3, ...; the highest is in force.
    sequence    INTEGER NOT NULL,
    envelope    BLOB    NOT NULL,
    added_by    TEXT    NOT NULL,
    added_ms    INTEGER NOT NULL,
    PRIMARY KEY (app, environment, sequence)
) STRICT, WITHOUT ROWID;

-- A secret's value for one server. The commitment names the value, also through later configs that keep it.
CREATE TABLE sealed_secrets (
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    commitment  TEXT    NOT NULL,
    server      TEXT    NOT NULL,
    recipient   TEXT    NOT NULL,
    -- An age file.
    file        BLOB    NOT NULL,
    added_ms    INTEGER NOT NULL,
    PRIMARY KEY (app, environment, name, commitment, server)
) STRICT, WITHOUT ROWID;

-- The config that a rollout is of, chosen when it is asked for: all its servers get the same, also those that come later.
CREATE TABLE rollout_configs (
    rollout  TEXT    PRIMARY KEY REFERENCES rollouts (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL
) STRICT;
