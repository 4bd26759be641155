CREATE TABLE kv(k TEXT, v); INSERT INTO kv VALUES ('a', 1), ('b', 'x;'), ('c', NULL);
CREATE TABLE r AS SELECT json_group_object(k, v) AS o, json_group_array(v) AS l FROM (SELECT * FROM kv ORDER BY k);
INSERT INTO r VALUES (json_patch('{"a":1,"b":2}', '{"b":null,"c":3}'), json_remove('[1,2,3]', '$[1]'));
