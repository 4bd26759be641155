CREATE TABLE s(v INTEGER); INSERT INTO s VALUES (1), (2), (3), (4), (5);
CREATE TABLE r AS SELECT v, ntile(2) OVER (ORDER BY v) AS half, first_value(v) OVER w AS f, last_value(v) OVER w AS l, nth_value(v, 2) OVER w AS s2,
  cume_dist() OVER (ORDER BY v) AS c FROM s WINDOW w AS (ORDER BY v ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING);
