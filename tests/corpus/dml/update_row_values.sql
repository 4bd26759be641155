CREATE TABLE a(x, y, z);
INSERT INTO a VALUES (1, 2, 3), (4, 5, 6);
UPDATE a SET (x, y) = (y, x) WHERE (x, y) < (3, 0);
UPDATE a SET (x, z) = (SELECT max(x), min(z) FROM a) WHERE x = 4;
