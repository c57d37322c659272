-- The text that a plan's digest is of: it goes with the orders of a rollout that is held to it, so that a server can tell
-- whether it is the one that was approved.
CREATE TABLE plan_documents (
    digest   TEXT PRIMARY KEY NOT NULL,
    document BLOB NOT NULL
) STRICT;
