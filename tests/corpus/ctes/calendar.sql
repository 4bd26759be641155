CREATE TABLE day(d TEXT PRIMARY KEY, weekday INTEGER);
WITH RECURSIVE days(d) AS (
  VALUES ('2024-01-01')
  UNION ALL
  SELECT date(d, '+1 day') FROM days WHERE d < '2024-02-29'
)
INSERT INTO day SELECT d, CAST(strftime('%w', d) AS INTEGER) FROM days;
