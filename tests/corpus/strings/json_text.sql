CREATE TABLE setting(k TEXT PRIMARY KEY, v TEXT CHECK (json_valid(v)));
INSERT INTO setting VALUES ('theme', '{"name": "dark; blue", "sizes": [1, 2, {"x": "it''s"}]}'), ('empty', '{}');
UPDATE setting SET v = json_set(v, '$.name', 'light') WHERE k = 'theme';
