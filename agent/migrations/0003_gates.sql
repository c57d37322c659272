-- What gates and config ask this server to remember.

-- When the app's newest deployment ended, if it did not succeed; absent once one has.
ALTER TABLE apps ADD COLUMN failed_epoch INTEGER;
ALTER TABLE apps ADD COLUMN failed_ms INTEGER;
-- The highest of an accepted config. It never goes down.
ALTER TABLE apps ADD COLUMN config_sequence INTEGER NOT NULL DEFAULT 0;

-- What the artifact last ran with, so that a way back changes nothing else: the config statement's sequence (0: there was
-- none), and the values in their canonical form. Absent where an agent before this one wrote the row.
ALTER TABLE pointers ADD COLUMN config_sequence INTEGER;
ALTER TABLE pointers ADD COLUMN config TEXT;

-- What came beside an accepted order: the plan document that it is bound to, and the values that are sealed to this server.
ALTER TABLE orders ADD COLUMN plan BLOB;
ALTER TABLE orders ADD COLUMN sealed BLOB;
