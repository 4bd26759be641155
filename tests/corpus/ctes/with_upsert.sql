CREATE TABLE total(k TEXT PRIMARY KEY, n INTEGER);
INSERT INTO total VALUES ('a', 1);
WITH more(k, n) AS (VALUES ('a', 10), ('b', 20))
INSERT INTO total SELECT k, n FROM more WHERE true
ON CONFLICT (k) DO UPDATE SET n = n + excluded.n WHERE excluded.n > 5;
