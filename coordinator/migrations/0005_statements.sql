-- What was said about artifacts, as it was signed. Times are Unix milliseconds, digests and ids are lower-case hex.

CREATE TABLE statements (
    -- Of the envelope.
    digest      TEXT    PRIMARY KEY,
    -- The manifest that it is about.
    artifact    TEXT    NOT NULL REFERENCES artifacts (digest) ON DELETE CASCADE,
    predicate   TEXT    NOT NULL,
    -- '': it is not about one.
    environment TEXT    NOT NULL,
    -- A decision's: `rollout/server/step`, the server '' for every one. '' of all others.
    about       TEXT    NOT NULL,
    -- The ids of the keys that signed it and may, when it came; sorted, apart by a space.
    signers     TEXT    NOT NULL,
    -- What a publication or an approval is ordered by; 0 of all others.
    epoch       INTEGER NOT NULL,
    ms          INTEGER NOT NULL,
    envelope    BLOB    NOT NULL,
    -- '': it came with the artifact.
    added_by    TEXT    NOT NULL,
    added_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX statements_by_artifact ON statements (artifact);
