-- What an artifact last ran with has secrets, too: as they were sealed to this server, so that a way back has them and the
-- disk does not. Absent where there were none.
ALTER TABLE pointers ADD COLUMN sealed BLOB;
