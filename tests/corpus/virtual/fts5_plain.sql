CREATE VIRTUAL TABLE mail USING fts5(subject, body);
INSERT INTO mail VALUES ('hello; world', 'it''s a test'), ('second', 'another test of words');
DELETE FROM mail WHERE mail MATCH 'another';
CREATE TABLE found AS SELECT subject FROM mail WHERE mail MATCH 'test' ORDER BY rank;
