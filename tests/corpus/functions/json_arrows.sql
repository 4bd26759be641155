CREATE TABLE doc(body TEXT); INSERT INTO doc VALUES ('{"a": {"b": [10, "x;"]}}');
CREATE TABLE r AS SELECT body -> '$.a' AS a, body ->> '$.a.b[1]' AS b, body -> 'a' ->> 'b' AS c FROM doc;
CREATE INDEX doc_b ON doc(body ->> '$.a.b[0]');
