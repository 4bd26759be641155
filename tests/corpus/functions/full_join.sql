CREATE TABLE a(k, x); CREATE TABLE b(k, y); INSERT INTO a VALUES (1, 'a'), (2, 'b'); INSERT INTO b VALUES (2, 'c'), (3, 'd');
CREATE TABLE r AS SELECT coalesce(a.k, b.k) AS k, x, y FROM a FULL OUTER JOIN b USING (k) ORDER BY 1;
