CREATE TABLE a(old_name TEXT); INSERT INTO a VALUES ('v');
CREATE VIEW v AS SELECT a.old_name AS o, length(old_name) FROM a WHERE old_name <> 'old_name';
ALTER TABLE a RENAME COLUMN old_name TO new_name;
