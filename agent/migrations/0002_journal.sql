-- Which journal this is, and how many events were ever written into it. A copy of the disk has the same id; two that live
-- on apart are told by the number, which never goes back and does not depend on what is still kept.
CREATE TABLE journal (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    id       TEXT    NOT NULL,
    position INTEGER NOT NULL
) STRICT;

INSERT INTO journal (one, id, position)
VALUES (1, lower(hex(randomblob(16))), (SELECT count(*) FROM events));
