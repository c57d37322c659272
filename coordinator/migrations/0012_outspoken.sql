-- What a newer word of the same signers has taken the place of: sent again, it takes no place from that.
CREATE TABLE outspoken (
    -- Of the statement's bytes, whatever envelope is around them.
    statement TEXT PRIMARY KEY,
    artifact  TEXT NOT NULL REFERENCES artifacts (digest) ON DELETE CASCADE
) STRICT;
CREATE INDEX outspoken_by_artifact ON outspoken (artifact);
