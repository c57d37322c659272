-- The highest config that the server's agent has accepted of the app; 0: none.
ALTER TABLE server_apps ADD COLUMN config_sequence INTEGER NOT NULL DEFAULT 0;
