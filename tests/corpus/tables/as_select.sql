CREATE TABLE a(x INTEGER, y TEXT);
INSERT INTO a VALUES (1, 'one'), (2, 'two; three');
CREATE TABLE b AS SELECT x * 2 AS doubled, y, y || ';' AS "with;" FROM a WHERE x > 0;
