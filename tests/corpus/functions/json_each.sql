CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO doc VALUES (1, '{"tags": ["a;", "b"], "n": 1}'), (2, '{"tags": [], "n": 2.5}');
CREATE TABLE tag AS SELECT doc.id AS doc, j.key AS at, j.value AS tag FROM doc, json_each(doc.body, '$.tags') AS j;
ALTER TABLE doc ADD COLUMN n AS (json_extract(body, '$.n'));
