CREATE TABLE item(id INTEGER PRIMARY KEY, list INTEGER, position INTEGER);
INSERT INTO item(list) VALUES (1), (2), (1), (1), (2);
UPDATE item SET position = n.n FROM (SELECT id, row_number() OVER (PARTITION BY list ORDER BY id) AS n FROM item) AS n WHERE n.id = item.id;
