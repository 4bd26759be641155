CREATE TABLE a(x, y);
WITH v(x, y) AS (VALUES (1, 'a;'), (2, 'b')) INSERT INTO a SELECT * FROM v;
INSERT INTO a VALUES (3, 'c'), (4, 'd') RETURNING x, y || ';';
