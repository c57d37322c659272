-- What is rolled out where, what agents said of it, and what they were told. Times are Unix milliseconds, digests and
-- ids are lower-case hex. Servers are names, not references: history outlives a removed server.

-- The highest term of the lease on (app, environment); every rollout raises it, no restart lowers it.
CREATE TABLE terms (
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    term        INTEGER NOT NULL,
    PRIMARY KEY (app, environment)
) STRICT;

CREATE TABLE rollouts (
    id          TEXT    PRIMARY KEY,
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    -- The artifact that is brought in, or on a return the one that is left.
    version     TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    waves       TEXT    NOT NULL,
    force       INTEGER NOT NULL,
    term        INTEGER NOT NULL,
    started_by  TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    started_ms  INTEGER NOT NULL,
    -- When a person last wanted it: a hold that is newer keeps it from beginning.
    asked_ms    INTEGER NOT NULL,
    ended_ms    INTEGER NOT NULL DEFAULT 0,
    standing    TEXT    NOT NULL CHECK (standing IN ('queued', 'active', 'ended')),
    -- Servers have an order of it, or are to get one without anybody's word: also of one that has ended.
    under_way   INTEGER NOT NULL,
    -- Which servers it is for, as the operator wrote it: new ones that match converge to it.
    selector    TEXT    NOT NULL DEFAULT '',
    -- The rollout of returns that it began when it stopped.
    rolled_back_by TEXT,
    -- The plan that the operator pinned, JSON; NULL: none.
    pinned      TEXT,
    -- The engine's state, JSON.
    state       TEXT    NOT NULL,
    -- The cursor of its newest change.
    changed     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX rollouts_one_active ON rollouts (app, environment) WHERE standing = 'active';
CREATE INDEX rollouts_open ON rollouts (standing) WHERE standing <> 'ended' OR under_way;
CREATE INDEX rollouts_newest ON rollouts (started_ms);

CREATE TABLE deployments (
    id       TEXT    PRIMARY KEY,
    rollout  TEXT    NOT NULL REFERENCES rollouts (id),
    server   TEXT    NOT NULL,
    -- 1, 2, ...: a retry makes another one. Only the newest counts for the rollout.
    attempt  INTEGER NOT NULL,
    -- What it brings in. NULL: a return whose artifact is known when it is ordered.
    digest   TEXT,
    -- The newest event that is in `deployment_events`.
    sequence INTEGER NOT NULL DEFAULT 0,
    -- What the events add up to, JSON.
    view     TEXT    NOT NULL,
    changed  INTEGER NOT NULL DEFAULT 0,
    UNIQUE (rollout, server, attempt)
) STRICT;

-- Agents' journals, as they were sent.
CREATE TABLE deployment_events (
    deployment TEXT    NOT NULL REFERENCES deployments (id),
    sequence   INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    PRIMARY KEY (deployment, sequence)
) STRICT, WITHOUT ROWID;

-- The outbox: written before it is sent, sent again until it is answered.
CREATE TABLE orders (
    number      INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    deployment  TEXT    NOT NULL REFERENCES deployments (id),
    server      TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('deploy', 'return', 'cancel', 'confirm', 'decide', 'once')),
    -- The artifact whose documents and files go with it.
    manifest    TEXT,
    document    BLOB    NOT NULL,
    created_ms  INTEGER NOT NULL,
    answered_ms INTEGER
) STRICT;
CREATE INDEX orders_open ON orders (server) WHERE answered_ms IS NULL;
CREATE INDEX orders_by_deployment ON orders (deployment);

-- The attempts' log files: `length` bytes were acknowledged, the first `kept` of them are in the file.
CREATE TABLE logs (
    deployment TEXT    NOT NULL REFERENCES deployments (id),
    attempt    TEXT    NOT NULL,
    length     INTEGER NOT NULL,
    kept       INTEGER NOT NULL,
    PRIMARY KEY (deployment, attempt)
) STRICT, WITHOUT ROWID;

-- What followers read, in the order in which it became durable. A row says what changed, not how: states are read when
-- they are delivered, so a slow follower sees the newest and costs no memory. Log rows name bytes of a file.
CREATE TABLE changes (
    cursor     INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout    TEXT    NOT NULL,
    at_ms      INTEGER NOT NULL,
    -- NULL: the rollout itself.
    deployment TEXT,
    -- NULL: the deployment's state.
    attempt    TEXT,
    start      INTEGER NOT NULL DEFAULT 0,
    length     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX changes_by_rollout ON changes (rollout, cursor);

-- Who did what to a rollout, and what it did by itself.
CREATE TABLE rollout_history (
    number  INTEGER PRIMARY KEY,
    rollout TEXT    NOT NULL REFERENCES rollouts (id),
    at_ms   INTEGER NOT NULL,
    -- Empty: nobody, it followed.
    who     TEXT    NOT NULL,
    -- A verb, or the state that it came to.
    what    TEXT    NOT NULL,
    because TEXT    NOT NULL
) STRICT;
CREATE INDEX rollout_history_by_rollout ON rollout_history (rollout, number);

-- Nothing begins by itself here until somebody lifts it.
CREATE TABLE holds (
    app         TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    because     TEXT    NOT NULL,
    who         TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (app, environment)
) STRICT;
