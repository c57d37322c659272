-- What other programs are told of rollouts and candidates. Times are Unix milliseconds.

-- As the file of the running coordinator has them: what happens is kept for those that ask for it.
CREATE TABLE webhooks (
    name   TEXT PRIMARY KEY,
    -- JSON: events, apps, environments.
    wanted TEXT NOT NULL
) STRICT;

-- One row for one event and one webhook, in the order in which they happened.
CREATE TABLE webhook_messages (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook    TEXT    NOT NULL,
    -- The same for every try: by it the other side knows what it has.
    id         TEXT    NOT NULL UNIQUE,
    event      TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('waiting', 'delivered', 'given-up')),
    tries      INTEGER NOT NULL DEFAULT 0,
    -- Not before this.
    next_ms    INTEGER NOT NULL DEFAULT 0,
    -- What the last try came to; '': nothing wrong.
    error      TEXT    NOT NULL DEFAULT '',
    ended_ms   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX webhook_messages_waiting ON webhook_messages (webhook, number) WHERE state = 'waiting';

-- Messages that a webhook never got, because it was away for too long: counted, since they themselves go.
CREATE TABLE webhook_losses (
    webhook TEXT    PRIMARY KEY,
    lost    INTEGER NOT NULL
) STRICT;

-- What it was last said that a candidate waits for: said once, also over a restart. '': nothing was said.
ALTER TABLE candidates ADD COLUMN told TEXT NOT NULL DEFAULT '';
