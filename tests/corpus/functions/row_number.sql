CREATE TABLE s(g TEXT, v INTEGER); INSERT INTO s VALUES ('a', 3), ('a', 1), ('b', 2), ('a', 2);
CREATE TABLE r AS SELECT g, v, row_number() OVER (PARTITION BY g ORDER BY v DESC) AS n, rank() OVER w AS k FROM s WINDOW w AS (ORDER BY v);
