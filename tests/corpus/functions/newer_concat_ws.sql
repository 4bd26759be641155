-- needs 3.44.0: concat_ws and ORDER BY in an aggregate
CREATE TABLE a(x); INSERT INTO a VALUES ('b'), ('a'), ('c');
CREATE TABLE r AS SELECT concat_ws(';', 'x', NULL, 'y') AS w, group_concat(x, ';' ORDER BY x DESC) AS l FROM a;
