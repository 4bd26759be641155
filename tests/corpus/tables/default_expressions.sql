CREATE TABLE d(id INTEGER PRIMARY KEY, a DEFAULT (1 + 2), b DEFAULT (upper('x;')), c DEFAULT -5, d DEFAULT +1.5e3, e DEFAULT x'0a', f DEFAULT 'it''s', g TEXT DEFAULT (json_array(1, 2)));
INSERT INTO d(id) VALUES (1), (2);
