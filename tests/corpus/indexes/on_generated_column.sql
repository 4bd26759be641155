CREATE TABLE p(first TEXT, last TEXT, name TEXT AS (first || ' ' || last));
CREATE INDEX p_name ON p(name COLLATE NOCASE);
INSERT INTO p(first, last) VALUES ('a', 'b');
