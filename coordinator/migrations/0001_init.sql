-- Who may talk, what may be deployed, and where to. Times are Unix milliseconds, digests are lower-case hex.

-- The bundle that `consign init` wrote and `consign serve` imported: exactly one, for ever.
CREATE TABLE coordinator (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    id            TEXT    NOT NULL,
    bundle_sha256 TEXT    NOT NULL,
    -- The host by which others reach it, if the bundle says one.
    advertise     TEXT,
    imported_ms   INTEGER NOT NULL
) STRICT;

CREATE TABLE trust_roots (
    version  INTEGER PRIMARY KEY,
    envelope BLOB    NOT NULL,
    added_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE servers (
    name               TEXT    PRIMARY KEY,
    uid                TEXT    NOT NULL UNIQUE,
    environment        TEXT    NOT NULL,
    labels             TEXT    NOT NULL DEFAULT '{}',
    enabled            INTEGER NOT NULL DEFAULT 1,
    disabled_reason    TEXT    NOT NULL DEFAULT '',
    disabled_by        TEXT    NOT NULL DEFAULT '',
    enrolled_ms        INTEGER NOT NULL,
    -- What the agent said of itself, last.
    last_seen_ms       INTEGER NOT NULL DEFAULT 0,
    agent_version      TEXT    NOT NULL DEFAULT '',
    os                 TEXT    NOT NULL DEFAULT '',
    arch               TEXT    NOT NULL DEFAULT '',
    root               INTEGER NOT NULL DEFAULT 0,
    boot_id            TEXT    NOT NULL DEFAULT '',
    clock_offset_ms    INTEGER NOT NULL DEFAULT 0,
    trust_root_version INTEGER NOT NULL DEFAULT 0,
    trust_root_error   TEXT    NOT NULL DEFAULT ''
) STRICT;

-- The apps on a server, as its agent reported them. NULL: no such artifact.
CREATE TABLE server_apps (
    server       TEXT    NOT NULL REFERENCES servers (name) ON DELETE CASCADE,
    app          TEXT    NOT NULL,
    good         TEXT,
    good_version TEXT    NOT NULL DEFAULT '',
    before       TEXT,
    current      TEXT,
    epoch        INTEGER NOT NULL DEFAULT 0,
    ms           INTEGER NOT NULL DEFAULT 0,
    term         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (server, app)
) STRICT;

CREATE TABLE operators (
    name     TEXT    PRIMARY KEY,
    role     TEXT    NOT NULL CHECK (role IN ('viewer', 'deployer', 'ci', 'admin')),
    added_by TEXT    NOT NULL,
    added_ms INTEGER NOT NULL
) STRICT;

-- The allow-list: a client key that is not here is nobody. Exactly one of server and operator holds a key.
CREATE TABLE keys (
    spki_sha256  TEXT    PRIMARY KEY,
    server       TEXT    REFERENCES servers (name) ON DELETE CASCADE,
    operator     TEXT    REFERENCES operators (name) ON DELETE CASCADE,
    not_after_ms INTEGER NOT NULL,
    added_ms     INTEGER NOT NULL,
    -- NULL until the key has been used; its first use ends the holder's older keys.
    seen_ms      INTEGER,
    CHECK ((server IS NULL) <> (operator IS NULL))
) STRICT;
CREATE INDEX keys_by_server ON keys (server);
CREATE INDEX keys_by_operator ON keys (operator);

-- Used tokens stay until they would have expired, so that a second use is told from a wrong secret.
CREATE TABLE tokens (
    id            TEXT    PRIMARY KEY,
    secret_sha256 TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    environment   TEXT    NOT NULL,
    role          TEXT    NOT NULL CHECK (role IN ('agent', 'viewer', 'deployer', 'ci', 'admin')),
    replaces      INTEGER NOT NULL,
    created_by    TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL,
    used_ms       INTEGER,
    used_from     TEXT
) STRICT;

-- One row per directory of `artifacts/`. platform: '' for an artifact of every platform.
CREATE TABLE artifacts (
    digest      TEXT    PRIMARY KEY,
    app         TEXT    NOT NULL,
    version     TEXT    NOT NULL,
    platform    TEXT    NOT NULL,
    entries     INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    pack_bytes  INTEGER NOT NULL,
    pack_sha256 TEXT    NOT NULL,
    added_ms    INTEGER NOT NULL,
    -- The highest number of its publications: what "newest" means.
    epoch       INTEGER NOT NULL,
    ms          INTEGER NOT NULL,
    UNIQUE (app, version, platform)
) STRICT;
