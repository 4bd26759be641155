CREATE TABLE s(g, v); INSERT INTO s VALUES ('a', 1), ('a', 2), ('b', 2), ('b', 2);
CREATE TABLE r AS SELECT g, count(*) FILTER (WHERE v > 1) AS over_one, count(DISTINCT v) AS kinds, group_concat(v, ';') AS list, total(v) AS t FROM s GROUP BY g HAVING count(*) > 1 ORDER BY g;
