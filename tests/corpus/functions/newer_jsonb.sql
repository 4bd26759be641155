-- needs 3.45.0: jsonb
CREATE TABLE a(x BLOB, y TEXT); INSERT INTO a VALUES (jsonb('{"a": [1, 2]}'), json(jsonb('[1, "x;"]')));
