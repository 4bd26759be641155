CREATE TABLE edge(a INTEGER, b INTEGER);
INSERT INTO edge VALUES (1, 2), (2, 3), (4, 5);
CREATE VIEW reach AS
WITH RECURSIVE r(a, b) AS (
  SELECT a, b FROM edge
  UNION
  SELECT r.a, e.b FROM r JOIN edge e ON e.a = r.b
)
SELECT * FROM r;
CREATE TABLE reached AS SELECT * FROM reach ORDER BY a, b;
