CREATE TABLE a(x, y);
INSERT INTO a VALUES (1, 2);
CREATE VIEW v AS SELECT x AS "the x", y [the y], x+y AS `sum;`, x || y 'both' FROM a AS "b c";
