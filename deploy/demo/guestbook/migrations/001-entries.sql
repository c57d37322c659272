create table entries (name text);
