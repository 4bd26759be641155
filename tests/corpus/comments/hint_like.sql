CREATE TABLE a(x, y);
INSERT INTO a VALUES (1, 2);
CREATE INDEX a_x ON a(x) /*+ no hints here; */;
SELECT /*+ INDEX(a a_x) */ * FROM a -- rows of a migration are ignored
;
