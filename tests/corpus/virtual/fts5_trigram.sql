CREATE VIRTUAL TABLE tri USING fts5(x, tokenize='trigram');
INSERT INTO tri VALUES ('abcdef'), ('bcd;efg');
CREATE TABLE r AS SELECT x FROM tri WHERE x LIKE '%bcd%';
