PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, x TEXT);
INSERT INTO a VALUES(1,'one; and a half');
INSERT INTO a VALUES(5,replace('line one\nline two','\n',char(10)));
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('a',5);
CREATE INDEX a_x ON a(x);
CREATE VIEW v AS SELECT x FROM a
/* v(x) */;
COMMIT;
